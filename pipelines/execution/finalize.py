"""The last step, after success and failure: complete the MLflow run with its status, and write the run's summary."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.reporting.collect.verdict import verdict
from mantis.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from mantis.artifacts.responses import samples_digest
from mantis.artifacts.scores import Score
from mantis.errors import ConfigError, MantisError, NotFoundError, StoreError
from mantis.logging import name_step
from mantis.runs.arms import arms_of
from mantis.runs.records import State, StepRecord, read_records, was_stopped
from mantis.runs.step_runner import Run, open_run
from mantis.schema_versions import Form, load_rows, versioned
from mantis.store.opening import open_store
from mantis.tracking.logged_models import ScoredBenchmark
from mantis.tracking.mlflow_runs import (
    Status,
    TrackedRun,
    curve_row,
    record_run,
    send_curve,
    tracking_error,
    tracking_uri,
)
from mantis.tracking.model_registry import register_model
from mantis.tracking.reachability import TrackingAwayError, check_reachable
from mantis.tracking.run_description import mixture_dataset
from mantis.tracking.runs_view import keep_view
from mantis.tracking.score_metrics import SCORE, SCORE_TABLE, score_metrics, score_table
from mantis.tracking.webhook import ADDRESS, message_of, send_webhook
from pipelines.execution.preflight import check_name
from pipelines.execution.resolve import name_of, resolve_run
from pipelines.execution.run_titles import NOTE_TAG, note_of, open_in_mlflow

logger = logging.getLogger(__name__)

CLUSTER_SECONDS = 60.0  # after this time, a run is closed even if the API server does not answer
EVALUATE = "evaluate-"  # before the benchmark, in the name of a step
REPORT = "report.html"
NOT_STARTED = "No run was started"


def finish(
    recipe: str,
    overrides: Mapping[str, object],
    name: str,
    store_url: str,
    *,
    last_step: str = "report",
    model: str = "",
) -> None:
    """Close the run of these parameters. The run is complete if `last_step` is done, and `deploy` where it is wanted.

    A run that preflight refused has nothing to close.
    """
    try:
        run_id, resolved = resolve_run(recipe, overrides, name_of(recipe, overrides, name, model, store_url), store_url)
        named = Run(id=run_id, store=open_store(store_url), recipe=resolved)
        check_ours(named)
    except ConfigError:
        logger.warning(NOT_STARTED)
        return
    delete_jobs(named)
    run = started(named)
    if run:
        deploys = run.recipe.cluster.deploy and last_step == "report" and not model
        record_end(run, status_of(read_records(run.store, run.id), "deploy" if deploys else last_step))


def check_ours(named: Run) -> None:
    """Check that the name belongs to this run. If preflight refused it, a run with another recipe owns the name.

    Raises:
        ConfigError: the name belongs to another run.
    """
    with suppress(StoreError):  # jobs must be deleted nevertheless, because they hold GPUs
        check_name(named)


def started(named: Run) -> Run | None:
    """Return the run that preflight stored; log it and return None if it stored none."""
    try:
        return open_run(named.id, named.store.url)
    except ConfigError:
        logger.warning(NOT_STARTED)
        return None


def status_of(records: list[StepRecord], last_step: str = "report") -> Status:
    """Derive MLflow's status from the records, because KFP's own status is unreliable.

    If no step failed by itself and the last step is missing, somebody stopped the run.
    """
    whole = any(record.step == last_step and record.state in (State.DONE, State.REUSED) for record in records)
    failed = any(record.state is State.FAILED and not was_stopped(record) for record in records)
    if failed:
        return Status.FAILED
    return Status.FINISHED if whole else Status.KILLED


def close_run(run: Run, status: Status) -> None:
    """Delete a remaining TrainJob, write the run's summary, and send everything about the run to MLflow."""
    delete_jobs(run)
    record_end(run, status)


def delete_jobs(run: Run) -> None:
    """Delete the TrainJob of a launcher that was killed. A job that a user applied stays.

    This runs first and does not read the store, which may be down, because a job holds GPUs. Problems are logged, not
    raised.
    """
    if run.recipe.training.launcher != "trainjob":
        return
    name_step(run.id, run.shown("finish"))
    from components.training.launch.kubernetes_client import Cluster
    from components.training.launch.trainjob_spec import applied_name

    try:
        cluster = Cluster(run.recipe.cluster.namespace, patience=CLUSTER_SECONDS)
        for job in cluster.of_run(run):
            name = str(job["metadata"]["name"])
            if name != applied_name(run.id):
                cluster.delete(name, str(job["metadata"]["uid"]))
                logger.warning("TrainJob %s/%s was left over and is deleted", cluster.namespace, name)
    except MantisError as error:
        logger.warning("%s", error)


def record_end(run: Run, status: Status) -> None:
    """Write the run's summary, send everything about the run to MLflow, and tell the webhook. Problems are logged.

    An arm of an ablation or a sweep tells no webhook: the run that compares the arms does.
    """
    name_step(run.id, run.shown("finish"))
    records = read_records(run.store, run.id)
    reasons = {record.step: record.reason for record in records if record.state is State.FAILED}
    content = {"run": run.id, "status": status, "failed": reasons, "steps": [r.model_dump() for r in records]}
    summary = versioned(Form.RUN_SUMMARY, content)
    run.store.put(run.key("summary.json"), json.dumps(summary, indent=1).encode())
    _record_in_mlflow(run, status, records, reasons)
    if ADDRESS in os.environ and not run.parent:
        _tell_webhook(run, status, records, reasons)


