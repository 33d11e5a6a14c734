"""Say as JSON what a process is, then end in the way that the first argument names."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mantis.processes import die_with_parent

AGAIN = [sys.executable, "-m", "tests.helpers.tell_about_process"]


def what_it_is() -> dict[str, Any]:
    return {
        "program": sys.argv,
        "interpreter": sys.orig_argv,
        "shown": [word for word in psutil.Process().cmdline() if word],
        "path": sys.path[0],
        "folder": str(Path.cwd()),
        "temporary": tempfile.gettempdir(),
        "variables": dict(os.environ),
        "parent": os.getppid(),
        "leads a session": os.getsid(0) == os.getpid(),
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "buffers": [(text.line_buffering, text.write_through) for text in (sys.stdout, sys.stderr)],  # type: ignore[union-attr]
        "was asked": sys.stdin.read(),
        "forked": "torch" in sys.modules,
    }


def raise_error() -> None:
    raise ValueError("as asked")


def interrupt() -> None:
    raise KeyboardInterrupt


def give_reason() -> None:
    sys.exit("a reason")


def fail() -> None:
    sys.exit(3)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def have_child() -> None:
    """Say what a child is, too."""
    done = subprocess.run([*AGAIN, "fail"], input="", capture_output=True, text=True)
    print(json.dumps({"child": json.loads(done.stdout), "status": done.returncode, "own": os.getpid()}))


def wait_for_child() -> None:
    """Leave a child's id in the working directory, and wait."""
    with subprocess.Popen([*AGAIN, "sleep"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        Path("child").write_text(str(child.pid))
        child.wait()


def sleep() -> None:
    """Sleep until the parent dies."""
    die_with_parent(signal.SIGKILL)
    print("ready", flush=True)
    time.sleep(600)


ENDS: dict[str, Callable[[], None]] = {
    end.__name__: end for end in (raise_error, interrupt, give_reason, fail, kill, have_child, wait_for_child, sleep)
}

if __name__ == "__main__":
    print(json.dumps(what_it_is()))
    print("an error", file=sys.stderr, flush=True)
    sys.stdout.flush()
    ENDS[sys.argv[1]]()
