"""Which rank failed, and why: left by the ranks as small files, read by the launcher."""

import json
import os
import re
import signal
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from components.core.errors import MantisError, StoreError, TrainingError
from components.training.signals import StoppedError

FAILURES = "MANTIS_FAILURES"  # the folder in which ranks leave their failures
TERMINATION_LOG = "MANTIS_TERMINATION_LOG"  # the file that Kubernetes shows in the status of an ended container
LAST_LINES = 15
# Of torchrun's summary. Its "root cause" is no help: of ranks that ended within the same look, it is the first one.
# Signal 6 is left out: with it a process ends itself, mostly because another one did.
KILLED = re.compile(r"^\s*rank\s*:\s*(\d+).*\n\s*exitcode\s*:\s*-(?!6\b)(\d+)", re.MULTILINE)
KILLED_REMEDY = (
    "SIGKILL by nobody you know is mostly the machine being out of memory, SIGBUS a full /dev/shm: lower "
    "training.token_budget. The same command goes on from the last committed checkpoint."
)
SUMMARY_START = re.compile(r"ChildFailedError|Sending process \d+ closing signal|failed \(exitcode")
# How a rank sees another one die: gloo's words, the meeting store's, and NCCL's.
FOLLOWS = re.compile(
    r"Connection (was likely )?(closed|reset|refused)|Broken pipe|caused by a remote worker|timeout caused pair closure"
    r"|Timed out waiting \d+ ?ms for (recv|send)|communicator was aborted|ncclRemoteError|ncclSystemError"
    r"|Socket Timeout|No route to host",
    re.IGNORECASE,
)
LONGEST_PROBLEM = 1000  # characters: Kubernetes cuts a termination message off at 4 KiB, and half a JSON is none


class StalledError(TrainingError):
    """Nothing moved for too long: a machine or a network is to blame, and another attempt may well go on."""


class Failure(BaseModel):
    """One rank's last word."""

    rank: int
    at: float
    problem: str
    remedy: str = ""
    expected: bool  # an error of ours, meant for people
    passing: bool = False  # asked to stop, a rank lost, or the store away: the next attempt goes on

    @property
    def follows(self) -> bool:
        """Whether it only reports that another rank is gone."""
        return not self.expected and FOLLOWS.search(self.problem) is not None


def leave_failure(error: BaseException) -> None:
    """Write why this rank ends to where the launcher looks; without a launcher nothing is written."""
    expected = isinstance(error, MantisError)
    failure = Failure(
        rank=int(os.environ.get("RANK", "0")),
        at=time.time(),
        problem=error.problem if isinstance(error, MantisError) else _in_one_line(error),
        remedy=error.remedy if isinstance(error, MantisError) else "",
        expected=expected,
        passing=isinstance(error, StoppedError | StalledError | StoreError),
    )
    folder, log = os.environ.get(FAILURES), os.environ.get(TERMINATION_LOG)
    if folder and Path(folder).is_dir():
        (Path(folder) / f"rank-{failure.rank:05d}.json").write_text(failure.model_dump_json())
    # The ranks of a pod share one such file: the first that does not merely follow another has it.
    if log and not failure.follows and Path(log).exists() and not Path(log).read_text():
        Path(log).write_text(failure.model_dump_json())


def describe_failure(status: int, folder: Path, lines: Sequence[str]) -> TrainingError:
    """One error for a training whose launcher ended with `status`, from the ranks' files and the last `lines`."""
    failures = [Failure.model_validate(json.loads(path.read_text())) for path in sorted(folder.glob("rank-*.json"))]
    causes = sorted((failure for failure in failures if not failure.follows), key=lambda failure: failure.at)
    ours = [failure for failure in causes if failure.expected]
    if ours:
        return TrainingError(ours[0].problem, remedy=ours[0].remedy)
    killed = killed_rank(lines)
    if killed:
        return TrainingError(killed, remedy=KILLED_REMEDY)
    who = f"Rank {causes[0].rank} failed: {causes[0].problem}" if causes else f"torchrun ended with status {status}"
    return TrainingError(
        f"{who}. Its last lines:\n{last_lines(lines)}",
        remedy="The same command goes on from the last committed checkpoint.",
    )


def killed_rank(lines: Sequence[str]) -> str:
    """Which rank torchrun's report says a signal ended; empty where it says so of none.

    torchrun ends the others itself, but lists only those that had ended before.
    """
    killed = KILLED.search("\n".join(lines))
    return f"Rank {killed[1]} was killed by {signal.Signals(int(killed[2])).name}." if killed else ""


def _in_one_line(error: BaseException) -> str:
    """All of its words: libraries put the cause into the first of several lines, and advice into the last."""
    words = " ".join("".join(traceback.format_exception_only(error)).split())
    return words if len(words) <= LONGEST_PROBLEM else words[: LONGEST_PROBLEM - 4] + " ..."


def last_lines(lines: Sequence[str]) -> str:
    """The last of `lines` before torchrun's own report begins."""
    end = next((index for index, line in enumerate(lines) if SUMMARY_START.search(line)), len(lines))
    return "\n".join(lines[max(0, end - LAST_LINES) : end])
