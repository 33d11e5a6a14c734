"""The ranks as a TrainJob of Kubeflow Trainer: started once, followed for as long as it takes, nothing left over."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from components.training.checkpointing.training_summary import is_whole
from components.training.launch.kubernetes_client import Cluster, ClusterError, Pod
from components.training.launch.log_follower import FollowedLog, show
from components.training.launch.trainjob_spec import ASKED_ANNOTATION, applied_name, train_job
from components.training.monitoring.failures import KILLED_REMEDY, Failure, killed_rank, last_lines
from components.training.monitoring.goodput import QUEUED_AT
from mantis import progress
from mantis.errors import TrainingError
from mantis.processes import sigterm_raises
from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
GONE_SECONDS = 900.0  # that pods may take to save and end once their job is deleted
LOOKS = 4  # half a second apart: while it is deleted, a Job may put a pod for one that ended, and take it back
LOG_SECONDS = 300.0  # a job that still waits is logged again
LINES_READ = 200


@dataclass
class _Seen:
    """What a person was told last."""

    text: str = ""
    at: float = 0.0
    attempt: int = 0


class TrainJobLauncher:
    """A TrainJob with a name of its own for each training; whoever comes second follows the first one's.

    So is one followed that a person has applied for the same run.
    """

    def launch(self, run: Run, prefix: str) -> None:
        if is_whole(run.store, prefix):  # by a job that a person applied
            logger.info("The checkpoint is complete: no TrainJob is needed")
            return
        job = train_job(run, prefix.rsplit("/", 1)[-1])
        cluster = Cluster(run.recipe.cluster.namespace)
        with sigterm_raises():
            name, uid = _ensure(cluster, job, run, prefix)
            try:
                _follow(cluster, name, uid, run, prefix)
            except (KeyboardInterrupt, SystemExit):
                with suppress(OSError):  # Ctrl-C ends whoever reads this, too
                    logger.warning("The step was cancelled: TrainJob %s saves a checkpoint and is deleted", name)
                _tidy_up(cluster, name, uid)
                raise
            except ClusterError:  # the next attempt follows the job further
                raise
            except TrainingError:
                _tidy_up(cluster, name, uid)
                raise
            _tidy_up(cluster, name, uid)


def _tidy_up(cluster: Cluster, name: str, uid: str) -> None:
    """Remove a job whose end is known; that a pod of it stays, on a node that is gone, changes nothing about that."""
    try:
        remove(cluster, name, uid)
    except TrainingError as error:
        logger.warning("%s", error)


def _ensure(cluster: Cluster, job: dict[str, Any], run: Run, prefix: str) -> tuple[str, str]:
    """Name and uid of the TrainJob that trains, or has trained: the one that is there, or a new one."""
    name = job["metadata"]["name"]
    address = f"{cluster.namespace}/{name}"
    while True:
        applied = _applied(cluster, run)
        if applied:
            logger.info("TrainJob %s/%s was applied for this run and is followed", cluster.namespace, applied[0])
            return applied
        found = cluster.read(name)
        if found is None:
            _wait_until_gone(cluster, name, uid="")  # pods of one that was deleted may still be saving
            made = cluster.create(_queued_now(job))
            if made is None:
                continue  # somebody else was faster
            logger.info("TrainJob %s was created: %s", address, _command(job))
            return name, made
        uid = str(found["metadata"]["uid"])
        why = _unfit(found, job, run, prefix)
        if why is None:
            logger.info("TrainJob %s is there already and is followed", address)
            return name, uid
        logger.warning("TrainJob %s %s: it is deleted first", address, why)
        remove(cluster, name, uid)


def _applied(cluster: Cluster, run: Run) -> tuple[str, str] | None:
    """Name and uid of the TrainJob that a person has applied for the run, while it is under way."""
    for job in cluster.of_run(run):
        metadata = job["metadata"]
        under_way = not metadata.get("deletionTimestamp") and _ended(job) is None
        if metadata["name"] == applied_name(run.id) and under_way:
            return str(metadata["name"]), str(metadata["uid"])
    return None


def _unfit(found: dict[str, Any], job: dict[str, Any], run: Run, prefix: str) -> str | None:
    """Why a TrainJob of this name is not the one to follow; None where it is."""
    if found["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    ended = _ended(found)
    if ended == "Failed":
        return "failed before"
    if ended == "Complete" and not is_whole(run.store, prefix):
        return "is complete, and its checkpoint is no longer in the store"
    if ended is None and found["metadata"].get("annotations", {}).get(ASKED_ANNOTATION) != _asked(job):
        return "was started with another image, other nodes or resources, or in another queue"
    return None


def _queued_now(job: dict[str, Any]) -> dict[str, Any]:
    """The job, which stays as it is, with the time at which it is handed over: from then on it queues."""
    trainer = job["spec"]["trainer"]
    env = [*trainer["env"], {"name": QUEUED_AT, "value": f"{time.time():.0f}"}]
    return {**job, "spec": {**job["spec"], "trainer": {**trainer, "env": env}}}


def _follow(cluster: Cluster, name: str, uid: str, run: Run, prefix: str) -> None:
    """Wait for the end, however long; relay the first rank's log, say what it waits for.

    A cancellation deletes the job before anything else: a platform kills a launcher half a minute after it has asked,
    and what the pods say while they save can still be read.

    Raises:
        TrainingError: the job failed, or somebody deleted it.
    """
    seen, log = _Seen(), None
    try:
        while True:
            job = cluster.read(name)
            if job is None:
                if is_whole(run.store, prefix):
                    return  # whoever followed it beside us has tidied up
                raise TrainingError(
                    f"TrainJob {cluster.namespace}/{name} was deleted while it ran.",
                    remedy="The same command starts it again, from the last committed checkpoint.",
                )
            pods = cluster.pods(name)
            log = _first_rank(cluster, pods, log)
            _tell(cluster, job, pods, run.recipe.training.nodes, seen)
            ended = _ended(job)
            if ended == "Complete":
                return
            certain = [failure for _, failure in _failures(pods) if failure.expected and not failure.passing]
            if certain:  # the next attempts would end in the same way
                raise TrainingError(certain[0].problem, remedy=certain[0].remedy)
            if ended == "Failed":
                raise _describe(cluster, name, job, pods)
            time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        cluster.delete(name, uid)
        raise
    finally:
        if log:
            log.finish()


def _first_rank(cluster: Cluster, pods: list[Pod], log: FollowedLog | None) -> FollowedLog | None:
    """The log of the newest pod of node 0, from the moment that it runs."""
    begun = [pod for pod in pods if pod.node == 0 and (pod.phase != "Pending")]
    if not begun or (log and log.pod.uid == begun[-1].uid):
        return log
    if log:
        log.finish()
    return FollowedLog(cluster, begun[-1], show)


def _tell(cluster: Cluster, job: dict[str, Any], pods: list[Pod], nodes: int, seen: _Seen) -> None:
    """Say what the job waits for, when that has changed or was not said for a while."""
    attempt = max((pod.attempt for pod in pods), default=0)
    begun = [pod for pod in pods if pod.attempt == attempt and pod.phase != "Pending"]
    if attempt > seen.attempt:
        seen.attempt = attempt
        logger.warning("A rank was lost: attempt %d of all ranks, from the last committed checkpoint", attempt + 1)
    waits = _waits(cluster, job, pods, nodes) if len(begun) < nodes and _ended(job) is None else ""
    now = time.monotonic()
    if waits and (waits != seen.text or now - seen.at > LOG_SECONDS):
        logger.info("TrainJob %s: %s", job["metadata"]["name"], waits)
        progress.publish(
            state="running", label=waits.split(":")[0], done=len(begun), total=nodes, unit="pods", note=waits
        )
        seen.at = now
    seen.text = waits


def _waits(cluster: Cluster, job: dict[str, Any], pods: list[Pod], nodes: int) -> str:
    """What keeps a job from running, in the words of Kubernetes."""
    if job["spec"].get("suspend"):
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        return f"waiting: suspended{f' in queue {queue}' if queue else ''} until it is admitted"
    reasons = sorted({pod.waiting for pod in pods if pod.waiting})
    if reasons:
        return f"waiting: {'; '.join(reasons)}"
    warning = cluster.warning(job) if len(pods) < nodes else ""  # a quota, an admission webhook
    return f"starting: {len(pods)} of {nodes} pods are there{f'; {warning}' if warning else ''}"


def _ended(job: dict[str, Any]) -> str | None:
    """`Complete` or `Failed`; None while it goes on. A TrainJob has no condition for running."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def _failures(pods: list[Pod]) -> list[tuple[Pod, Failure]]:
    """What the ranks of the newest attempt left in their termination logs, the earliest first."""
    newest = max((pod.attempt for pod in pods), default=0)
    found = []
    for pod in pods:
        if pod.attempt != newest or not pod.message.startswith("{"):
            continue
        try:
            found.append((pod, Failure.model_validate_json(pod.message)))
        except ValidationError:  # the end of a log, which happens to begin so
            continue
    return sorted(found, key=lambda item: item[1].at)


