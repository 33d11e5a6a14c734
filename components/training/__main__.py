"""The training entry point of one rank: `torchrun --nproc-per-node N -m components.training ...`."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from components.training.monitoring.failures import leave_failure
from components.training.monitoring.goodput import beginning
from components.training.monitoring.signals import STOPPED, StoppedError
from components.training.step import mixture_of, training_task
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.store_addresses import key_of
from mantis.config.recipe import load_recipe_file, parse_recipe
from mantis.errors import ConfigError, MantisError
from mantis.logging import RUN, STEP, configure
from mantis.processes import die_with_parent, end_process
from mantis.runs.step_runner import Run, mark_started, open_run
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import Status, end_tracked_run

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)
EPILOG = """Example, on one machine, for a run that `mantis run` has prepared (its `assemble` is done):

torchrun --nproc-per-node 2 -m components.training --store file:///data --run-id demo-1a

Checkpoints go to checkpoints/<fingerprint>/ in the store. A second start resumes from the last committed one.
SIGTERM and Ctrl-C save first."""


@app.command(epilog=EPILOG)
def main(
    store: Annotated[str, typer.Option(help="file:///path or s3://bucket/prefix.")],
    # torchrun refuses --run, which abbreviates its own --run-path; it passes --run-id on.
    run: Annotated[str, typer.Option("--run", "--run-id", help="The run to train: runs/<run>/.")],
    recipe: Annotated[
        str, typer.Option(help="The resolved recipe: a file or a URL in the store. Default: the run's own recipe.")
    ] = "",
    profile_steps: Annotated[
        str,
        typer.Option(
            envvar="MANTIS_PROFILE_STEPS",
            help="Steps to trace with torch.profiler, e.g. 10:12. The trace lies beside the checkpoint.",
        ),
    ] = "",
) -> None:
    """Train one rank. torchrun starts one rank per GPU, or per core without GPUs."""
    began, queued = beginning()
    os.environ.setdefault(RUN, run)
    os.environ.setdefault(STEP, "train")
    _die_with_torchrun()
    try:
        configure()
        _train(_run(run, store, recipe), began=began, queued=queued, profile_steps=profile_steps)
    except BaseException as error:
        _leave(error)


def _die_with_torchrun() -> None:
    """End this rank with its launcher: else it would write into the checkpoints of the next attempt."""
    die_with_parent(signal.SIGKILL)
    parent = Path(f"/proc/{os.getppid()}/cmdline")
    if "TORCHELASTIC_RUN_ID" in os.environ and parent.exists() and b"torch" not in parent.read_bytes():
        os._exit(1)  # torchrun died while Python was starting, and another process adopted this one


def _train(run: Run, *, began: float, queued: float, profile_steps: str) -> None:
    mixture = _mixture(run)
    task = training_task(run, mixture)
    prefix = task.address()
    # For a job that a user applied, no launcher writes the record and closes the run.
    first = os.environ.get("RANK", "0") == "0"
    alone = first and mark_started(run, task)
    if first:
        _introduce(run, mixture, prefix)

    # These imports take seconds, and a wrong parameter should fail at once.
    from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
    from components.training.monitoring.profiling import parse_span
    from components.training.trainer_setup import build_trainer

    span = parse_span(profile_steps) if profile_steps else None
    ranks = join_ranks(hang_seconds=run.recipe.training.hang_timeout_seconds)
    with _closing(run, alone=alone) if first else nullcontext():
        build_trainer(run, mixture, ranks, prefix=prefix, began=began, queued=queued, profile=span).train()
    if first:
        shown = "" if run.id.startswith(f"{run.recipe.name}-") else f" --name {run.id}"
        logger.info("The checkpoint is committed: %s", run.store.uri(prefix))
        logger.info("Next: mantis run %s%s --store %s", run.recipe.name, shown, run.store.url)
    leave_ranks()


def _introduce(run: Run, mixture: Manifest, prefix: str) -> None:
    """Log recipe, learning rate, data and addresses: a TrainJob names only the run."""
    training = run.recipe.training
    logger.info(
        "Run %s of recipe %s: learning rate %g, %d samples a step, epochs %d, data %s, checkpoints at %s",
        run.id,
        run.recipe.name,
        training.learning_rate,
        training.global_batch_size,
        training.epochs,
        run.store.uri(mixture.key),
        run.store.uri(prefix),
    )


@contextmanager
def _closing(run: Run, *, alone: bool) -> Iterator[None]:
    """Close the run in MLflow with the state in which the training ends, if it is `alone`: no launcher closes the run.

    A stopped training closes its run in any case. A termination of KFP's run may leave no time for the task that closes
    it. A training that is only moved opens its run again.
    """
    try:
        yield
    except StoppedError:
        end_tracked_run(run, Status.KILLED)
        raise
    except BaseException:
        if alone:
            end_tracked_run(run, Status.FAILED)
        raise
    if alone:
        end_tracked_run(run, Status.FINISHED)


def _run(run: str, store_url: str, recipe: str) -> Run:
    """The run with its recipe: from a file, from a URL in the store, or from runs/<run>/recipe.yaml."""
    if not recipe:
        try:
            return open_run(run, store_url)
        except ConfigError as error:
            remedy = f"Prepare its data first: `mantis data prepare RECIPE --store {store_url}`. {error.remedy}"
            raise ConfigError(error.problem, remedy=remedy) from None
    store = open_store(store_url)
    if "://" not in recipe:
        return Run(id=run, store=store, recipe=load_recipe_file(Path(recipe)))
    text = store.get(key_of(store, recipe)).decode()
    return Run(id=run, store=store, recipe=parse_recipe(text, origin=recipe))


def _mixture(run: Run) -> Manifest:
    """The mixture that the run's step `assemble` made."""
    mixture = mixture_of(run)
    if mixture is None:
        raise ConfigError(
            f"run = {run.id!r} has no mixture in {run.store.url}.",
            remedy=f"Prepare its data first: `mantis data prepare {run.recipe.name} --store {run.store.url}`, with the "
            "options of its `mantis job`.",
        )
    return mixture


def _leave(error: BaseException) -> None:
    """Report the error and end at once: a rank that waits for its threads blocks the others in a collective."""
    leave_failure(error)
    if isinstance(error, MantisError):
        logger.log(logging.WARNING if isinstance(error, StoppedError) else logging.ERROR, "%s", error)
    else:
        logger.error("This rank failed", exc_info=error)
    end_process(STOPPED if isinstance(error, StoppedError) else 1)


if __name__ == "__main__":
    app()
