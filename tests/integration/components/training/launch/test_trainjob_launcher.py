"""A TrainJob from its creation to its deletion, against an API server that remembers jobs and pods."""

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.training.checkpointing.training_summary import write_summary
from components.training.launch import kubernetes_client, log_follower, trainjob
from components.training.launch.kubernetes_client import Cluster, ClusterError
from components.training.launch.log_follower import FollowedLog
from components.training.launch.trainjob import TrainJobLauncher, remove
from components.training.launch.trainjob_spec import applied_job, applied_name, train_job
from components.training.monitoring.failures import Failure
from mantis.errors import ConfigError, TrainingError
from mantis.runs.records import State, StepRecord, read_record, write_record
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.api_server import ApiServer
from tests.fixtures.trainjobs import TrainjobRun

MADE = "0123456789abcdef" * 4
PREFIX = f"checkpoints/{MADE}"


class Bucket(LocalStore):
    """A folder with the address of a bucket: pods would reach it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.url = "s3://mantis/here"


@pytest.fixture
def run(trainjob_run: TrainjobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose training is not done yet. Its launcher looks often."""
    monkeypatch.setattr(trainjob, "POLL_SECONDS", 0.004)
    monkeypatch.setattr(log_follower, "AGAIN_SECONDS", 0.004)
    monkeypatch.setattr(kubernetes_client, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(kubernetes_client, "LONGEST_PAUSE_SECONDS", 0.001)
    return replace(trainjob_run(), store=Bucket(tmp_path / "store"))


@pytest.fixture
def own(run: Run) -> dict[str, Any]:
    """The TrainJob that the launcher asks for."""
    return train_job(run, MADE)


@pytest.fixture
def name(own: dict[str, Any]) -> str:
    """Its name."""
    return str(own["metadata"]["name"])


@pytest.fixture
def launch(run: Run) -> Callable[[], None]:
    """Train in a TrainJob, and return at its end."""
    return lambda: TrainJobLauncher().launch(run, PREFIX)


def nothing() -> None:
    """A read of the job that changes nothing."""


def completes(server: ApiServer, run: Run, name: str) -> Callable[[], None]:
    """The ranks store the summary last, then the job ends."""

    def complete() -> None:
        write_summary(run.store, PREFIX, {})
        server.set_condition(name, "Complete")

    return complete


def left(problem: str, *, passing: bool) -> str:
    failure = Failure(rank=0, at=1.0, problem=problem, remedy="Do.", expected=True, passing=passing)
    return failure.model_dump_json()


def test_a_job_is_created_followed_to_its_end_and_deleted(
    api_server: ApiServer, run: Run, name: str, launch: Callable[[], None]
) -> None:
    api_server.saving = 3
    api_server.reads = [nothing, *[nothing] * trainjob.LOOKS, lambda: api_server.add_pod(name), nothing]
    api_server.reads.append(completes(api_server, run, name))
    launch()
    assert api_server.created == api_server.deleted == [name]
    assert api_server.jobs == api_server.pods == {}, "the launcher waited for the pods"
    launch()
    assert api_server.created == [name], "a whole checkpoint needs no job"


NEVER = (
    "couldn't assign flavors to pod set node: insufficient quota for nvidia.com/gpu in flavor a100, request > maximum"
)


@pytest.mark.parametrize("kueue", [True, False])
def test_the_record_says_what_a_queued_job_waits_for_until_it_runs(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None], kueue: bool
) -> None:
    write_record(run.store, run.id, StepRecord(step="train", state=State.STARTED, started="2026-01-01T00:00:00"))
    own["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a100"
    own["spec"]["suspend"] = True
    uid = api_server.add(own)
    condition = {"type": "QuotaReserved", "status": "False", "message": NEVER}
    api_server.kueue = kueue
    api_server.workloads = {f"kueue.x-k8s.io/job-uid={uid}": [{"status": {"conditions": [condition]}}]}
    noted: list[str] = []

    def note() -> None:
        record = read_record(run.store, run.id, "train")
        assert record is not None
        assert record.state is State.STARTED
        noted.append(record.reason)

    def admit() -> None:
        note()
        api_server.jobs[name]["spec"]["suspend"] = False
        for _ in range(run.recipe.training.nodes):
            api_server.add_pod(name)

    def complete() -> None:
        note()
        completes(api_server, run, name)()

    api_server.reads = [nothing, nothing, admit, nothing, complete]
    launch()
    waits = "waiting: suspended in queue a100 until it is admitted"
    assert noted == [f"{waits}: {NEVER}" if kueue else waits, ""]


def test_a_job_for_the_same_checkpoint_is_adopted(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    api_server.add(own)
    api_server.reads = [nothing, nothing, completes(api_server, run, name)]
    launch()
    assert (api_server.created, api_server.deleted) == ([], [name])


def test_a_job_that_another_launcher_creates_first_is_followed(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    api_server.before_creation = lambda: api_server.add(own)
    api_server.reads = [*[nothing] * (2 + trainjob.LOOKS), completes(api_server, run, name)]
    launch()
    assert (api_server.created, api_server.deleted) == ([], [name])


def test_a_job_of_another_run_with_the_same_training_is_followed(
    api_server: ApiServer, run: Run, launch: Callable[[], None]
) -> None:
    other = train_job(replace(run, id="other-9f8e7d6c"), MADE)
    api_server.add(other)
    api_server.reads = [nothing, completes(api_server, run, other["metadata"]["name"])]
    launch()
    assert (api_server.created, api_server.deleted) == ([], [other["metadata"]["name"]])


def test_of_two_launchers_at_the_same_time_one_deletes_its_job_and_follows_the_other(
    api_server: ApiServer, run: Run, name: str, launch: Callable[[], None]
) -> None:
    other = train_job(replace(run, id="other-9f8e7d6c"), MADE)
    rival = other["metadata"]["name"]
    api_server.before_creation = lambda: api_server.add(other)
    ended = completes(api_server, run, rival)
    api_server.reads = [lambda: ended() if name in api_server.deleted else None] * 200
    launch()
    assert api_server.created == [name]
    assert api_server.deleted == [name, rival]
    assert api_server.doubled == []


def test_no_job_is_created_while_pods_of_another_run_with_the_same_training_save(
    api_server: ApiServer, run: Run, name: str, launch: Callable[[], None]
) -> None:
    rival = train_job(replace(run, id="other-9f8e7d6c"), MADE)["metadata"]["name"]
    api_server.add_pod(rival)  # its job was deleted in the background
    api_server.saving = 6
    left: list[bool] = []

    def look() -> None:
        left.append(bool(api_server.pods.get(rival)))

    api_server.before_creation = look
    api_server.reads = [nothing, completes(api_server, run, name)]
    launch()
    assert left == [False]
    assert api_server.created == [name]


def test_a_job_that_a_user_applied_for_the_run_is_followed(
    api_server: ApiServer, run: Run, launch: Callable[[], None]
) -> None:
    applied = applied_name(run.id)
    api_server.add(applied_job(run))
    api_server.reads = [nothing, completes(api_server, run, applied), *[nothing] * 20]
    api_server.reads.append(lambda: api_server.created and api_server.set_condition(api_server.created[0], "Complete"))
    launch()
    assert (api_server.created, api_server.deleted) == ([], [applied])


def test_a_job_that_a_user_applied_and_that_has_ended_is_not_followed(
    api_server: ApiServer, run: Run, name: str, launch: Callable[[], None]
) -> None:
    api_server.add(applied_job(run))
    api_server.set_condition(applied_name(run.id), "Failed")
    api_server.reads = [*[nothing] * (1 + trainjob.LOOKS), completes(api_server, run, name)]
    launch()
    assert (api_server.created, api_server.deleted) == ([name], [name])


@pytest.mark.parametrize("state", ["other image", "failed", "complete without checkpoint", "being deleted"])
def test_a_job_that_cannot_be_followed_is_deleted_first(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None], state: str
) -> None:
    if state == "other image":
        other = replace(run, recipe=run.recipe.model_copy(update={"cluster": _other_image(run)}))
        api_server.add(train_job(other, MADE))
    else:
        api_server.add(own)
    api_server.add_pod(name)
    api_server.saving = 3
    if state == "failed":
        api_server.set_condition(name, "Failed")
    if state == "complete without checkpoint":
        api_server.set_condition(name, "Complete")
    if state == "being deleted":
        api_server.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ended = completes(api_server, run, name)

    def complete_if_new() -> None:
        if name in api_server.created:
            ended()

    api_server.reads = [*[complete_if_new] * 60, ended]  # one that is followed by mistake ends, too
    launch()
    assert api_server.created == [name]
    assert api_server.doubled == []
    assert api_server.deleted == ([name] if state == "being deleted" else [name, name])


def _other_image(run: Run) -> Any:
    return run.recipe.cluster.model_copy(update={"image": "else:2"})


def test_no_job_is_created_while_pods_of_a_deleted_one_run(
    api_server: ApiServer, run: Run, name: str, launch: Callable[[], None]
) -> None:
    api_server.add_pod(name)  # its job was deleted in the background
    api_server.saving = 6
    ended = completes(api_server, run, name)
    api_server.reads = [lambda: ended() if name in api_server.created else None] * 100
    launch()
    assert (api_server.created, api_server.doubled) == ([name], [])


def test_a_pod_that_stays_away_from_its_node_is_reported_and_changes_no_result(
    api_server: ApiServer,
    run: Run,
    own: dict[str, Any],
    name: str,
    launch: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trainjob, "GONE_SECONDS", 0.05)
    api_server.add(own)
    api_server.add_pod(name)
    api_server.saving = 10**6
    api_server.reads = [completes(api_server, run, name)]
    launch()
    assert "is deleted, but some of its pods still run" in caplog.text
    assert api_server.deleted == [name]
    with pytest.raises(TrainingError, match="some of its pods still run"):
        remove(Cluster("mantis"), name, api_server.jobs[name]["metadata"]["uid"])


def test_a_passing_failure_does_not_end_the_job(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    """The store was away, or the ranks stalled: Kubernetes starts the next attempt of all ranks."""
    api_server.add(own)
    api_server.reads = [
        lambda: api_server.add_pod(name, phase="Failed", left=left("The store is away.", passing=True)),
        nothing,
        lambda: api_server.add_pod(name, attempt=1),
        completes(api_server, run, name),
    ]
    launch()
    assert api_server.deleted == [name]
    assert run.store.stat(f"{PREFIX}/training.json") is not None


def test_a_failure_that_every_attempt_repeats_ends_the_job(
    api_server: ApiServer, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    api_server.add(own)
    api_server.add_pod(name, phase="Failed", left=left("The loss is nan.", passing=False))
    with pytest.raises(TrainingError, match=r"The loss is nan\.") as raised:
        launch()
    assert raised.value.remedy == "Do."
    assert api_server.deleted == [name]


def test_a_failed_job_is_described_and_deleted(
    api_server: ApiServer, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    api_server.add(own)
    api_server.reads = [nothing, lambda: api_server.set_condition(name, "Failed", "no machine was left")]
    with pytest.raises(TrainingError, match=f"TrainJob mantis/{name} failed: no machine was left"):
        launch()
    assert api_server.deleted == [name]


def cancels(server: ApiServer, sent: signal.Signals) -> Callable[[], None]:
    """Send the signal to the launcher until it deletes its job."""

    def cancel() -> None:
        if not server.deleted:  # Python drops an exception that a signal raises inside of a destructor
            os.kill(os.getpid(), sent)

    return cancel


@pytest.mark.parametrize(("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_cancelled_launcher_leaves_no_job_on_its_gpus(
    api_server: ApiServer,
    own: dict[str, Any],
    name: str,
    launch: Callable[[], None],
    sent: signal.Signals,
    raised: type[BaseException],
) -> None:
    api_server.add(own)
    api_server.add_pod(name)
    api_server.saving = 3
    api_server.reads = [nothing, nothing, *[cancels(api_server, sent)] * 100]
    with pytest.raises(raised):
        launch()
    assert api_server.deleted == [name]
    assert api_server.pods == {}, "the launcher waited until the ranks had saved"


def test_a_cancelled_job_is_deleted_before_the_rest_of_its_log_is_read(
    api_server: ApiServer, own: dict[str, Any], name: str, launch: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a log may take 20 s, and a platform kills a launcher 30 s after its signal."""
    deleted: list[list[str]] = []  # at each end of a log
    finish = FollowedLog.finish

    def noted(log: FollowedLog) -> None:
        deleted.append(list(api_server.deleted))
        finish(log)

    monkeypatch.setattr(FollowedLog, "finish", noted)
    api_server.add(own)
    api_server.add_pod(name)
    api_server.reads = [nothing, nothing, *[cancels(api_server, signal.SIGTERM)] * 100]
    with pytest.raises(SystemExit):
        launch()
    assert deleted == [[name]]


@pytest.mark.parametrize("where", ["job", "pods"])
@pytest.mark.parametrize("status", [400, 410, 422])
def test_an_odd_answer_leaves_the_job_running(
    api_server: ApiServer, own: dict[str, Any], name: str, launch: Callable[[], None], status: int, where: str
) -> None:
    refusal = {("GET", name if where == "job" else "pods"): (status, "something that nobody expected")}
    api_server.add(own)
    api_server.add_pod(name)
    api_server.reads = [nothing, nothing, lambda: api_server.always.update(refusal)]
    with pytest.raises(ClusterError, match="something that nobody expected"):
        launch()
    assert api_server.deleted == []
    assert list(api_server.jobs) == [name]


def test_an_outage_of_the_api_server_is_waited_for(
    api_server: ApiServer,
    run: Run,
    own: dict[str, Any],
    name: str,
    launch: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    api_server.add(own)
    outage = [(0, ""), (503, "away"), (500, "etcd has no leader"), (429, "slowly"), (403, "loading roles")]
    api_server.reads = [nothing, lambda: api_server.faults.extend(outage), completes(api_server, run, name)]
    launch()
    assert caplog.text.count("The API server does not answer") == 1
    assert "The API server answers again" in caplog.text
    assert api_server.faults == []
    assert api_server.deleted == [name]


def test_a_job_that_is_deleted_from_outside_fails_unless_its_checkpoint_is_whole(
    api_server: ApiServer, run: Run, own: dict[str, Any], name: str, launch: Callable[[], None]
) -> None:
    api_server.add(own)
    api_server.reads = [nothing, lambda: api_server.jobs.clear()]
    with pytest.raises(TrainingError, match="was deleted while it ran") as raised:
        launch()
    assert "the last committed checkpoint" in raised.value.remedy

    def taken_over() -> None:  # another launcher saw the end first
        write_summary(run.store, PREFIX, {})
        api_server.jobs.clear()

    api_server.add(own)
    api_server.reads = [nothing, taken_over]
    launch()
    assert api_server.created == api_server.deleted == []


def test_a_job_that_the_cluster_refuses_is_explained(api_server: ApiServer, launch: Callable[[], None]) -> None:
    api_server.always = {("POST", "trainjobs"): (422, "spec.runtimeRef: Invalid value")}
    with pytest.raises(ConfigError, match=r"refuses the TrainJob train-[\w-]+: spec\.runtimeRef: Invalid value"):
        launch()
    assert api_server.created == api_server.deleted == []


def test_only_the_job_that_is_meant_is_deleted(api_server: ApiServer, own: dict[str, Any], name: str) -> None:
    """Another launcher may have created a job of this name meanwhile."""
    uid = api_server.add(own)
    cluster = Cluster("mantis")
    cluster.delete(name, "uid-of-the-one-before")
    assert list(api_server.jobs) == [name]
    cluster.delete(name, uid)
    assert api_server.deleted == [name]
    cluster.delete(name, uid)  # it is gone
