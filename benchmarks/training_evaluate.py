"""Compute the held-out loss on two ZeRO-3 ranks, beside the forward passes of the training step as peer."""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row

GOAL = ">=0.9"
RANKS = 2


def evaluate(full: bool) -> Row:
    """Measure samples per second for the 128 samples of `training.step`; slower of two styles."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        on_ranks(RANKS, "training_evaluate_ranks", out, int(full))
        styles: dict[str, dict[str, Any]] = json.loads(out.read_text())
    worst = min(styles.values(), key=lambda figures: figures["ratio"])
    return Row(
        name="training.evaluate",
        peer=worst["peer"],
        ours=worst["ours"],
        ratio=worst["ratio"],
        unit="samples/s",
        goal=GOAL,
        details={"peer": "forward passes of a training step on the same micro-steps", "ranks": RANKS, "styles": styles},
    )
