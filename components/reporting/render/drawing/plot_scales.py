"""Scales with round ticks, for plots."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DURATIONS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # seconds


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A mapping of values from `low` to `high` to pixels from `start` to `end`; logarithmic if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`; values outside of the scale are drawn at its edge."""
        inside = min(self.high, max(self.low, value))
        move: Callable[[float], float] = math.log10 if self.log else float
        low, high = move(self.low), move(self.high)
        return self.start + (move(inside) - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return about four round values from `low` to `high`."""
        return _log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between `low` and `high`."""
    step = _round_step((high - low) / wanted)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def linear(values: Sequence[float], *, start: float, end: float) -> Scale:
    """Build a scale from zero to a round value above the highest."""
    highest = max(values, default=0.0)
    step = _round_step(highest / 4) if highest > 0 else 1.0
    high = step * math.ceil(highest / step - 1e-9) if highest > 0 else 1.0
    return Scale(low=min(0.0, min(values, default=0.0)), high=high, start=start, end=end)


def logarithmic(values: Sequence[float], *, start: float, end: float) -> Scale:
    """Build a logarithmic scale just around the values, which must be positive."""
    return Scale(low=min(values) * 0.8, high=max(values) * 1.25, start=start, end=end, log=True)


def duration_ticks(total: float) -> list[float]:
    """Return at most six ticks from zero to `total` seconds, in round units of time."""
    fitting = (step for step in DURATIONS if total / step <= 6)
    step = next(fitting, DURATIONS[-1] * math.ceil(total / DURATIONS[-1] / 6))
    return [number * step for number in range(math.floor(total / step) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 2.5, 5, 10) if rough <= factor * power * (1 + 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 5:
            return inside
    return inside[:: math.ceil(len(inside) / 5)]
