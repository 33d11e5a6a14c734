"""What a user reads about a job: from pods as the API server describes them."""

from typing import Any

import pytest

from components.training.launch.kubernetes_client import Cluster, Pod
from components.training.launch.trainjob import _describe, _failures, _queued_now, _waits
from components.training.monitoring.failures import Failure

FAILED = {"status": {"conditions": [{"type": "Failed", "status": "True", "message": "jobset failed"}]}}


def job(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {}, "name": "train-x"}, "spec": spec, "status": {}}


def pod(node: int, *, attempt: int = 0, **values: Any) -> Pod:
    given = {"phase": "Failed", "waiting": "", "created": "2026-01-01T00:00:00"} | values
    return Pod(name=f"train-x-node-0-{node}-abcde", uid=f"{attempt}-{node}", node=node, attempt=attempt, **given)


def left(rank: int, at: float, problem: str, *, expected: bool = False, passing: bool = False) -> str:
    failure = Failure(rank=rank, at=at, problem=problem, remedy="Do.", expected=expected, passing=passing)
    return failure.model_dump_json()


class Logs(Cluster):
    """The cluster, as far as it is asked for words."""

    namespace = "mantis"

    def __init__(self, warning: str = "", **report: str) -> None:
        self._warning, self._report = warning, report

    def tail(self, name: str, lines: int) -> list[str]:
        return [f"the last line of {name}", *self._report.get(name.split("-")[4], "").splitlines()]

    def warning(self, job: dict[str, Any]) -> str:
        return self._warning

    def queue_says(self, job: dict[str, Any]) -> str:
        return self._warning


def test_a_pending_job_says_what_the_scheduler_says_once() -> None:
    reason = "0/17 nodes are available: 1 Insufficient nvidia.com/gpu."
    pods = [pod(node, phase="Pending", waiting=reason) for node in range(17)]
    assert _waits(Logs(), job(), pods, 17) == f"waiting: {reason}"


