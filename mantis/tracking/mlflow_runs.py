"""Track runs in MLflow: one MLflow run per pipeline run, curves during training, and nothing lost in an outage.

The store's files (metrics.jsonl, scores.json, records) are the source of truth. MLflow shows them. Unsent data is sent
by the next batch, the next attempt, or the run's last step.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.errors import TrackingError
from mantis.hashing import fingerprint
from mantis.processes import one_at_a_time
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_database import (
    DATABASE,
    LOCATION,
    STORE_TAG,
    THIS_STORE,
    artifact_folder,
    damaged_database,
    forget_addresses,
)
from mantis.tracking.reachability import SENT_LATER, TrackingAwayError, ask_again, check_reachable, limit_requests
from mantis.tracking.run_description import DatasetEntry, mixture_dataset, parameters_of, source_tags
from mantis.tracking.score_metrics import SCORE_TABLE, is_metric_name

logger = logging.getLogger(__name__)

RUN_TAG = "mantis.run"
PARENT_TAG = "mlflow.parentRunId"  # defined by MLflow, whose page nests runs by it
STEP, TIME = "step", "time"  # of a row: the optimizer step, and the seconds since 1970 at its end
MARKER_METRIC = "train/loss"  # part of every row of the curve, so that its last step tells how far MLflow has got
PARAMETERS = 100  # MLflow's limit of parameters per request
BATCH = 1000  # MLflow's limit of metrics per request
SECONDS_BETWEEN_BATCHES = 5.0
QUIET_SECONDS = 4.0  # without a successful request, the end of a training waits no longer
SETTLE_SECONDS = 1.0
TABLES_TAG = "mlflow.loggedArtifacts"  # defined by MLflow, whose page shows these artifacts as tables
NONE: Mapping[str, str] = {}


class Status(StrEnum):
    """MLflow's names of the states of a run."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


def tracking_uri(store: ObjectStore) -> str:
    """Return MLFLOW_TRACKING_URI, else a SQLite file in a local store, else one in .mantis of the current folder."""
    folder = database_folder(store)
    return os.environ["MLFLOW_TRACKING_URI"] if folder is None else f"sqlite:///{folder / DATABASE}"


def database_folder(store: ObjectStore) -> Path | None:
    """Return the folder of the MLflow database of `store`; None if MLFLOW_TRACKING_URI names a server."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    root = store.root if isinstance(store, LocalStore) else Path.cwd() / ".mantis"
    root.mkdir(parents=True, exist_ok=True)
    return root


def address_in(store: ObjectStore, key: str) -> str:
    """Name an object of `store` for MLflow: by its key if the database lies in the store, else by its URI."""
    return key if _lies_in(store) else store.uri(key)


def _lies_in(store: ObjectStore) -> bool:
    """Whether the database is part of the store, so that both are copied and moved together."""
    return isinstance(store, LocalStore) and database_folder(store) is not None


def mlflow_client(store: ObjectStore) -> Any:
    """A client of the MLflow of `store`: mlflow.MlflowClient, which has no type hints.

    Raises:
        TrackingAwayError: the server cannot be reached.
        TrackingError: the server refuses the login, or the database of a local store is damaged.
    """
    check_reachable(tracking_uri(store))
    limit_requests()
    from mlflow import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    uri, folder = tracking_uri(store), database_folder(store)
    if folder is None:
        return MlflowClient(tracking_uri=uri)
    # Two processes that create the tables at the same moment disturb each other.
    with one_at_a_time(f"{fingerprint(str(folder.resolve()))}.mlflow", lambda: None):
        forget_addresses(folder)
        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it names the tables that it creates
        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)  # creates the tables
        except SQLAlchemyError as error:  # a process that was killed may have made some of them
            raise damaged_database(folder, error) from None
    return client


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """The MLflow run of a pipeline run."""

    client: Any  # mlflow.MlflowClient, which has no type hints
    id: str
    experiment: str
    folder: Path | None = None  # the database's folder, if no server keeps the artifacts

    def link(self, artifact: str) -> str:
        """Return the address of an artifact on MLflow's page, relative to any address of the server."""
        return f"#/experiments/{self.experiment}/runs/{self.id}/artifacts/{artifact}"


