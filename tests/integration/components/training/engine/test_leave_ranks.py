"""How a rank ends: what it wrote is there, its handlers ran, and no thread can abort it."""

import os
import subprocess
import sys

from tests.helpers.waiting import HANG_SECONDS

RANK = """
import atexit, threading, time
from components.training.engine.deepspeed_engine import join_ranks, leave_ranks

class Finalized:
    def __del__(self):
        print("finalized")

kept = Finalized()
join_ranks()
atexit.register(print, "handler")
threading.Thread(target=time.sleep, args=(600,)).start()
print("text without a line end", end="")
leave_ranks()
"""


def test_a_rank_ends_without_the_interpreters_finalization() -> None:
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RANK],
        env=os.environ | place,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.split("\n")[-2:]) == (0, ["text without a line endhandler", ""]), done.stderr
