"""A task of a DAG on this machine dies with the process of the DAG, although a shell of KFP's stands between them."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mantis.runs.step_runner import DAG_PID
from tests.helpers.waiting import HANG_SECONDS

TASK = """
import os, pathlib, sys, time
from mantis.runs.step_runner import component_main
with component_main():
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(600)
"""
DAG = f"""
import os, subprocess, sys
os.environ[{DAG_PID!r}] = str(os.getpid())
shell = '"$1" -c "$0" "$2"; echo "the shell does not become its last command"'
subprocess.run(["sh", "-ec", shell, {TASK!r}, sys.executable, sys.argv[1]])
"""


def until(reached: "psutil.Process | Path") -> None:
    end = time.monotonic() + HANG_SECONDS
    while (
        reached.is_running() if isinstance(reached, psutil.Process) else not (reached.exists() and reached.read_text())
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's signals and pidfd are Linux's")
def test_a_task_ends_when_the_process_of_its_dag_is_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", DAG, str(noted)]) as dag:
        until(noted)
        task = psutil.Process(int(noted.read_text()))
        assert task.ppid() != dag.pid
        dag.kill()
    until(task)
