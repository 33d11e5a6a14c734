"""Run the ranks as a TrainJob of Kubeflow Trainer: create it once, follow it to its end, and delete it."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from components.training.checkpointing.training_summary import is_whole
from components.training.launch.kubernetes_client import Cluster, ClusterError, Pod
from components.training.launch.log_follower import FollowedLog, show
from components.training.launch.terminated_run import sigterm_when_terminated
from components.training.launch.trainjob_spec import ASKED_ANNOTATION, TRAINING_LABEL, applied_name, train_job
from components.training.monitoring.failures import KILLED_REMEDY, Failure, killed_rank, last_lines, parse_failure
from components.training.monitoring.goodput import QUEUED_AT
from mantis import progress
from mantis.config.cluster_settings import QUEUE_LABEL
from mantis.errors import StoreError, TrainingError
from mantis.hashing import fingerprint
from mantis.processes import sigterm_raises
from mantis.runs.records import note_waiting, read_record
from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
GONE_SECONDS = 900.0  # for pods to save and end after their job was deleted
LOOKS = 4  # consecutive checks, half a second apart: a Job under deletion may briefly replace an ended pod
LOG_SECONDS = 300.0  # after this time, a job that still waits is logged again
LINES_READ = 200
NEVER_FITS = "> maximum capacity"  # Kueue says this of a request above the whole quota, and of nothing else


@dataclass
class _Seen:
    """The latest message about the job, its time, and the attempt of its ranks."""

    text: str = ""
    at: float = 0.0
    attempt: int = 0


class TrainJobLauncher:
    """Runs each training as a TrainJob with its own name.

    If a TrainJob for this training already exists, this launcher follows it instead of creating one. Another launcher
    may have created it, or a user may have applied it for the same run.
    """

    def launch(self, run: Run, prefix: str) -> None:
        if is_whole(run.store, prefix):  # written by a manually applied job
            logger.info("The checkpoint is complete: no TrainJob is needed")
            return
        mixture = read_record(run.store, run.id, "assemble")
        samples = int(mixture.summary.get("samples", 0)) if mixture else 0
        job = train_job(run, prefix.rsplit("/", 1)[-1], samples=samples)
        cluster = Cluster(run.recipe.cluster.namespace)
        with sigterm_raises(), sigterm_when_terminated():
            name, uid = _ensure(cluster, job, run, prefix)
            try:
                _follow(cluster, name, uid, run, prefix)
            except (KeyboardInterrupt, SystemExit):
                with suppress(OSError):  # Ctrl-C also ends the process that reads this output
                    logger.warning("The step was cancelled: TrainJob %s saves a checkpoint and is deleted", name)
                _tidy_up(cluster, name, uid)
                raise
            except ClusterError:  # the next attempt continues to follow the job
                raise
            except TrainingError:
                _tidy_up(cluster, name, uid)
                raise
            _tidy_up(cluster, name, uid)


def _tidy_up(cluster: Cluster, name: str, uid: str) -> None:
    """Delete a job that has ended. A pod that stays on a lost node does not change the result."""
    try:
        remove(cluster, name, uid)
    except TrainingError as error:
        logger.warning("%s", error)


def _ensure(cluster: Cluster, job: dict[str, Any], run: Run, prefix: str) -> tuple[str, str]:
    """Return name and uid of the TrainJob for this training: an existing one, of any run, or a new one."""
    training = job["metadata"]["labels"][TRAINING_LABEL]
    while True:
        applied = _applied(cluster, run)
        if applied:
            logger.info("TrainJob %s/%s was applied for this run and is followed", cluster.namespace, applied[0])
            return applied
        found = cluster.of_training(training)
        if not found:
            made = _create(cluster, job, training)
            if made is None:
                continue
            return job["metadata"]["name"], made
        name, uid = str(found[0]["metadata"]["name"]), _uid(found[0])
        why = _unfit(found[0], job, run, prefix)
        if why is None:
            logger.info("TrainJob %s/%s is there already and is followed", cluster.namespace, name)
            return name, uid
        logger.warning("TrainJob %s/%s %s: it is deleted first", cluster.namespace, name, why)
        remove(cluster, name, uid)


def _create(cluster: Cluster, job: dict[str, Any], training: str) -> str | None:
    """Create the TrainJob, after all pods of its training are gone; return its uid.

    None if another launcher has created one at the same time, for this run or for another run with the same training.
    The API server allows one job of a name, but the jobs of two runs differ in their names. So each launcher looks
    after its creation. If it finds another job, it deletes its own. If two do so, they try again at different times.
    """
    name = str(job["metadata"]["name"])
    # Pods of a deleted job may still be saving.
    _wait_until(lambda: bool(cluster.of_training(training)) or not cluster.pods_of_training(training), cluster, name)
    made = cluster.create(_queued_now(job))
    if made is None:
        return None
    rivals = [str(each["metadata"]["name"]) for each in cluster.of_training(training) if _uid(each) != made]
    if not rivals:
        logger.info("TrainJob %s/%s was created: %s", cluster.namespace, name, _command(job))
        return made
    logger.info("TrainJob %s/%s trains the same: %s is deleted", cluster.namespace, rivals[0], name)
    remove(cluster, name, made)
    time.sleep(POLL_SECONDS * int(fingerprint(name)[:2], 16) / 64)
    return None


def _uid(job: dict[str, Any]) -> str:
    return str(job["metadata"]["uid"])


def _applied(cluster: Cluster, run: Run) -> tuple[str, str] | None:
    """Return name and uid of a running TrainJob that a user has applied for the run; None if there is none."""
    for job in cluster.of_run(run):
        metadata = job["metadata"]
        under_way = not metadata.get("deletionTimestamp") and _ended(job) is None
        if metadata["name"] == applied_name(run.id) and under_way:
            return str(metadata["name"]), str(metadata["uid"])
    return None


def _unfit(found: dict[str, Any], job: dict[str, Any], run: Run, prefix: str) -> str | None:
    """Return the reason why an existing TrainJob of this name cannot be followed; None if it can."""
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
    """Return a copy of the job with the current time, from which its time in the queue counts."""
    trainer = job["spec"]["trainer"]
    env = [*trainer["env"], {"name": QUEUED_AT, "value": f"{time.time():.0f}"}]
    return {**job, "spec": {**job["spec"], "trainer": {**trainer, "env": env}}}


def _follow(cluster: Cluster, name: str, uid: str, run: Run, prefix: str) -> None:
    """Wait for the end of the job without a time limit, relay the log of rank 0, and report what the job waits for.

    A cancellation deletes the job before anything else, because a platform kills a launcher 30 s after its signal. The
    output of the pods while they save can still be read.

    Raises:
        TrainingError: the job failed, or was deleted from outside.
    """
    seen, log = _Seen(), None
    try:
        while True:
            job = cluster.read(name)
            if job is None:
                if is_whole(run.store, prefix):
                    return  # another launcher that followed it has deleted it
                raise TrainingError(
                    f"TrainJob {cluster.namespace}/{name} was deleted while it ran.",
                    remedy="Repeat the command: training starts again from the last committed checkpoint.",
                )
            pods = cluster.pods(name)
            log = _first_rank(cluster, pods, log)
            _tell(cluster, job, pods, run, seen)
            ended = _ended(job)
            if ended == "Complete":
                return
            certain = [failure for _, failure in _failures(pods) if failure.final]
            if certain:  # further attempts would fail in the same way
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
    """Follow the log of the newest pod of node 0, as soon as that pod runs."""
    begun = [pod for pod in pods if pod.node == 0 and (pod.phase != "Pending")]
    if not begun or (log and log.pod.uid == begun[-1].uid):
        return log
    if log:
        log.finish()
    return FollowedLog(cluster, begun[-1], show)


def _tell(cluster: Cluster, job: dict[str, Any], pods: list[Pod], run: Run, seen: _Seen) -> None:
    """Report what the job waits for, when it changes and every LOG_SECONDS; `mantis status` shows it, too."""
    nodes, attempt = run.recipe.training.nodes, max((pod.attempt for pod in pods), default=0)
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
    if waits != seen.text:
        _note(run, waits)
    seen.text = waits


def _note(run: Run, waits: str) -> None:
    """Leave the reason in the record of the step, for `mantis status` on another machine."""
    try:
        note_waiting(run.store, run.id, "train", waits)
    except StoreError as error:  # only `mantis status` misses it
        logger.warning("The store did not take the reason of the wait: %s", error.problem)


def _waits(cluster: Cluster, job: dict[str, Any], pods: list[Pod], nodes: int) -> str:
    """Return the reason why a job does not run, in the words of Kubernetes."""
    if job["spec"].get("suspend"):
        return _queued(cluster, job)
    reasons = sorted({pod.waiting for pod in pods if pod.waiting})
    if reasons:
        return f"waiting: {'; '.join(reasons)}"
    warning = cluster.warning(job) if len(pods) < nodes else ""  # e.g. about a quota or an admission webhook
    return f"starting: {len(pods)} of {nodes} pods exist{f'; {warning}' if warning else ''}"


def _queued(cluster: Cluster, job: dict[str, Any]) -> str:
    """Return the reason why a job is suspended, in the words of Kueue."""
    queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
    if not queue:
        return "waiting: suspended until it is admitted"
    # Kueue makes no Workload of a job that it cannot read, e.g. one with an unknown priority. Then an event says why.
    said = cluster.queue_says(job) or cluster.warning(job)
    if NEVER_FITS in said:
        return f"waiting: suspended in queue {queue}, and can never fit: {said}"
    return f"waiting: suspended in queue {queue} until it is admitted{f': {said}' if said else ''}"


def _ended(job: dict[str, Any]) -> str | None:
    """Return `Complete` or `Failed`; None while the job runs. A TrainJob has no condition for running."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def _failures(pods: list[Pod]) -> list[tuple[Pod, Failure]]:
    """Parse the termination logs of the newest attempt's ranks, the earliest failure first."""
    newest = max((pod.attempt for pod in pods), default=0)
    found = []
    for pod in pods:
        failure = parse_failure(pod.message) if pod.attempt == newest else None
        if failure is not None:
            found.append((pod, failure))
    return sorted(found, key=lambda item: item[1].at)


