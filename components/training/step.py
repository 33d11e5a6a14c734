"""The step `train`: from a mixture to a committed checkpoint."""

import time
from typing import Any

from components.core.artifacts import Kind, Manifest, Number, read_manifest
from components.core.steps import Run, Task, read_record, run_step
from components.models.mirrors import model_identity, weights_of
from components.training.accounting import seconds_so_far
from components.training.summary import is_whole, read_summary, with_launching

REVISION = 1


def training_task(run: Run, mixture: Manifest) -> Task:
    """What training is about to make; the launcher's side and every rank compute the same address from it."""
    recipe = run.recipe
    config: dict[str, Any] = {
        "model": model_identity(run.store, recipe.model),
        "training": recipe.training.identity(),
        "recipe": recipe.identity("seed"),
    }
    return Task(
        step="train",
        kind=Kind.CHECKPOINT,
        revision=REVISION,
        config=config,
        inputs={"mixture": mixture, **weights_of(run.store, recipe.model)},
        address=lambda made: f"checkpoints/{made}",
    )


def mixture_of(run: Run) -> Manifest | None:
    """What the run's `assemble` made; None where that was not there yet."""
    record = read_record(run.store, run.id, "assemble")
    return read_manifest(run.store, record.key) if record and record.key else None


def is_trained(run: Run) -> bool:
    """Whether the run's checkpoint is whole, as of a job that a person applied: then nothing is launched."""
    mixture = mixture_of(run)
    if mixture is None:
        return False
    task = training_task(run, mixture)
    return is_whole(run.store, task.address(task.fingerprint()))


def train(run: Run, mixture: Manifest) -> Manifest:
    """The trained checkpoint of the run's recipe on `mixture`; goes on from the last committed step, if there is one.

    Raises:
        TrainingError: a rank failed, the loss is not finite, or training was asked to stop.
        ConfigError: `training.launcher` cannot do what the recipe asks for.
    """

    def work(prefix: str) -> dict[str, Number]:
        # Here, not above: where the result is already there, it is not needed.
        from components.training.launchers import launcher

        before, began = seconds_so_far(run.store, prefix), time.monotonic()
        launcher(run.recipe.training).launch(run, prefix)
        return with_launching(read_summary(run.store, prefix), before=before, wall=time.monotonic() - began)

    return run_step(run, training_task(run, mixture), work)
