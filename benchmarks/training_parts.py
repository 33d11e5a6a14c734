"""Run one optimizer step with learning rates per part, and with adapters beside a whole projector, on two ranks."""

import json
import tempfile
from pathlib import Path

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row

GOAL = "<=1.03"
RANKS = 2


def parts(full: bool) -> Row:
    """Measure seconds of a step with parts, and of the same step without; the slower of two kinds of training."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        on_ranks(RANKS, "training_parts_ranks", out, int(full))
        kinds: dict[str, dict[str, float]] = json.loads(out.read_text())
    worst = max(kinds.values(), key=lambda figures: figures["ratio"])
    return Row(
        name="training.parts",
        peer=worst["peer"],
        ours=worst["ours"],
        ratio=worst["ratio"],
        unit="s",
        goal=GOAL,
        details={
            "peer": "the same step with one learning rate; for `mixed`, adapters on the projector, too",
            "ranks": RANKS,
            "kinds": kinds,
        },
    )
