import pytest

from mantis.config.recipe import parse_recipe
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from mantis.store.s3 import MinioStore
from pipelines.execution.preflight import check_launcher

ON_A_CLUSTER = {"training.launcher": "trainjob", "cluster.image": "mantis/train:1"}


@pytest.fixture(autouse=True)
def _no_image_of_this_pod(monkeypatch):
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)


@pytest.fixture
def in_a_bucket():
    """A run whose store is named and never asked."""

    def make(**overrides: str) -> Run:
        given = ON_A_CLUSTER | {name.replace("__", "."): value for name, value in overrides.items()}
        recipe = parse_recipe("name: x", origin="test", overrides=given)
        return Run(id="x", store=MinioStore(bucket="mantis", prefix="here"), recipe=recipe)

    return make


def test_a_cluster_that_answers_will_do(in_a_bucket, api_server):
    check_launcher(in_a_bucket())
    api_server.trainer = False
    with pytest.raises(ConfigError, match="has no TrainJobs"):
        check_launcher(in_a_bucket())
