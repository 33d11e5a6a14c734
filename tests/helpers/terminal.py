"""The command line in a terminal of a given width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.helpers.waiting import HANG_SECONDS


def on_terminal(*arguments: str, columns: int, cwd: Path, **more: str) -> str:
    """What a person sees in a terminal of this width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    child = subprocess.Popen(
        command, cwd=cwd, env=environment | {"NO_COLOR": "1", "TERM": "xterm"} | more, stdin=follower, stdout=follower,
        stderr=follower,
    )  # fmt: skip
    os.close(follower)
    seen = bytearray()
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other side has closed
            break
        if not part:
            break
        seen += part
    assert child.wait(HANG_SECONDS) == 0, seen.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode()).replace("\r\n", "\n")


def numbers_in(text: str) -> set[str]:
    """The numbers of a text, e.g. 1,234.5; a cut number is another number."""
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text))