def _describe(cluster: Cluster, name: str, job: dict[str, Any], pods: list[Pod]) -> TrainingError:
    """One error for a job that failed: the surest evidence first, since whoever is left alone complains, too."""
    left = [(pod, failure) for pod, failure in _failures(pods) if not failure.follows]
    ours = [failure for _, failure in left if failure.expected]
    if ours:
        return TrainingError(ours[0].problem, remedy=ours[0].remedy)
    newest = max((pod.attempt for pod in pods if pod.exit_code), default=0)
    ended = sorted((pod for pod in pods if pod.exit_code and pod.attempt == newest), key=lambda pod: pod.ended)
    for pod in ended:
        if pod.reason == "OOMKilled":
            return TrainingError(
                f"Pod {pod.name} (node {pod.node}) was killed: out of memory.",
                remedy="Lower training.token_budget, or raise cluster.resources; the same command goes on from the "
                "last committed checkpoint.",
            )
    for pod in ended:
        killed = killed_rank(cluster.tail(pod.name, LINES_READ))
        if killed:
            return TrainingError(f"Pod {pod.name} (node {pod.node}): {killed}", remedy=KILLED_REMEDY)
    if not ended and not left:
        return _without_pods(cluster, name, job)
    first = left[0][0] if left else ended[0]
    lines = last_lines(cluster.tail(first.name, LINES_READ))
    why = f": {left[0][1].problem}" if left else f" with exit code {first.exit_code} {first.reason}".rstrip()
    return TrainingError(
        f"Pod {first.name} (node {first.node}) failed first{why}. Its last lines:\n{lines}",
        remedy="The same command goes on from the last committed checkpoint.",
    )


