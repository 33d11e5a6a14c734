"""The process of a pod around its ranks: the end of its log, and the exit status that the Job's policy reads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from components.training.launch import torchrun_in_pod
from components.training.monitoring.failures import Failure
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS
from tests.helpers.yaml_files import documents

ARGUMENTS = ["-m", "any"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a pod waits before it ends."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], waits: list[float]) -> Any:
    """The exit status and the log of a pod whose rank left `failure`, and ended with `code`."""
    log = tmp_path / "termination-log"
    monkeypatch.setenv("MANTIS_TERMINATION_LOG", str(log))

    def run(failure: Failure | None, code: int = 1) -> tuple[int, str]:
        log.write_text(failure.model_dump_json() if failure else "")

        def fail(_: Any) -> None:
            report = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")
            raise ChildFailedError("components.training", {0: report})

        monkeypatch.setattr(torchrun_in_pod, "run", fail)
        return torchrun_in_pod.main(ARGUMENTS), capfd.readouterr().err

    return run


def failure(**other: Any) -> Failure:
    fields = {"rank": 3, "at": 1.0, "problem": "run = 'a' is not there.", "remedy": "Prepare its data.", **other}
    return Failure.model_validate({"expected": True, **fields})


def test_a_failure_that_every_attempt_would_meet_ends_the_job(ends: Any, waits: list[float]) -> None:
    status, said = ends(failure())
    assert status == torchrun_in_pod.FINAL
    assert said.strip().endswith("Rank 3 ended the training: run = 'a' is not there. Prepare its data.")
    assert "torchrun reports" not in said
    assert waits == []


@pytest.mark.parametrize("other", [{"passing": True}, {"expected": False, "remedy": ""}])
def test_another_attempt_may_succeed(ends: Any, waits: list[float], other: dict[str, Any]) -> None:
    status, said = ends(failure(**other))
    assert status == 1
    assert ("torchrun reports" in said) == ("expected" in other)
    assert "Rank 3 ended the training" in said.strip().splitlines()[-1]
    assert waits == []


def test_a_pod_that_only_lost_a_connection_lets_the_cause_end_first(ends: Any, waits: list[float]) -> None:
    status, said = ends(None)
    assert (status, waits) == (1, [torchrun_in_pod.CAUSE_SECONDS])
    assert said.strip().endswith("Look at the logs of the other pods.")


def test_a_killed_rank_is_a_cause(ends: Any, waits: list[float]) -> None:
    status, said = ends(None, code=-signal.SIGKILL)
    assert (status, waits) == (1, [])
    assert "exitcode  : -9" in said  # by which the launcher names it


def test_a_stopped_pod_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def stop(_: Any) -> None:
        raise SignalException("stopped", signal.SIGTERM)

    monkeypatch.setattr(torchrun_in_pod, "run", stop)
    assert torchrun_in_pod.main(ARGUMENTS) == 128 + signal.SIGTERM
    assert "SIGTERM" in capfd.readouterr().err


def test_the_runtime_ends_the_job_on_that_status() -> None:
    (runtime,) = documents((ROOT / "manifests" / "base" / "runtime.yaml").read_text())
    jobset = runtime["spec"]["template"]["spec"]
    (node,) = jobset["replicatedJobs"]
    first, disrupted, stopped = node["template"]["spec"]["podFailurePolicy"]["rules"]
    assert first == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "node", "operator": "In", "values": [torchrun_in_pod.FINAL]},
    }
    # Disruptions come before the exit code that they cause: a drained pod makes all ranks restart.
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # A suspended Job counts the pods that fail while they end. Each preemption would use up a restart.
    assert stopped == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "node", "operator": "In", "values": [128 + signal.SIGTERM]},
    }
    ends, goes_on = jobset["failurePolicy"]["rules"]
    # The words of Kubernetes: pkg/controller/job/pod_failure_policy.go.
    message = "Container node for pod mantis/a failed with exit code 78 matching FailJob rule at index 0"
    assert ends["action"] == "FailJobSet"
    assert any(pattern in message for pattern in ends["onJobFailureMessagePatterns"])
    assert goes_on["action"] == "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.slow
def test_a_real_pod_process(tmp_path: Path) -> None:
    """A run that is not in the store, with torchrun's own agent."""
    log = tmp_path / "termination-log"
    log.touch()
    command = [
        sys.executable,
        "-m",
        "components.training.launch.torchrun_in_pod",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "components.training", "--store", f"file://{tmp_path}", "--run-id", "demo-1"]
    environment = os.environ | {"MANTIS_TERMINATION_LOG": str(log)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, cwd=ROOT, check=False
    )
    assert done.returncode == torchrun_in_pod.FINAL, done.stderr
    assert json.loads(log.read_text())["expected"] is True
    last = done.stderr.strip().splitlines()[-1]
    assert "run = 'demo-1' is not in" in last
    assert "mantis data prepare RECIPE" in last
    assert "Traceback" not in done.stderr
