"""The ranks of this machine end with their launcher, however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

LAUNCHER = """
import pathlib, sys
from components.training.launch.launcher import _start
process = _start([sys.executable, "-c", "import time; time.sleep(600)"], pathlib.Path(sys.argv[1]))
print(process.pid, flush=True)
process.wait()
"""


def test_a_killed_launcher_takes_its_ranks_along(tmp_path: Path) -> None:
    """A rerun may start at once, and only one may write the checkpoint."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    rank = psutil.Process(int(launcher.stdout.readline()))
    try:
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        _, alive = psutil.wait_procs([rank], timeout=HANG_SECONDS)
        assert not alive
    finally:
        if rank.is_running():
            rank.kill()
        launcher.stdout.close()