def _tell_webhook(run: Run, status: Status, records: list[StepRecord], reasons: Mapping[str, str]) -> None:
    try:
        manifests = _manifests(run, records)
        scores = [Score.model_validate(row) for row in _rows(_scores(run, manifests))]
    except MantisError as error:  # people learn of the end nevertheless
        logger.warning("The scores are not in the webhook's message: %s", error)
        manifests, scores = {}, []
    link = run.store.uri(f"{manifests['report'].key}/{REPORT}") if "report" in manifests else ""
    said = verdict(scores) if scores else ""
    send_webhook(message_of(run, status.value, failed=reasons, verdict=said, link=link))


def _record_in_mlflow(run: Run, status: Status, records: list[StepRecord], reasons: Mapping[str, str]) -> None:
    """Send everything about the run to MLflow. Missing parts are logged."""
    try:
        check_reachable(tracking_uri(run.store))  # before the import, which takes seconds
    except MantisError as error:
        logger.warning("%s", error)
        return
    from mlflow.exceptions import MlflowException

    try:
        tracked = open_in_mlflow(run)
        try:
            _send(tracked, run, records, reasons)
        except MlflowException as error:
            refused = tracking_error(error, run.store)
            if isinstance(refused, TrackingAwayError):
                raise refused from None
            logger.warning("MLflow did not take all of the run. %s", refused)
        tracked.client.set_terminated(tracked.id, status=status)  # it has ended, even if MLflow lacks a part of it
        keep_view(tracked.client, tracked.experiment)
    except MantisError as error:
        logger.warning("%s", error)
    except MlflowException as error:
        logger.warning("%s", tracking_error(error, run.store))


def _send(tracked: TrackedRun, run: Run, records: list[StepRecord], reasons: Mapping[str, str]) -> None:
    manifests = _manifests(run, records)
    if "train" in manifests:
        send_curve(tracked, _curve(run, manifests["train"]))
    scored = _scores(run, manifests)
    if "convert" in manifests:  # its manifest exists, so the proof succeeded
        register_model(tracked, run, manifests["convert"], _scored(run, manifests, scored))
    tags = {f"failed.{step}": reason[:500] for step, reason in reasons.items()}
    tags |= {f"fingerprint.{step}": manifest.fingerprint for step, manifest in manifests.items()}
    mixture, report, scores = manifests.get("assemble"), manifests.get("report"), _rows(scored)
    rows = [Score.model_validate(row) for row in scores]
    with tempfile.TemporaryDirectory() as folder:
        files = _report_files(run, report, Path(folder))
        if scores:
            files.append(Path(folder) / SCORE_TABLE)
            files[-1].write_text(score_table(scores))
        record_run(
            tracked,
            scores=score_metrics(scores) | _scores_of_arms(run),
            tags=tags | {NOTE_TAG: note_of(run, rows, tracked.link(REPORT) if report else "", reasons)},
            dataset=mixture_dataset(mixture) if mixture else None,
            files=files,
        )


def _manifests(run: Run, records: list[StepRecord]) -> dict[str, Manifest]:
    """Return the results of a run by step."""
    ended = (record for record in records if record.key and record.state in (State.DONE, State.REUSED))
    return {record.step: _manifest_of(run, record) for record in ended}


def _manifest_of(run: Run, record: StepRecord) -> Manifest:
    text = run.store.get(f"{record.key}/{MANIFEST}")
    return parse_manifest(text, origin=run.store.uri(record.key), key=record.key)


def _curve(run: Run, checkpoint: Manifest) -> list[dict[str, float]]:
    text = run.store.get(f"{checkpoint.key}/metrics.jsonl").decode()
    return [curve_row(json.loads(line)) for line in text.splitlines()]


def _scores(run: Run, manifests: Mapping[str, Manifest]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each scores.json by benchmark."""
    found = {}
    for step, manifest in manifests.items():
        if step.startswith(EVALUATE):
            key = f"{manifest.key}/scores.json"
            rows = load_rows(Form.SCORES, "scores", run.store.get(key), run.store.uri(key))
            found[step.removeprefix(EVALUATE)] = rows
    return found


def _rows(scores: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for rows in scores.values() for row in rows]


def _scored(
    run: Run, manifests: Mapping[str, Manifest], scores: Mapping[str, Sequence[dict[str, Any]]]
) -> list[ScoredBenchmark]:
    """Add to the scores the digest of their samples, which takes a pass over all responses."""
    keys = {name: manifests[f"{EVALUATE}{name}"].key for name in scores}
    return [
        ScoredBenchmark(name=name, digest=samples_digest(run.store, keys[name]), key=keys[name], rows=rows)
        for name, rows in scores.items()
    ]


def _scores_of_arms(run: Run) -> dict[str, float]:
    """Return the scores of the runs that `run` compares: `score.<arm>.<benchmark>`; empty if it compares none."""
    found: dict[str, float] = {}
    for arm in arms_of(run.store, run.id):
        part = arm.removeprefix(f"{run.id}-")
        try:
            scores = score_metrics(_rows(_scores(run, _manifests(run, read_records(run.store, arm)))))
        except MantisError as error:  # the run that compares the arms is closed nevertheless
            logger.warning("The scores of the arm %s are not sent: %s", part, error)
            continue
        found |= {f"{SCORE}.{part}{name.removeprefix(SCORE)}": value for name, value in scores.items()}
    return found


def _report_files(run: Run, report: Manifest | None, folder: Path) -> list[Path]:
    if report is None:
        return []
    files = []
    for name in (REPORT, "report.md", "summary.json"):
        path = folder / name
        try:
            run.store.get_file(f"{report.key}/{name}", path)
        except NotFoundError:
            continue
        files.append(path)
    return files
