"""The processes that a test starts, each with a group of its own."""

import os
import signal
import subprocess
from collections.abc import Iterable
from typing import Any


def kill_groups(children: Iterable["subprocess.Popen[Any]"]) -> None:
    """Kill those of the children that still run, with everything that they started."""
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
