"""What is made of the API server's answers: from a server on loopback that gives them one after the other."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from components.training.launch import kubernetes_client
from components.training.launch.kubernetes_client import Cluster
from components.training.launch.trainjob_spec import train_job
from mantis.errors import ConfigError, TrainingError
from tests.fixtures.api_server import JsonServer, Kubeconfig
from tests.fixtures.trainjobs import TrainjobRun
from tests.helpers.fake_clock import FakeClock


class Answers:
    """`answers`: status and object; the last one again and again."""

    answers: ClassVar[list[tuple[int, object]]] = []
    asked: ClassVar[list[str]] = []

    @classmethod
    def give(cls, _: str, path: str) -> tuple[int, object]:
        cls.asked.append(path)
        return cls.answers.pop(0) if len(cls.answers) > 1 else cls.answers[0]


@pytest.fixture
def answering(kubeconfig: Kubeconfig, json_server: JsonServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(kubernetes_client, "time", FakeClock())
    kubeconfig(json_server(Answers.give))

    def answer(*answers: tuple[int, object]) -> Cluster:
        Answers.answers, Answers.asked = list(answers), []
        return Cluster("mantis")

    return answer


def says(message: str) -> dict[str, str]:
    return {"kind": "Status", "message": message}


def test_a_run_of_the_same_id_in_another_store_is_another(
    answering: Callable[..., Any], trainjob_run: TrainjobRun
) -> None:
    run = trainjob_run()
    ours, theirs = train_job(run, "0" * 64), train_job(run, "1" * 64)
    theirs["spec"]["trainer"]["command"][-3] = "s3://mantis/there"
    assert answering((200, {"items": [theirs, ours]})).of_run(run) == [ours]
    assert "labelSelector=mantis-kfp%2Frun%3Ddemo-1a2b3c4d" in Answers.asked[0]


def test_a_cluster_without_trainer_is_told_what_to_install(
    answering: Callable[..., Any], trainjob_run: TrainjobRun
) -> None:
    with pytest.raises(ConfigError, match=r"has no TrainJobs.*Install Kubeflow Trainer"):
        answering((404, says("the server could not find the requested resource"))).of_run(trainjob_run())


def test_a_node_that_does_not_answer_keeps_no_reason_back(answering: Callable[..., Any]) -> None:
    assert answering((500, says("dial tcp 10.0.0.9:10250: i/o timeout"))).tail("p", 9) == []


def test_a_missing_right_is_said_after_a_while(answering: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"does not let this account read a TrainJob.*is forbidden"):
        answering((403, says("trainjobs is forbidden"))).read("x")


def test_who_is_short_of_time_is_told_of_a_missing_right_too(
    answering: Callable[..., Any], kubeconfig: Kubeconfig
) -> None:
    answering((403, says("trainjobs is forbidden")))
    with pytest.raises(ConfigError, match="does not let this account"):
        Cluster("mantis", patience=0.05).read("x")


def test_a_server_that_comes_back_may_refuse_for_a_while(answering: Callable[..., Any]) -> None:
    """Its refusals count from the first one, however long it was away before, and longer for a client it knows."""
    away, refused, found = (503, says("away")), (403, says("forbidden")), (200, {"kind": "TrainJob"})
    cluster = answering(*[away] * 8, *[refused] * 2, found)  # away for longer than refusals may last
    assert cluster.read("x") == {"kind": "TrainJob"}
    Answers.answers = [*[refused] * 8, found]
    assert cluster.read("x") == {"kind": "TrainJob"}
    with pytest.raises(ConfigError, match="does not let this account"):
        answering(*[refused] * 8, found).read("x")


def test_creating_is_given_up_where_a_webhook_is_broken(
    answering: Callable[..., Any], trainjob_run: TrainjobRun
) -> None:
    cluster = answering((500, says("failed calling webhook: connection refused")))
    with pytest.raises(TrainingError, match="failed calling webhook"):
        cluster.create(train_job(trainjob_run(), "0" * 64))


def test_the_newest_warning_about_a_job_is_found(answering: Callable[..., Any]) -> None:
    def event(name: str, message: str, at: str) -> dict[str, object]:
        about = {"name": name, "namespace": "mantis", "kind": "Job"}
        return {"metadata": {"name": "e"}, "involvedObject": about, "reason": "FailedCreate", "message": message,
                "lastTimestamp": at}  # fmt: skip

    job = {"metadata": {"name": "train-x", "creationTimestamp": "2026-01-01T00:00:01Z"}}
    earlier = event("train-x-node-0", "of a job that had this name before", "2026-01-01T00:00:00Z")
    listed = [
        event("train-x-node-0", "exceeded quota", "2026-01-01T00:00:03Z"),
        event("train-x", "an older one", "2026-01-01T00:00:02Z"),
        event("train-x-2", "of another", "2026-01-01T00:00:04Z"),
        earlier,
    ]
    assert answering((200, {"items": listed})).warning(job) == "FailedCreate: exceeded quota"
    assert answering((200, {"items": [earlier]})).warning(job) == ""
    assert answering((403, says("events is forbidden"))).warning(job) == ""
    assert len(Answers.asked) == 1, "what is only shown is not waited for"
