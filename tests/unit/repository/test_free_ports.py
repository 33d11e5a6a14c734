"""The ports that tests give to servers: two processes of the tests never get the same one."""

import subprocess
import sys

import pytest

from tests.helpers import loopback
from tests.helpers.loopback import free_port
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

PROGRAM = """
import sys
from tests.helpers import loopback
loopback.PORTS = range(int(sys.argv[1]), int(sys.argv[2]))
print(loopback.free_port())
"""


def of_another_process(ports: range) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, str(ports.start), str(ports.stop)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)


def test_a_port_is_given_to_one_process_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    alone = range(port, port + 1)
    assert f"no free port from {port} to {port}" in of_another_process(alone).stderr
    monkeypatch.setattr(loopback, "PORTS", alone)
    with pytest.raises(AssertionError, match="no free port"):
        free_port()


def test_the_port_of_a_process_that_ended_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(of_another_process(loopback.PORTS).stdout)
    monkeypatch.setattr(loopback, "PORTS", range(port, port + 1))
    assert free_port() == port