def open_tracked_run(run: Run, *, title: str = "", tags: Mapping[str, str] = NONE) -> TrackedRun:
    """Open the MLflow run of `run`, or create it, with its parameters and tags, and set its status to RUNNING.

    `title` becomes the run's name in MLflow, if nobody has named it yet.

    KFP's MLflow integration passes a run in MLFLOW_RUN_ID. Then that run is used, or its parent. The runs of an
    ablation's arms are nested in the run of the ablation.

    Raises:
        TrackingAwayError: the server cannot be reached.
        TrackingError: the server refuses, or the experiment was deleted.
    """
    client = mlflow_client(run.store)
    from mlflow.exceptions import MlflowException

    try:
        experiment = _experiment(client, run)
        run_id = _known(client, experiment, run) or _created(client, experiment, run)
        _describe(client, run_id, run, title, tags)
        if run.parent:
            outer = open_tracked_run(replace(run, id=run.parent, parent=""))
            client.set_tag(run_id, PARENT_TAG, outer.id)
        client.update_run(run_id, status=Status.RUNNING)
    except MlflowException as error:
        raise tracking_error(error, run.store) from None
    return TrackedRun(client=client, id=run_id, experiment=experiment, folder=database_folder(run.store))


def tracking_error(error: Exception, store: ObjectStore) -> TrackingError:
    """What `error` of MLflow's client means for the user."""
    first = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    code = getattr(error, "error_code", "")
    if isinstance(error, TrackingError):
        return error
    if "API request to" in first and "failed with" in first:
        return TrackingAwayError(f"MLflow at {tracking_uri(store)} stopped to answer ({first}).", remedy=SENT_LATER)
    if code == "INVALID_PARAMETER_VALUE":
        return TrackingError(
            f"MLflow refuses a name or a value: {first}",
            remedy="Rename it where it is made. The store's files hold all figures.",
        )
    return TrackingError(
        f"MLflow at {tracking_uri(store)} refuses: {first}",
        remedy="Look at the server's log. The same command sends the missing data later.",
    )


def find_tracked_run(run: Run) -> TrackedRun | None:
    """Find the MLflow run of `run` without changing it; None if it does not exist. Errors of MLflow's client pass."""
    client = mlflow_client(run.store)
    experiment = _experiment(client, run)
    found = _known(client, experiment, run)
    folder = database_folder(run.store)
    return TrackedRun(client=client, id=found, experiment=experiment, folder=folder) if found else None


def end_tracked_run(run: Run, status: Status) -> None:
    """Close the MLflow run of a training that no other process closes. A problem is logged.

    A training that fails at once has not opened its run yet. Then the run is opened here, with its parameters.
    """
    try:
        tracked = open_tracked_run(run)
        tracked.client.set_terminated(tracked.id, status=status)
    except Exception as error:  # the training has ended, whatever the client raises
        logger.warning("%s", tracking_error(error, run.store))


def send_curve(
    tracked: TrackedRun, rows: Iterable[Mapping[str, float]], *, sent: Callable[[], None] = lambda: None
) -> int:
    """Log those rows (each with its `step`) that MLflow does not have yet, and return their number.

    `sent` is called after each request.

    A resumed training repeats the steps after its last checkpoint with the same values, which are not logged twice.
    """
    known = tracked.client.get_metric_history(tracked.id, MARKER_METRIC)
    last = max((metric.step for metric in known), default=-1)
    missing = [row for row in rows if row["step"] > last]
    sent()
    _log_rows(tracked, missing, sent=sent)
    return len(missing)


def record_run(
    tracked: TrackedRun,
    *,
    scores: Mapping[str, float],
    tags: Mapping[str, str],
    dataset: DatasetEntry | None,
    files: Sequence[Path],
) -> None:
    """Log scores, tags, the dataset as an input, and files. MLflow shows a file `scores.json` as a table."""
    client = tracked.client
    known = client.get_run(tracked.id)
    if dataset is not None:
        log_datasets(tracked, [dataset])
    tables = [{"path": file.name, "type": "table"} for file in files if file.name == SCORE_TABLE]
    shown = {TABLES_TAG: json.dumps(tables)} if tables else {}
    for tag, text in (shown | dict(tags)).items():
        client.set_tag(tracked.id, tag, text)
    fresh = {name: value for name, value in scores.items() if known.data.metrics.get(name) != value}
    _log_rows(tracked, [{"step": 0, **fresh}])
    kept = artifact_folder(tracked.folder, known.info.artifact_uri) if tracked.folder else None
    for file in files:
        if kept is None:
            client.log_artifact(tracked.id, str(file))
        else:  # MLflow's client needs a server to write to such a location
            LocalStore(kept).put_file(file.name, file)


