"""The step `train`: from a mixture to a committed checkpoint."""

import time
from typing import Any

from components.core.artifacts import Kind, Manifest, Number
from components.core.steps import Run, Task, run_step
from components.models.mirrors import model_identity, weights_of

REVISION = 1


def training_task(run: Run, mixture: Manifest) -> Task:
    """What training is about to make; the launcher's side and every rank compute the same address from it."""
    recipe = run.recipe
    config: dict[str, Any] = {
        "model": model_identity(run.store, recipe.model),
        "training": recipe.training.identity(),
        "seed": recipe.seed,
    }
    return Task(
        step="train",
        kind=Kind.CHECKPOINT,
        revision=REVISION,
        config=config,
        inputs={"mixture": mixture, **weights_of(run.store, recipe.model)},
        address=lambda made: f"checkpoints/{made}",
    )


def train(run: Run, mixture: Manifest) -> Manifest:
    """The trained checkpoint of the run's recipe on `mixture`; goes on from the last committed step, if there is one.

    Raises:
        TrainingError: a rank failed, the loss is not finite, or training was asked to stop.
        ConfigError: `training.launcher` cannot do what the recipe asks for.
    """

    def work(prefix: str) -> dict[str, Number]:
        # Here, not above: where the result is already there, none of this is needed.
        from components.training.launchers import launcher
        from components.training.summary import read_summary, with_launching

        began = time.monotonic()
        launcher(run.recipe.training).launch(run, prefix)
        return with_launching(read_summary(run.store, prefix), time.monotonic() - began)

    return run_step(run, training_task(run, mixture), work)
