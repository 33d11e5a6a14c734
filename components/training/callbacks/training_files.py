"""The files that a training stores beside its checkpoints."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from components.training.batching.training_plan import PlanRecord
from components.training.callbacks.callback import Callback, TrainerView
from components.training.callbacks.goodput_timer import GoodputTimer
from components.training.callbacks.held_out_loss import HeldOutLoss
from components.training.callbacks.loss_spikes import LossSpikeGuard
from components.training.callbacks.metric_rows import MetricRows
from components.training.checkpointing.export import leave_files
from components.training.checkpointing.training_summary import write_summary
from components.training.engine.deepspeed_config import as_text
from components.training.engine.deepspeed_engine import DistributedContext, Engine
from components.training.monitoring.goodput import Cause
from components.training.monitoring.machines import machines
from mantis.artifacts.manifest import Number
from mantis.config.recipe import Recipe
from mantis.models.family import Family, Processor
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

ENGINE = "engine.json"


@dataclass(frozen=True, kw_only=True)
class EngineFile(Callback):
    """Logs the size of the training and stores engine.json and plan.json; on the first rank.

    Args:
        store: the object store.
        prefix: key of the training's folder.
        engine: the model in training, with DeepSpeed's options.
        plan: what the plan of its steps follows from.
        headline: one line on samples, steps and ranks.
    """

    name = "engine_file"

    store: ObjectStore
    prefix: str
    engine: Engine
    plan: PlanRecord
    headline: str

    def on_start(self, trainer: TrainerView) -> None:
        """Log and store."""
        logger.info("%s. DeepSpeed's settings:\n%s", self.headline, as_text(self.engine.options))
        options = [option.to_json() for option in self.engine.options]
        self.store.put(f"{self.prefix}/{ENGINE}", json.dumps(options, indent=1).encode())
        self.plan.save(self.store, self.prefix)


@dataclass(frozen=True, kw_only=True)
class ResultFiles(Callback):
    """Stores probe.safetensors, metrics.jsonl and the model folder when all steps are done; collective.

    Args:
        store: the object store.
        prefix: key of the training's folder.
        recipe: the recipe, with the model settings as resolved.
        ranks: this rank among all.
        family: the model family.
        engine: the model in training.
        processor: knows the tokenizer and the images.
        probe: computes the probe; collective.
        rows: the metrics rows.
    """

    name = "result_files"

    store: ObjectStore
    prefix: str
    recipe: Recipe
    ranks: DistributedContext
    family: Family
    engine: Engine
    processor: Processor
    probe: Callable[[], dict[str, Tensor]]
    rows: MetricRows

    def on_end(self, trainer: TrainerView) -> None:
        """Compute the probe on all ranks; the first rank stores the files."""
        probe = self.probe()
        if self.ranks.is_main:
            leave_files(
                self.store,
                self.prefix,
                recipe=self.recipe,
                engine=self.engine,
                family=self.family,
                processor=self.processor,
                probe=probe,
                rows=self.rows.rows,
            )


@dataclass(frozen=True, kw_only=True)
class SummaryFile(Callback):
    """Stores training.json, which marks the training as complete; collective.

    Its place in the list is behind every callback that still has something to send or store.

    Args:
        store: the object store.
        prefix: key of the training's folder.
        ranks: this rank among all.
        parameters: parameters of the model.
        rows: the metrics rows.
        guard: knows the skipped steps.
        goodput: knows the seconds by cause.
        held_out: knows the held-out losses; None if the recipe asks for none.
        attention: the kernel that computes attention within a packed row.
    """

    name = "summary_file"

    store: ObjectStore
    prefix: str
    ranks: DistributedContext
    parameters: int
    rows: MetricRows
    guard: LossSpikeGuard
    goodput: GoodputTimer
    held_out: HeldOutLoss | None
    attention: str

    def on_end(self, trainer: TrainerView) -> None:
        """Wait for all ranks; the first rank stores the file."""
        found = machines(self.ranks)
        if self.ranks.is_main:
            write_summary(self.store, self.prefix, self.summary(trainer) | found)

    def summary(self, trainer: TrainerView) -> dict[str, Number]:
        """The figures of the whole training; `seconds_<cause>` sum to its wall time."""
        state, rows, seconds = trainer.state, self.rows.rows, self.goodput.clock.seconds()
        looping = max(1e-9, sum(seconds[cause] for cause in (Cause.DATA, Cause.STEP, Cause.SAVE, Cause.OTHER)))
        return {
            "steps": state.step,
            "first_loss": rows[0]["loss"],
            "last_loss": rows[-1]["loss"],
            "samples": state.samples,
            "tokens": state.tokens,
            "samples_per_second": state.samples / looping,
            "tokens_per_second": state.tokens / looping,
            "parameters": self.parameters,
            "attention": self.attention,
            "steps_skipped": len(self.guard.skipped),
            "device_hours": self.goodput.device_seconds() / 3600,
            **(self.held_out.summary(state.step) if self.held_out else {}),
            **{f"seconds_{cause}": value for cause, value in seconds.items()},
        }
