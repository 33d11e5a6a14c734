"""Run one optimizer step on two ZeRO-3 ranks, with the official batch 1 with accumulation as peer."""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row

GOAL = ">=1.7"
ANY_SIZE_GOAL = ">=2.5"
RANKS = 2


def step(full: bool) -> Row:
    """Measure samples per second for 128 samples with an eighth of Mantis-Instruct's lengths; slower of two styles."""
    return _row("training.step", GOAL, full)


def any_size(full: bool) -> Row:
    """Measure the same for the lengths of Qwen3-VL, whose images have many sizes, with the family itself."""
    return _row("training.step.qwen3-vl", ANY_SIZE_GOAL, full, "qwen3-vl")


def _row(name: str, goal: str, full: bool, *styles_named: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        on_ranks(RANKS, "training_step_ranks", out, int(full), *styles_named)
        styles: dict[str, dict[str, Any]] = json.loads(out.read_text())
    worst = min(styles.values(), key=lambda figures: figures["ratio"])
    return Row(
        name=name,
        peer=worst["peer"],
        ours=worst["ours"],
        ratio=worst["ratio"],
        unit="samples/s",
        goal=goal,
        details={"peer": "batch 1 with accumulation, through the same engine", "ranks": RANKS, "styles": styles},
    )