def _without_pods(cluster: Cluster, name: str, job: dict[str, Any]) -> TrainingError:
    """For a job that failed and left no pod to ask."""
    said = [condition.get("message", "") for condition in job["status"]["conditions"] if condition["type"] == "Failed"]
    return TrainingError(
        f"TrainJob {cluster.namespace}/{name} failed: {said[0] if said else 'no reason was given'}.",
        remedy=f"See kubectl -n {cluster.namespace} describe jobset {name}; the same command goes on.",
    )


def remove(cluster: Cluster, name: str, uid: str) -> None:
    """Delete the TrainJob `uid`, and wait until its pods are gone: two jobs must not write one address.

    Raises:
        TrainingError: they did not end in time.
    """
    cluster.delete(name, uid)
    _wait_until_gone(cluster, name, uid)


def _wait_until_gone(cluster: Cluster, name: str, uid: str) -> None:
    until = time.monotonic() + GONE_SECONDS
    looks = 0  # in a row that found nothing
    while True:
        found = cluster.read(name)
        if found is not None and found["metadata"]["uid"] != uid:
            return  # somebody has started it anew, and has waited for the pods
        looks = looks + 1 if found is None and not cluster.pods(name) else 0
        if looks == LOOKS:
            return
        if time.monotonic() > until:
            raise TrainingError(
                f"TrainJob {cluster.namespace}/{name} is deleted, and pods of it still run.",
                remedy=f"See kubectl -n {cluster.namespace} get pods; a node that is gone keeps them in its list.",
            )
        time.sleep(POLL_SECONDS / 4)


def _asked(job: dict[str, Any]) -> str:
    return str(job["metadata"]["annotations"][ASKED_ANNOTATION])


def _command(job: dict[str, Any]) -> str:
    trainer = job["spec"]["trainer"]
    return f"{trainer['numNodes']} x {trainer['numProcPerNode']} ranks of {trainer['image']}"
