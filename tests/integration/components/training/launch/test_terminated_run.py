"""A launcher in a pod of KFP, whose run a person terminates. The server answers as the API server and Argo do."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from components.training.launch import terminated_run
from components.training.launch.terminated_run import sigterm_when_terminated
from mantis.processes import sigterm_raises
from tests.fixtures.api_server import JsonServer, Kubeconfig
from tests.helpers.waiting import HANG_SECONDS

Workflows = Callable[[], str]
PODS, WORKFLOWS = "/api/v1/namespaces/kubeflow/pods/train-1", "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"


@pytest.fixture
def in_pod(
    json_server: JsonServer, kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Workflows | int], None]:
    """Make this process a step of a KFP run; watches of its Workflow get the texts that are given, or a status."""

    def make(workflows: Workflows | int) -> None:
        def answer(method: str, address: str) -> tuple[int, object]:
            parsed = urlparse(address)
            if parsed.path == PODS:
                return 200, {"metadata": {"name": "train-1", "labels": {"workflows.argoproj.io/workflow": "run-x"}}}
            asked = parse_qs(parsed.query)
            assert (parsed.path, asked["fieldSelector"]) == (WORKFLOWS, ["metadata.name=run-x"])
            if isinstance(workflows, int):
                return workflows, {"message": "no"}
            return 200, workflows()

        kubeconfig(json_server(answer))
        (tmp_path / "namespace").write_text("kubeflow")
        monkeypatch.setattr(terminated_run, "NAMESPACE", tmp_path / "namespace")
        monkeypatch.setattr(terminated_run, "PAUSE_SECONDS", 0.01)
        monkeypatch.setenv("KFP_POD_NAME", "train-1")

    return make


def event(spec: dict[str, object]) -> str:
    return json.dumps({"type": "MODIFIED", "object": {"metadata": {"name": "run-x"}, "spec": spec}}) + "\n"


@pytest.mark.parametrize("ending", [{"activeDeadlineSeconds": 0}, {"shutdown": "Terminate"}])
def test_a_terminated_run_is_a_sigterm(in_pod: Callable[[Workflows], None], ending: dict[str, object]) -> None:
    answers = [event({}), "", event({"activeDeadlineSeconds": 600}) + event(ending)]
    in_pod(lambda: answers.pop(0) if answers else "")
    with pytest.raises(SystemExit) as ended, sigterm_raises(), sigterm_when_terminated():
        time.sleep(HANG_SECONDS)
    assert ended.value.code == 143


def test_a_launcher_that_has_ended_gets_no_signal(in_pod: Callable[[Workflows], None]) -> None:
    watched, go_on = threading.Event(), threading.Event()

    def wait() -> str:
        watched.set()
        go_on.wait(HANG_SECONDS)
        return event({"activeDeadlineSeconds": 0})

    in_pod(wait)
    with sigterm_raises(), sigterm_when_terminated():
        assert watched.wait(HANG_SECONDS)
    go_on.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "kfp-run"]:
        thread.join(HANG_SECONDS)


def test_an_account_that_may_not_watch_says_so_and_goes_on(
    in_pod: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    in_pod(403)
    with caplog.at_level(logging.WARNING), sigterm_when_terminated():
        for thread in [thread for thread in threading.enumerate() if thread.name == "kfp-run"]:
            thread.join(HANG_SECONDS)
    assert "is noticed late: no" in caplog.text


def test_outside_of_kfp_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    with sigterm_when_terminated():
        assert "kfp-run" not in [thread.name for thread in threading.enumerate()]
