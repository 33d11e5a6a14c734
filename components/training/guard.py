"""What is done about a step whose loss is not finite or jumps: stop with its samples, or leave it out and say so.

The judgement depends on the losses of the steps before alone, which a checkpoint keeps: a resumed run judges the same.
"""

import json
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from components.core.errors import StoreError, TrainingError
from components.core.progress import say
from components.core.store import ObjectStore

SKIPPED = "skipped.jsonl"
LOSSES = 64  # the median of so many steps before is what a spike is measured by
LOSSES_NEEDED = 16
IDS_SHOWN = 32


@dataclass(kw_only=True)
class Guard:
    """Judges the loss of every step.

    Args:
        spike: a loss above this multiple of the median of the steps before is bad; None: only one that is not finite.
        skips: so many bad steps may be left out; one more ends the training.
        recent: losses of the steps before, newest last.
        skipped: steps that were left out.
    """

    spike: float | None
    skips: int
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES))
    skipped: list[int] = field(default_factory=list)

    def resume(self, recent: Sequence[float], skipped: Sequence[int]) -> None:
        """Go on from what a checkpoint kept."""
        self.recent, self.skipped = deque(recent, maxlen=LOSSES), list(skipped)

    def problem(self, loss: float) -> str:
        """Why a step with this loss must not be taken; empty where it may."""
        if not math.isfinite(loss):
            return f"is {loss}"
        if self.spike is None or len(self.recent) < LOSSES_NEEDED:
            return ""
        usual = statistics.median(self.recent)
        return f"is {loss:.4g}, {loss / usual:.1f} times the usual {usual:.4g}" if loss > self.spike * usual else ""

    def accept(self, loss: float) -> None:
        """Remember the loss of a step that was taken."""
        self.recent.append(loss)

    def skip(self, step: int, what: str, ids: Sequence[str]) -> None:
        """Count step `step` (from 1) as left out.

        Raises:
            TrainingError: no more may be; names the step's samples.
        """
        if len(self.skipped) >= self.skips:
            raise bad_step(step, what, ids, skipped=len(self.skipped))
        self.skipped.append(step)
        say(f"STEP {step} IS LEFT OUT ({len(self.skipped)} of {self.skips}): {what}")


def bad_step(step: int, what: str, ids: Sequence[str], *, skipped: int) -> TrainingError:
    """The error that names a bad step's samples."""
    more = len(ids) - IDS_SHOWN
    return TrainingError(
        f"In step {step} {what}; its samples: {', '.join(ids[:IDS_SHOWN])}{f' and {more} more' if more > 0 else ''}."
        f"{f' {skipped} steps were left out before.' if skipped else ''}",
        remedy="Lower training.learning_rate, look at these samples, or let steps be left out: "
        "training.max_skipped_steps. The same command tries again from the last checkpoint.",
    )


def record_skipped(store: ObjectStore, prefix: str, row: dict[str, object]) -> None:
    """A ledger row of a step that was left out: `skipped.jsonl` beside the checkpoints, each step once."""
    key = f"{prefix}/{SKIPPED}"
    try:
        lines = store.get(key).decode().splitlines() if store.stat(key) else []
        rows = [json.loads(line) for line in lines]
        rows = sorted([*(old for old in rows if old["step"] != row["step"]), row], key=lambda item: int(item["step"]))
        store.put(key, "".join(json.dumps(item) + "\n" for item in rows).encode())
    except StoreError as error:  # the step is in the checkpoint's state too
        say(f"{SKIPPED}: {error}")