def test_a_suspended_job_names_its_queue() -> None:
    suspended = job(suspend=True)
    suspended["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a100"
    waits = "waiting: suspended in queue a100 until it is admitted"
    assert _waits(Logs(), suspended, [], 2) == waits
    busy = "insufficient unused quota for nvidia.com/gpu in flavor a100, 8 more needed"
    assert _waits(Logs(busy), suspended, [], 2) == f"{waits}: {busy}"
    assert _waits(Logs(), job(suspend=True), [], 2) == "waiting: suspended until it is admitted"
    assert _waits(Logs(), job(), [], 2) == "starting: 0 of 2 pods exist"


def test_a_job_that_can_never_fit_says_so() -> None:
    """In the words of Kueue 0.17 (pkg/scheduler/flavorassigner)."""
    suspended = job(suspend=True)
    suspended["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a100"
    never = (
        "couldn't assign flavors to pod set node: insufficient quota for nvidia.com/gpu in flavor a100, previously "
        "considered podsets requests (0) + current podset request (136) > maximum capacity (128)"
    )
    said = _waits(Logs(never), suspended, [], 17)
    assert said == f"waiting: suspended in queue a100, and can never fit: {never}"


def test_a_job_that_kueue_cannot_read_says_what_an_event_says() -> None:
    class WithoutWorkload(Logs):
        def queue_says(self, job: dict[str, Any]) -> str:
            return ""

    suspended = job(suspend=True)
    suspended["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a100"
    said = _waits(WithoutWorkload("Failed: no such priority class"), suspended, [], 2)
    assert said == "waiting: suspended in queue a100 until it is admitted: Failed: no such priority class"


def test_a_job_without_pods_says_what_keeps_them_away() -> None:
    forbidden = "FailedCreate: pods are forbidden: exceeded quota: gpus"
    assert _waits(Logs(forbidden), job(), [], 2) == f"starting: 0 of 2 pods exist; {forbidden}"
    assert _waits(Logs("of an earlier attempt"), job(), [pod(0), pod(1)], 2) == "starting: 2 of 2 pods exist"


def test_a_job_that_is_made_a_second_time_queues_from_then_on() -> None:
    made = job(trainer={"env": [{"name": "A", "value": "b"}]})
    for _ in range(2):  # the API server takes no name twice
        assert [entry["name"] for entry in _queued_now(made)["spec"]["trainer"]["env"]] == ["A", "MANTIS_QUEUED_AT"]


def test_our_own_error_is_passed_on_as_it_is() -> None:
    pods = [
        pod(0, exit_code=1, ended="2026-01-01T00:00:05", message=left(0, 5.0, "Connection closed by peer")),
        pod(1, exit_code=1, ended="2026-01-01T00:00:09", message=left(1, 4.0, "The loss is nan.", expected=True)),
    ]
    assert str(_describe(Logs(), "train-x", FAILED, pods)) == "The loss is nan. Do."


def test_the_pod_that_failed_first_is_named_with_its_last_lines() -> None:
    pods = [
        pod(0, exit_code=1, ended="2026-01-01T00:00:05"),
        pod(1, exit_code=1, ended="2026-01-01T00:00:04"),
        pod(0, attempt=0, exit_code=0, ended="2026-01-01T00:00:01"),
    ]
    said = str(_describe(Logs(), "train-x", FAILED, pods))
    assert said.startswith("Pod train-x-node-0-1-abcde (node 1) failed first with exit code 1.")
    assert "the last line of train-x-node-0-1-abcde" in said


@pytest.mark.parametrize(("reason", "told"), [("OOMKilled", "out of memory"), ("Error", "exit code 137 Error")])
def test_a_pod_without_memory(reason: str, told: str) -> None:
    pods = [pod(1, exit_code=137, ended="2026-01-01T00:00:04", reason=reason)]
    assert told in str(_describe(Logs(), "train-x", FAILED, pods))


KILLED = """Failures:
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -{} (pid: 9)"""


def test_a_killed_rank_is_named_with_its_pod_though_another_complained() -> None:
    """What torchrun's report tells is told, and whoever was left alone is not blamed."""
    pods = [
        pod(0, exit_code=1, ended="2026-01-01T00:00:04", message=left(0, 4.0, "NCCL error: something new")),
        pod(1, exit_code=1, ended="2026-01-01T00:00:05"),
    ]
    said = str(_describe(Logs(**{"1": KILLED.format(9)}), "train-x", FAILED, pods))
    assert said.startswith("Pod train-x-node-0-1-abcde (node 1): Rank 1 was killed by SIGKILL.")
    aborted = str(_describe(Logs(**{"1": KILLED.format(6)}), "train-x", FAILED, pods))
    assert aborted.startswith("Pod train-x-node-0-0-abcde (node 0) failed first: NCCL error")


def test_a_pod_without_memory_is_named_though_another_complained() -> None:
    pods = [
        pod(0, exit_code=1, ended="2026-01-01T00:00:04", message=left(0, 4.0, "NCCL error: something new")),
        pod(1, exit_code=137, ended="2026-01-01T00:00:04", reason="OOMKilled"),
    ]
    assert "node-0-1-abcde (node 1) was killed: out of memory" in str(_describe(Logs(), "train-x", FAILED, pods))


def test_without_any_pod_the_condition_speaks() -> None:
    assert "jobset failed" in str(_describe(Logs(), "train-x", FAILED, []))


def test_only_the_newest_attempt_counts() -> None:
    pods = [
        pod(0, attempt=0, message=left(0, 1.0, "old", expected=True)),
        pod(0, attempt=1, message=left(0, 2.0, "new", expected=True)),
        pod(1, attempt=1, message="{no json: the end of a log"),
    ]
    assert [failure.problem for _, failure in _failures(pods)] == ["new"]
