from pathlib import Path
from typing import Any

import pytest

from components.training.launch.launcher import launcher
from components.training.monitoring.failures import (
    FAILURES,
    TERMINATION_LOG,
    Failure,
    StalledError,
    describe_failure,
    leave_failure,
)
from components.training.monitoring.signals import StoppedError
from mantis.config.training_settings import TrainingSettings
from mantis.errors import ConfigError, StoreError, TrainingError

KILLED = """
2026-11-23T00:41:12.345Z INFO [rank 0, run demo, step train] Training continues after step 8
E1123 00:41 api.py:984] failed (exitcode: -9) local_rank: 1 (pid: 915) of binary: python
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_00:41:16
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 915)
""".splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FAILURES, str(tmp_path))
    return tmp_path


def leave(monkeypatch: pytest.MonkeyPatch, rank: int, error: Any) -> None:
    monkeypatch.setenv("RANK", str(rank))
    leave_failure(error)


def test_our_own_error_is_passed_on_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 0, RuntimeError("Connection closed by peer [127.0.0.1]:1234"))
    leave(monkeypatch, 1, TrainingError("The loss of step 3 is nan.", remedy="Lower it."))
    error = describe_failure(1, folder, KILLED)
    assert str(error) == "The loss of step 3 is nan. Lower it."


def test_a_killed_rank_is_named_though_another_complained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 0, RuntimeError("Connection closed by peer [127.0.0.1]:1234"))
    assert str(describe_failure(1, folder, KILLED)).startswith("Rank 1 was killed by SIGKILL.")


GLOO = """[/src/gloo/transport/tcp/pair.cc:538] Read error [127.0.0.1]:57834: {}.
This is typically caused by a remote worker crashing.
Check the logs of the remote worker before reporting an error. Good luck!"""


@pytest.mark.parametrize("seen", ["Connection closed by peer", "Connection reset by peer", "anything new"])
def test_a_killed_rank_is_named_though_the_complaint_has_several_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    leave(monkeypatch, 0, RuntimeError(GLOO.format(seen)))
    assert str(describe_failure(1, folder, KILLED)).startswith("Rank 1 was killed by SIGKILL.")


BOTH = """
Failures:
[1]:
  time      : 2026-11-28_00:03:13
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 915)
  error_file: <N/A>
Root Cause (first observed failure):
[0]:
  time      : 2026-11-28_00:03:13
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 914)
""".splitlines()


def test_a_killed_rank_is_named_though_torchrun_saw_another_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 0, RuntimeError(GLOO.format("Connection closed by peer")))
    assert str(describe_failure(1, folder, BOTH)).startswith("Rank 1 was killed by SIGKILL.")


def test_a_long_complaint_fits_into_a_termination_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 0, RuntimeError("a frame of C++\n" * 1000))
    written = (folder / "rank-00000.json").read_bytes()
    assert len(written) < 4096
    assert Failure.model_validate_json(written).problem.startswith("RuntimeError: a frame of C++ a frame")


def test_a_bug_shows_the_lines_before_torchruns_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 2, ValueError("no such thing"))
    text = str(describe_failure(1, folder, [line.replace("exitcode  : -9", "exitcode  : 1") for line in KILLED]))
    assert "Rank 2 failed: ValueError: no such thing" in text
    assert "continues after step 8" in text
    assert "Root Cause" not in text


def test_without_any_word_the_status_is_told(folder: Path) -> None:
    assert "torchrun ended with status 2" in str(describe_failure(2, folder, ["usage: ..."]))


def test_the_local_launcher_starts_one_node() -> None:
    with pytest.raises(ConfigError, match=r"training\.nodes = 2.*training\.launcher = trainjob"):
        launcher(TrainingSettings(nodes=2))


def test_the_first_rank_of_a_pod_that_does_not_follow_has_its_termination_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "termination-log"
    log.touch()  # as the kubelet does
    monkeypatch.delenv(FAILURES, raising=False)
    monkeypatch.setenv(TERMINATION_LOG, str(log))
    leave(monkeypatch, 0, RuntimeError("Connection closed by peer [127.0.0.1]:1234"))
    assert log.read_text() == ""
    leave(monkeypatch, 1, TrainingError("The loss of step 3 is nan.", remedy="Lower it."))
    leave(monkeypatch, 2, ValueError("later"))
    failure = Failure.model_validate_json(log.read_text())
    assert (failure.rank, failure.expected, failure.passing) == (1, True, False)


@pytest.mark.parametrize("error", [StoppedError("asked to stop"), StalledError("nothing moved"), StoreError("away")])
def test_what_another_attempt_gets_over(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    leave(monkeypatch, 0, error)
    assert Failure.model_validate_json((folder / "rank-00000.json").read_text()).passing
