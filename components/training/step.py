"""The step `train`: from a mixture to a committed checkpoint."""

import time
from typing import Any

from components.training.checkpointing.training_summary import is_whole, read_summary, with_launching
from components.training.monitoring.goodput import seconds_so_far
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, Number, read_manifest
from mantis.models.weights.mirror import model_identity, weights_of
from mantis.runs.records import read_record
from mantis.runs.step_runner import Run, StepSpec, run_step

REVISION = 2


def training_task(run: Run, mixture: Manifest) -> StepSpec:
    """The step `train` of a run; the launcher and every rank compute the same address from it."""
    recipe = run.recipe
    config: dict[str, Any] = {
        "model": model_identity(run.store, recipe.model),
        "training": recipe.training.identity(),
        "recipe": recipe.identity("seed"),
    }
    return StepSpec(
        step="train",
        kind=ArtifactKind.CHECKPOINT,
        revision=REVISION,
        config=config,
        inputs={"mixture": mixture, **weights_of(run.store, recipe.model)},
    )


def mixture_of(run: Run) -> Manifest | None:
    """The mixture that the run's step `assemble` made; None if that step has not finished."""
    record = read_record(run.store, run.id, "assemble")
    return read_manifest(run.store, record.key) if record and record.key else None


def is_trained(run: Run) -> bool:
    """Whether the run's checkpoint is complete, e.g. by a job that a user applied; then nothing needs a launch."""
    mixture = mixture_of(run)
    if mixture is None:
        return False
    task = training_task(run, mixture)
    return is_whole(run.store, task.address())


def train(run: Run, mixture: Manifest) -> Manifest:
    """Train the run's recipe on `mixture`; resumes from the last committed step, if there is one.

    Raises:
        TrainingError: a rank failed, the loss is not finite, or training was asked to stop.
        ConfigError: `training.launcher` does not support the recipe.
    """

    def work(prefix: str) -> dict[str, Number]:
        # Imported here: a finished training does not need it.
        from components.training.launch.launcher import launcher

        before, began = seconds_so_far(run.store, prefix), time.monotonic()
        launcher(run.recipe.training).launch(run, prefix)
        return with_launching(read_summary(run.store, prefix), before=before, wall=time.monotonic() - began)

    return run_step(run, training_task(run, mixture), work)
