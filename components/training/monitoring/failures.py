"""Which rank failed, and why: the ranks write small files, the launcher reads them."""

import json
import os
import re
import signal
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from components.training.monitoring.signals import StoppedError
from mantis.errors import MantisError, StoreError, TrainingError

FAILURES = "MANTIS_FAILURES"  # the folder in which ranks write their failures
TERMINATION_LOG = "MANTIS_TERMINATION_LOG"  # the file that Kubernetes shows in the status of an ended container
LAST_LINES = 15
# Matches torchrun's summary. Its "root cause" does not help: it is the first of the ranks that ended in one interval.
# Signal 6 is excluded: a process ends itself with it, mostly because another rank ended.
KILLED = re.compile(r"^\s*rank\s*:\s*(\d+).*\n\s*exitcode\s*:\s*-(?!6\b)(\d+)", re.MULTILINE)
KILLED_REMEDY = (
    "An unexpected SIGKILL mostly means that the machine is out of memory, SIGBUS that /dev/shm is full: lower "
    "training.token_budget. The same command goes on from the last committed checkpoint."
)
SUMMARY_START = re.compile(
    r"ChildFailedError|(Sending|Closing|Terminating) process \d+ (closing|via) signal|failed \(exitcode"
)
# Errors of a rank that lost another one: those of gloo, of the TCPStore, and of NCCL.
FOLLOWS = re.compile(
    r"Connection (was likely )?(closed|reset|refused)|Broken pipe|caused by a remote worker|timeout caused pair closure"
    r"|Timed out waiting \d+ ?ms for (recv|send)|communicator was aborted|ncclRemoteError|ncclSystemError"
    r"|Socket Timeout|No route to host",
    re.IGNORECASE,
)
LONGEST_PROBLEM = 1000  # characters: Kubernetes cuts a termination message at 4 KiB, and half a JSON object is useless


class StalledError(TrainingError):
    """Nothing moved for too long. A machine or the network is the likely cause, so another attempt may succeed."""


class Failure(BaseModel):
    """Why one rank ended."""

    rank: int
    at: float  # time.time()
    problem: str
    remedy: str = ""
    expected: bool  # an error of our own hierarchy
    passing: bool = False  # a stop signal, a lost rank, or a store that is away: the next attempt may succeed

    @property
    def final(self) -> bool:
        """Whether every further attempt would fail in the same way."""
        return self.expected and not self.passing

    @property
    def follows(self) -> bool:
        """Whether this failure only reports the loss of another rank."""
        return not self.expected and FOLLOWS.search(self.problem) is not None


def leave_failure(error: BaseException) -> None:
    """Write why this rank ends, for the launcher; without a launcher, write nothing."""
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
    # The ranks of a pod share one file: the first failure that does not follow another one gets it.
    if log and not failure.follows and Path(log).exists() and not Path(log).read_text():
        Path(log).write_text(failure.model_dump_json())


def parse_failure(text: str) -> Failure | None:
    """The failure in the text of a termination log; None for an ordinary log, even one that begins with a brace."""
    if not text.startswith("{"):
        return None
    try:
        return Failure.model_validate_json(text)
    except ValidationError:
        return None


def describe_failure(status: int, folder: Path, lines: Sequence[str]) -> TrainingError:
    """One error for a failed training, from the launcher's exit `status`, the ranks' files and the last log `lines`."""
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
    """The rank that a signal ended, by torchrun's report; empty if the report names none.

    torchrun ends the other ranks itself, but its report lists only ranks that had ended before.
    """
    killed = KILLED.search("\n".join(lines))
    return f"Rank {killed[1]} was killed by {signal.Signals(int(killed[2])).name}." if killed else ""


def _in_one_line(error: BaseException) -> str:
    """The whole message in one line: libraries put the cause into any of several lines."""
    words = " ".join("".join(traceback.format_exception_only(error)).split())
    return words if len(words) <= LONGEST_PROBLEM else words[: LONGEST_PROBLEM - 4] + " ..."


def last_lines(lines: Sequence[str]) -> str:
    """The last of the log `lines` before torchrun's own report."""
    end = next((index for index, line in enumerate(lines) if SUMMARY_START.search(line)), len(lines))
    return "\n".join(lines[max(0, end - LAST_LINES) : end])
