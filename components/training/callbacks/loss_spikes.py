"""Loss spikes: a step whose loss is not finite or jumps is skipped, or ends the training with its samples.

The judgement depends on the losses of earlier steps alone. The checkpoint keeps them, so a resumed run judges the same.
"""

import json
import logging
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from components.training.callbacks.callback import Callback, CallbackState
from mantis.errors import StoreError, TrainingError
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

SKIPPED = "skipped.jsonl"
LOSSES = 64  # a spike is measured by the median of this many earlier steps
LOSSES_NEEDED = 16
IDS_SHOWN = 32


@dataclass(kw_only=True)
class LossSpikeGuard(Callback):
    """Judges the loss of every step. It is a callback only so that the checkpoint keeps its memory.

    Args:
        spike: a loss above this multiple of the recent median is bad; None: only a loss that is not finite is bad.
        skips: number of bad steps to skip before training fails.
        ledger: stores a row for each skipped step; None on all ranks but the first.
        recent: losses of the last steps that were taken, newest last; at most 64.
        skipped: numbers of the skipped steps, from 1.
    """

    name = "loss_spikes"

    spike: float | None
    skips: int
    ledger: Callable[[dict[str, object]], None] | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES))
    skipped: list[int] = field(default_factory=list)

    def state_dict(self) -> CallbackState:
        """The recent losses and the skipped steps."""
        return {"recent": list(self.recent), "skipped": list(self.skipped)}

    def load_state_dict(self, state: CallbackState) -> None:
        """Continue with the memory of a checkpoint."""
        self.recent, self.skipped = deque(state["recent"], maxlen=LOSSES), list(state["skipped"])

    def problem(self, loss: float) -> str:
        """Why a step with this loss must not be taken; empty if it may."""
        if not math.isfinite(loss):
            return f"is {loss}"
        if self.spike is None or len(self.recent) < LOSSES_NEEDED:
            return ""
        usual = statistics.median(self.recent)
        return f"is {loss:.4g}, {loss / usual:.1f} times the usual {usual:.4g}" if loss > self.spike * usual else ""

    def accept(self, loss: float) -> None:
        """Remember the loss of a step that is taken."""
        self.recent.append(loss)

    def skip(self, step: int, what: str, ids: Sequence[str], *, loss: float = math.nan) -> None:
        """Count step `step` (from 1) as skipped because of the problem `what`; `ids` are the step's samples.

        Raises:
            TrainingError: no more steps may be skipped; names the step's samples.
        """
        if len(self.skipped) >= self.skips:
            raise bad_step(step, what, ids, skipped=len(self.skipped))
        self.skipped.append(step)
        logger.warning("Step %d is skipped (%d of at most %d skips): %s", step, len(self.skipped), self.skips, what)
        if self.ledger:
            self.ledger({"step": step, "reason": what, "loss": repr(loss), "samples": list(ids)})


def bad_step(step: int, what: str, ids: Sequence[str], *, skipped: int) -> TrainingError:
    """The error that names a bad step's samples."""
    more = len(ids) - IDS_SHOWN
    return TrainingError(
        f"In step {step} {what}; its samples: {', '.join(ids[:IDS_SHOWN])}{f' and {more} more' if more > 0 else ''}."
        f"{f' {skipped} steps were skipped before.' if skipped else ''}",
        remedy="Lower training.learning_rate, look at these samples, or allow steps to be skipped: "
        "training.max_skipped_steps. The same command tries again from the last checkpoint.",
    )


def record_skipped(store: ObjectStore, prefix: str, row: dict[str, object]) -> None:
    """Add a skipped step to `skipped.jsonl` beside the checkpoints; a repeated step replaces its row."""
    key = f"{prefix}/{SKIPPED}"
    try:
        lines = store.get(key).decode().splitlines() if store.stat(key) else []
        rows = [json.loads(line) for line in lines]
        rows = sorted([*(old for old in rows if old["step"] != row["step"]), row], key=lambda item: int(item["step"]))
        store.put(key, "".join(json.dumps(item) + "\n" for item in rows).encode())
    except StoreError as error:  # the checkpoint's state names the step, too
        logger.warning("The store did not take %s: %s", SKIPPED, error)