def log_datasets(tracked: TrackedRun, datasets: Iterable[DatasetEntry]) -> None:
    """Log those of the datasets that the run lacks as its inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = tracked.client.get_run(tracked.id).inputs.dataset_inputs
    known = {(each.dataset.name, each.dataset.digest) for each in inputs}
    missing = [
        DatasetInput(
            Dataset(each.name, each.digest, source_type="mantis", source=each.source, profile=each.profile),
            [InputTag("mlflow.data.context", each.context)],
        )
        for each in datasets
        if (each.name, each.digest) not in known
    ]
    if missing:
        tracked.client.log_inputs(tracked.id, datasets=missing)


def curve_row(row: Mapping[str, float]) -> dict[str, float]:
    """Rename the fields of a row of metrics.jsonl to MLflow's names `train/<name>`; `step` and `time` stay."""
    return {name if name in (STEP, TIME) else f"train/{name}": value for name, value in row.items()}


class CurveSender:
    """Sends rows of the training curve from a thread. It never raises into training, and never delays it.

    It logs once that MLflow is away, and once that it is back.
    """

    def __init__(self, run: Run, mixture: Manifest | None = None) -> None:
        """Begin to send. `mixture` is logged as the dataset that the run trains on."""
        self._run, self._mixture = run, mixture
        self._rows: queue.Queue[dict[str, float] | None] = queue.Queue()
        self._problem = ""
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def add(self, row: Mapping[str, float]) -> None:
        """Queue one row, with its `step` and, if it is known, its `time`."""
        self._rows.put(dict(row))

    def close(self, *, seconds: float = 60.0, quiet_seconds: float = QUIET_SECONDS) -> None:
        """Send the queued rows within `seconds`, or until a server answers nothing for `quiet_seconds`.

        The run's last step sends the rest.
        """
        if database_folder(self._run.store) is not None:  # a file is never away, and its first use takes seconds
            quiet_seconds = seconds
        self._rows.put(None)
        self._moved = time.monotonic()
        until = self._moved + seconds
        while self._thread.is_alive() and time.monotonic() < min(until, self._moved + quiet_seconds):
            self._thread.join(0.1)
        if self._thread.is_alive():
            logger.warning("MLflow did not take all of the curve in time. The run's last step sends the rest.")

    def _work(self) -> None:
        tracked: TrackedRun | None = None
        waiting: list[dict[str, float]] = []
        closing = False
        while True:
            if closing:
                ask_again(tracking_uri(self._run.store))
            try:
                tracked = tracked or self._opened()
                self._mark()
                send_curve(tracked, waiting, sent=self._mark)
                self._say("", waiting)
                waiting.clear()
            except Exception as error:  # an outage must not stop training, whatever the client raises
                self._say(str(tracking_error(error, self._run.store)), waiting)
            if closing:
                return
            closing = self._collect(waiting)

    def _opened(self) -> TrackedRun:
        tracked = open_tracked_run(self._run)
        if self._mixture is not None:
            log_datasets(tracked, [mixture_dataset(self._mixture)])
        return tracked

    def _mark(self) -> None:
        self._moved = time.monotonic()

    def _say(self, problem: str, waiting: Sequence[object]) -> None:
        if problem and not self._problem:
            logger.warning("%s", problem)
        elif self._problem and not problem:
            logger.info("MLflow is back, and has %d rows that waited", len(waiting))
        self._problem = problem

    def _collect(self, waiting: list[dict[str, float]]) -> bool:
        """Move rows to `waiting` until it is time to send; True at the end of the queue."""
        until = time.monotonic() + SECONDS_BETWEEN_BATCHES
        while (left := until - time.monotonic()) > 0:
            try:
                row = self._rows.get(timeout=left)
            except queue.Empty:
                return False
            if row is None:
                return True
            waiting.append(row)
        return False


