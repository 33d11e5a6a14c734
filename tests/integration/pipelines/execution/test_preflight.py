import pytest

from mantis.errors import ConfigError
from pipelines.execution.preflight import check_launcher
from tests.fixtures.api_server import ApiServer
from tests.fixtures.trainjobs import TrainjobRun


def test_a_cluster_that_answers_will_do(trainjob_run: TrainjobRun, api_server: ApiServer) -> None:
    check_launcher(trainjob_run())
    api_server.trainer = False
    with pytest.raises(ConfigError, match="has no TrainJobs"):
        check_launcher(trainjob_run())
