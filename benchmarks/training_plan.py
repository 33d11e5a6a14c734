"""Plan an epoch of Mantis-Instruct on 16 ranks: measure balance, time, and memory."""

import resource
import time
from typing import Any

from benchmarks.rows import Row, meets
from benchmarks.training_lengths import CLIP, IDEFICS2, SIGLIP, Style, draw_epoch
from mantis.progress import track

GOAL, PATCH_GOAL, SECONDS_GOAL, MEMORY_GOAL = "<=1.03", "<=1.05", "<60", "<2"
RANKS, BATCH = 16, 128
# The longest sample's attention costs as much as 1,250 more tokens. The budget lets others be packed to that cost.
TOKENS, PATCHES = 9600, 65_536
STEPS = {False: 400, True: None}


def plan(full: bool) -> Row:
    """Measure critical path over mean for the worst of three families, with batch 1 per rank in data order as peer."""
    results = {style.name: _measure(style, STEPS[full]) for style in (IDEFICS2, CLIP, SIGLIP)}
    worst = max(results.values(), key=lambda result: result["critical_path"])
    return Row(
        name="training.plan",
        peer=worst["critical_path_batch_1"],
        ours=worst["critical_path"],
        ratio=worst["critical_path"],
        unit="of the mean",
        goal=GOAL,
        details={
            "families": results,
            "ranks": RANKS,
            "token_budget": TOKENS,
            "goals_met": all(
                meets(result["patches_computed"], PATCH_GOAL)
                and meets(result["epoch_seconds"], SECONDS_GOAL)
                and meets(result["peak_gb"], MEMORY_GOAL)
                for result in results.values()
            ),
            "limited_by": "the most expensive sample of a step, if it alone costs more than a rank's share; "
            "critical_path_bound is a lower bound for any partition of the same micro-steps' samples",
        },
    )


def _measure(style: Style, most: int | None) -> dict[str, Any]:
    import numpy as np

    from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan

    epoch = draw_epoch(style)
    cost = CostModel(quadratic=style.quadratic, patch=style.patch)
    made = SamplePlan(
        Lengths(tokens=epoch.tokens, patches=epoch.patches),
        seed=0,
        batch_size=BATCH,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=TOKENS, patches=PATCHES),
        cost=cost,
    )
    costs = cost(epoch.tokens, epoch.patches)
    critical = mean = official = bound = seconds = 0.0
    imageless = micro_steps = 0
    numbers = range(min(made.steps, most or made.steps))
    for step in track(numbers, label=style.name, total=len(numbers), unit="steps"):
        start = time.process_time()
        planned = made.step(step, world_size=RANKS)
        seconds += time.process_time() - start
        own = costs[planned.samples]
        mean += own.sum() / RANKS
        critical += own.sum() / RANKS / (1 - planned.idle)
        bound += max(own.sum() / RANKS, own.max())
        official += sum(own[at : at + RANKS].max() for at in range(0, len(own), RANKS))
        imageless += planned.imageless
        micro_steps += len(planned.ranks[0])
    dummy = int(np.mean(epoch.patches / epoch.images))
    needed = float(epoch.patches.mean() * BATCH * len(numbers))
    return {
        "critical_path": float(critical / mean),
        "critical_path_bound": float(bound / mean),
        "critical_path_batch_1": float(official / mean),
        "patches_computed": 1 + imageless * dummy / needed,
        "micro_steps": micro_steps / len(numbers),
        "samples": made.per_epoch,
        "epoch_seconds": seconds * made.steps / len(numbers),
        "measured_steps": len(numbers),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "tokens_per_sample": float(epoch.tokens.mean()),
    }
