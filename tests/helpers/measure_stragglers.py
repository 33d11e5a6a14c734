"""Two ranks on a core each, the second of which shares its own with three others: what each row says, to stdout."""

import json
import os
import subprocess
import sys

from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
from components.training.monitoring.stragglers import LASTING, SLOW, Stragglers

ROWS = 60  # at most: other programs of the machine may slow the first rank for a while
BURN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main() -> None:
    ranks = join_ranks()
    core = sorted(os.sched_getaffinity(0))[ranks.rank]
    os.sched_setaffinity(0, {core})
    others = [subprocess.Popen([sys.executable, "-c", BURN, str(core)]) for _ in range(3 * ranks.rank)]
    try:
        stragglers = Stragglers(ranks)
        named = 0
        for _ in range(ROWS):
            row = stragglers.look({"data_seconds": 5.0 if ranks.rank == 0 else 0.0, "seconds": 20.0})
            if ranks.is_main:
                print(json.dumps(row), flush=True)
            named += row["slowest_rank"] == 1 and row["slowdown"] > SLOW  # equal on both ranks
            if named == LASTING:
                break
    finally:
        for other in others:
            other.kill()
    leave_ranks()


if __name__ == "__main__":
    main()
