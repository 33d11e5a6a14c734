"""Run one rank of `training.parts`: `torchrun -m benchmarks.training_parts_ranks FILE FULL`."""

import copy
import json
import logging
import statistics
import sys
from functools import partial
from pathlib import Path

from benchmarks.training_lengths import IDEFICS2
from benchmarks.training_step_ranks import (
    KIND,
    SETUPS,
    TRAINING,
    Case,
    make_case,
    ratio_of_neighbours,
    timed,
    train,
)
from components.training.engine.deepspeed_engine import DistributedContext, build_engine, join_ranks, leave_ranks
from mantis.config.training_settings import AdapterSettings, PartSettings, TrainingSettings
from mantis.logging import configure

logger = logging.getLogger(__name__)

REPEATS = {False: 7, True: 15}
PARTS = {
    "vision": PartSettings(learning_rate=2e-6, weight_decay=0.0),
    "projector": PartSettings(learning_rate=1e-4),
    "text": PartSettings(weight_decay=0.1),
}
WITHOUT = TRAINING.model_copy(update={"weight_decay": 0.01})
ADAPTED = WITHOUT.model_copy(update={"train": ("projector", "text"), "adapter": AdapterSettings(kind="lora")})
MIXED = AdapterSettings(kind="lora", rslora=True, whole=("projector",))

# Kind of training -> its settings without and with what is measured.
KINDS: dict[str, tuple[TrainingSettings, TrainingSettings]] = {
    "parts": (WITHOUT, WITHOUT.model_copy(update={"parts": PARTS})),
    "mixed": (
        ADAPTED,
        ADAPTED.model_copy(update={"adapter": MIXED, "parts": {name: PARTS[name] for name in ("projector", "text")}}),
    ),
}


def main(out: str, full: str) -> None:
    """Measure every kind of training, and write the figures."""
    configure()
    ranks = join_ranks()
    case = make_case(IDEFICS2, SETUPS[IDEFICS2], ranks)
    figures = {name: measure(name, case, ranks, REPEATS[bool(int(full))]) for name in KINDS}
    if ranks.is_main:
        Path(out).write_text(json.dumps(figures))
    leave_ranks()


def measure(kind: str, case: Case, ranks: DistributedContext, repeats: int) -> dict[str, float]:
    """Measure the steps without and with in turn after a warm-up; medians. The ratio is that of neighbours."""
    engines = [build_engine(copy.deepcopy(case.model), KIND, settings) for settings in KINDS[kind]]
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        if ranks.is_main:
            logger.info("%s: %d of %d", kind, repeat, repeats)
        for engine, values in zip(engines, seconds, strict=True):
            found = timed(partial(train, engine, case.packed, ranks))
            if repeat:
                values.append(found)
    peer, ours = map(statistics.median, seconds)
    ratio = ratio_of_neighbours(seconds[1], seconds[0])
    return {"peer": peer, "ours": ours, "ratio": ratio, "groups": len(engines[1].groups)}


if __name__ == "__main__":
    main(*sys.argv[1:])