def _describe(cluster: Cluster, name: str, job: dict[str, Any], pods: list[Pod]) -> TrainingError:
    """Describe a failed job by the most reliable cause, in this order:

    1. our own error, which a rank left in its termination log;
    2. a pod that was killed because it ran out of memory;
    3. a rank that a signal killed;
    4. the rank that failed first. Later failures are usually consequences.
    """
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
                remedy="Lower training.token_budget, or raise cluster.resources. Then repeat the command: training "
                "continues from the last committed checkpoint.",
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
        remedy="Repeat the command: training continues from the last committed checkpoint.",
    )


def _without_pods(cluster: Cluster, name: str, job: dict[str, Any]) -> TrainingError:
    """Describe a failed job that left no pod."""
    said = [condition.get("message", "") for condition in job["status"]["conditions"] if condition["type"] == "Failed"]
    return TrainingError(
        f"TrainJob {cluster.namespace}/{name} failed: {said[0] if said else 'Kubernetes gives no reason'}.",
        remedy=f"Run kubectl -n {cluster.namespace} describe jobset {name}, then repeat the command.",
    )


def remove(cluster: Cluster, name: str, uid: str) -> None:
    """Delete the TrainJob `uid`, and wait until its pods are gone, because two jobs must not write one checkpoint.

    Raises:
        TrainingError: pods still run after GONE_SECONDS.
    """
    cluster.delete(name, uid)
    _wait_until_gone(cluster, name, uid)


def _wait_until_gone(cluster: Cluster, name: str, uid: str) -> None:
    def gone() -> bool:
        found = cluster.read(name)
        again = found is not None and found["metadata"]["uid"] != uid  # by another launcher, after the pods were gone
        return again or (found is None and not cluster.pods(name))

    _wait_until(gone, cluster, name)


def _wait_until(gone: Callable[[], bool], cluster: Cluster, name: str) -> None:
    until = time.monotonic() + GONE_SECONDS
    looks = 0  # consecutive checks that found nothing
    while True:
        looks = looks + 1 if gone() else 0
        if looks == LOOKS:
            return
        if time.monotonic() > until:
            raise TrainingError(
                f"TrainJob {cluster.namespace}/{name} is deleted, but some of its pods still run.",
                remedy=f"Run kubectl -n {cluster.namespace} get pods. A pod of a lost node stays in that list.",
            )
        time.sleep(POLL_SECONDS / 4)


def _asked(job: dict[str, Any]) -> str:
    return str(job["metadata"]["annotations"][ASKED_ANNOTATION])


def _command(job: dict[str, Any]) -> str:
    trainer = job["spec"]["trainer"]
    return f"{trainer['numNodes']} x {trainer['numProcPerNode']} ranks of {trainer['image']}"
