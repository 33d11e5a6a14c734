"""Train on 128 samples per step on two ZeRO-3 ranks, with transformers' Trainer as peer."""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row

GOAL = ">=1.3"  # over the Trainer's best batch size; the official training uses batch 1
RANKS = 2


def trainer(full: bool) -> Row:
    """Measure samples per second of the Trainer at its best batch size, and of the plan; worse of two styles."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        on_ranks(RANKS, "training_trainer_ranks", out, int(full))
        styles: dict[str, dict[str, Any]] = json.loads(out.read_text())
    worst = min(styles.values(), key=lambda figures: figures["ratio"])
    return Row(
        name="training.trainer",
        peer=worst["peer"],
        ours=worst["ours"],
        ratio=worst["ratio"],
        unit="samples/s",
        goal=GOAL,
        details={
            "peer": "transformers' Trainer with DeepSpeed and DataCollatorForSeq2Seq, the best of its batch sizes",
            "styles": styles,
            "where": "batch 1 pays ZeRO's collectives once per sample; larger batches pay for padding, for logits at "
            "every position and for a mask over all pairs; both wait for the rank with the longer samples",
        },
    )
