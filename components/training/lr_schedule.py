"""The learning rate as a pure function of the step."""

import math

from mantis.config.training_settings import ScheduleSettings


def learning_rate(step: int, *, steps: int, peak: float, schedule: ScheduleSettings) -> float:
    """Rate of step `step` (from 0) of `steps`: linear warm-up to `peak`, then the decay of `schedule`.

    The first step has a rate above 0. The number of warm-up steps is rounded up, as in transformers.
    """
    warmup = math.ceil(schedule.warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.kind == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    flat = max(warmup, math.floor(schedule.flat_ratio * steps))
    return peak * min(1.0, (steps - step) / max(1, steps - flat))
