"""How fast this machine runs Python now: a bound on time is a multiple of it, so that a slow machine passes, too."""

import time
from collections.abc import Callable

ROUNDS = 200_000  # take about 10 ms


def processor_seconds(work: Callable[[], object], *, times: int = 1) -> float:
    """Processor seconds of this process for one call of `work`: the least of `times` calls."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def reference_seconds() -> float:
    """Processor seconds for ROUNDS rounds of a plain loop."""
    return processor_seconds(_loop, times=5)


def _loop() -> int:
    total = 0
    for number in range(ROUNDS):
        total += number & 7
    return total
