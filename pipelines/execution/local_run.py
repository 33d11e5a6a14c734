"""Check a recipe, then run a DAG on this machine, for `mantis run`, `ablate` and `data prepare`."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from rich.console import Console

from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.training_progress import TrainingProgress, read_progress
from mantis.errors import TrackingError
from mantis.runs.arms import arms_of
from mantis.runs.records import State, StepRecord, read_records
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.tracking.mlflow_runs import Status
from pipelines.execution.form.form_fields import filled_in


def start(
    recipe: str,
    overrides: Mapping[str, str],
    name: str,
    store_url: str,
    console: Console,
    pipeline: str,
    *,
    ended: Callable[[Run], None],
) -> Run:
    """Run `pipeline` to its end, draw its steps on `console`, and return the run.

    `ended` is called at the end, also if a step failed or the user pressed Ctrl-C.

    Raises:
        MantisError: the recipe cannot be run, or a step failed.
        InterruptedRunError: the user pressed Ctrl-C. The error lists the saved results.
    """
    from pipelines.execution.supervisor import InterruptedRunError, run_dag

    checked = _checked(pipeline, recipe, overrides, name, store_url)
    console.print(f"run [bold]{checked.id}[/]  store {checked.store.url}", soft_wrap=True)
    opening = _open_in_mlflow(checked, console)
    asked = {"recipe": recipe, "mantis_run": name, "store_url": store_url}
    parameters = asked | filled_in(overrides, ())
    try:
        run_dag(checked, parameters, console, pipeline)
    except InterruptedRunError as error:
        opening.join()  # two threads that import mlflow for the first time at once see it half imported
        _close_killed(checked, pipeline)
        raise InterruptedRunError(f"{error.problem} {what_was_saved(checked)}", remedy=error.remedy) from None
    finally:
        ended(checked)
    return checked


def _open_in_mlflow(run: Run, console: Console) -> threading.Thread:
    """Open the run in MLflow in the background; the run does not wait. Print if MLflow cannot be reached."""

    def work() -> None:
        from pipelines.execution.run_titles import open_in_mlflow

        try:
            open_in_mlflow(run)
        except TrackingError as error:
            console.print(str(error), style="yellow", soft_wrap=True, markup=False)

    thread = threading.Thread(target=work, name="mlflow-open", daemon=True)
    thread.start()
    return thread


def what_was_saved(run: Run) -> str:
    """Describe the results and checkpoints that a stopped run, or its arms, left in the store."""
    saved = []
    for each in (run, *(replace(run, id=arm, parent=run.id) for arm in arms_of(run.store, run.id))):
        for record in read_records(run.store, each.id):
            if record.key and record.state in (State.DONE, State.REUSED):
                saved.append(each.shown(record.step))
            elif record.step == "train" and (step := last_checkpoint(run.store, record)) is not None:
                saved.append(f"the checkpoint of {each.shown(record.step)} at step {step:,}")
    return f"Saved: {', '.join(saved)}." if saved else "No result was finished."


def last_checkpoint(store: ObjectStore, record: StepRecord) -> int | None:
    """Return the step of the newest complete checkpoint of the training in `record`; None if it has none."""
    if not record.fingerprint:
        return None
    return next(iter(committed(store, ArtifactKind.CHECKPOINT.address(fingerprint=record.fingerprint))), None)


def progress_of(store: ObjectStore, record: StepRecord) -> TrainingProgress | None:
    """Return how far the running training in `record` is; None if it has not said so, or is no running training."""
    if record.step != "train" or record.state is not State.STARTED or not record.fingerprint:
        return None
    return read_progress(store, ArtifactKind.CHECKPOINT.address(fingerprint=record.fingerprint))


def _checked(pipeline: str, recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> Run:
    from pipelines.execution.ablation_runs import preflight_arms
    from pipelines.execution.preflight import preflight

    if pipeline == "ablation":
        return preflight_arms(recipe, overrides, name, store_url)
    return preflight(recipe, overrides, name, store_url, evaluates=pipeline == "instruction-tuning")


def _close_killed(run: Run, pipeline: str) -> None:
    from pipelines.execution.ablation_runs import close_arms
    from pipelines.execution.finalize import close_run

    if pipeline == "ablation":
        close_arms(run)
    else:
        close_run(run, Status.KILLED)