def _experiment(client: Any, run: Run) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    from mlflow.exceptions import MlflowException

    name = run.recipe.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"tracking.experiment = {name!r}: this experiment of MLflow was deleted.",
                remedy=f"Restore it with `mlflow experiments restore --experiment-id {found.experiment_id}`, or set "
                f"tracking.experiment to another name. {SENT_LATER}",
            )
        return str(found.experiment_id)
    # Without a server, artifacts lie beside the database. A server chooses its own location.
    place = LOCATION if database_folder(run.store) is not None else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)  # another process created it at the same moment


def _describe(client: Any, run_id: str, run: Run, title: str, tags: Mapping[str, str]) -> None:
    """Write the parameters, user, source and commit of a run. They are known before its first step."""
    from mlflow.exceptions import MlflowException

    parameters, tags = parameters_of(run), source_tags(run) | dict(tags) | _tags(run)
    with one_at_a_time(f"{fingerprint([run.store.url, run.id])}.mlflow", lambda: None):
        try:
            _log_missing(client, run_id, parameters, tags)
        except MlflowException:  # a process of another machine may have sent some of them at the same moment
            _log_missing(client, run_id, parameters, tags)
    if title and client.get_run(run_id).info.run_name == run.id:
        client.update_run(run_id, name=title)


def _log_missing(client: Any, run_id: str, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Log the parameters that the run lacks, and the tags that it lacks or has with another value."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data
    missing = [Param(key, value) for key, value in parameters.items() if key not in known.params]
    for start in range(0, len(missing), PARAMETERS):
        client.log_batch(run_id, params=missing[start : start + PARAMETERS])
    for tag, value in tags.items():
        if known.tags.get(tag) != value:
            client.set_tag(run_id, tag, value)


def _tags(run: Run) -> dict[str, str]:
    """Return the tags that identify a run: its id and its store, because another store may have a run of the same id.

    A database inside the store moves with it, so its tag holds no address.
    """
    return {RUN_TAG: run.id, STORE_TAG: THIS_STORE if _lies_in(run.store) else run.store.url}


def _known(client: Any, experiment: str, run: Run) -> str:
    """Return MLflow's id of `run`; empty if it has none. A run that KFP passes is that of the parent, not of an arm."""
    given = os.environ.get("MLFLOW_RUN_ID")
    if given and not run.parent:
        # KFP's plugin gives every task an MLflow run, nested in that of the pipeline's run, which is the one to use.
        return str(client.get_run(given).data.tags.get(PARENT_TAG, given))
    wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in _tags(run).items())
    oldest = client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return str(oldest[0].info.run_id) if oldest else ""


def _created(client: Any, experiment: str, run: Run) -> str:
    """Create an MLflow run. If another process created one concurrently, keep the older one and delete this one.

    MLflow has no "create if absent". Processes of one machine take turns. Runs of other machines get SETTLE_SECONDS to
    become visible, because a run may be older by its clock and yet be written later.
    """
    with one_at_a_time(f"{fingerprint([run.store.url, run.id])}.mlflow", lambda: None):
        if first := _known(client, experiment, run):
            return first
        mine = client.create_run(experiment, run_name=run.id, tags=_tags(run)).info.run_id
        if os.environ.get("MLFLOW_TRACKING_URI"):
            time.sleep(SETTLE_SECONDS)
        first = _known(client, experiment, run)
        if first != mine:
            client.delete_run(mine)
        return first


def _log_rows(
    tracked: TrackedRun, rows: Sequence[Mapping[str, float]], *, sent: Callable[[], None] = lambda: None
) -> None:
    """Log the rows, without the figures whose names MLflow refuses: it would take nothing of the whole request."""
    from mlflow.entities import Metric

    refused = {name for row in rows for name in row if not is_metric_name(name)}
    for name in sorted(refused):
        logger.warning(
            "MLflow refuses the metric name %r, so this figure is not sent. Rename it where it is made: MLflow takes "
            "letters, digits, spaces and _ - . : / with 250 characters in all. The store's files hold it.",
            name,
        )
    now = time.time()
    metrics = [
        Metric(name, float(value), int(1000 * row.get(TIME, now)), int(row[STEP]))
        for row in rows
        for name, value in row.items()
        if name not in (STEP, TIME) and name not in refused
    ]
    for start in range(0, len(metrics), BATCH):
        tracked.client.log_batch(tracked.id, metrics=metrics[start : start + BATCH])
        sent()
