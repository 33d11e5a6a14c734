"""The log lines of two ranks can be told apart, and the launcher relays them as they are."""

import io
import json
import re
from collections import deque
from typing import Any

import pytest

from components.training.launch.launcher import _stream


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_lines_of_two_ranks_are_told_apart(
    torchrun: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    for name, value in (("MANTIS_LOG", form), ("MANTIS_RUN", "demo-1a"), ("MANTIS_STEP", "train")):
        monkeypatch.setenv(name, value)
    done = torchrun("log_from_ranks", 2)
    assert done.returncode == 0, done.stderr
    kept: deque[str] = deque()
    _stream(io.StringIO(done.stderr), kept)
    relayed = capsys.readouterr().err.splitlines()
    lines = sorted(line for line in relayed if "hello" in line)
    assert set(lines) <= set(done.stderr.splitlines())
    if form == "json":
        ranks = [json.loads(line)["rank"] for line in lines]
    else:
        found = [re.fullmatch(r"\S+Z INFO \[rank (\d), run demo-1a, step train\] hello", line) for line in lines]
        ranks = [int(each[1]) for each in found if each]
    assert sorted(ranks) == [0, 1]
