import socket

import pytest

from components.core.settings import parse_recipe
from components.core.steps import Run
from components.core.store_local import LocalStore
from components.core.tracking import Status
from pipelines import finish


@pytest.fixture
def nowhere(kubeconfig):
    """KUBECONFIG of an API server that is away."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kubeconfig(port)


def test_a_cluster_that_is_away_keeps_no_run_from_being_closed(nowhere, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(finish, "CLUSTER_SECONDS", 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    recipe = parse_recipe("name: x\ntraining: {launcher: trainjob}\n", origin="test")
    run = Run(id="closed", store=LocalStore(tmp_path / "store"), recipe=recipe)
    finish.close_run(run, Status.KILLED)
    assert run.store.stat("runs/closed/summary.json")
    assert "The API server does not answer" in capfd.readouterr().err
