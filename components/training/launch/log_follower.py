"""Follow the log of rank 0's pod, and show its lines and its progress on this terminal."""

import re
import sys
import threading
import time
from collections.abc import Callable

import urllib3
from kubernetes.client.exceptions import ApiException

from components.training.launch.kubernetes_client import Cluster, Pod
from mantis import progress
from mantis.logging import message_of

AGAIN_SECONDS = 1.0
SPARE_SECONDS = 30  # of log requested again after a broken connection; known lines are recognized by their time
FIRST_LINES = 500  # number of requested lines of a log that another process has followed before
# A line of mantis.progress: "training: 1,200 of 5,000 steps  3.1 steps/s  20:26 left  loss 0.1".
STEPS = re.compile(r"training: ([\d,]+) of ([\d,]+) (steps)\s+[\d.,]+ steps/s(?:\s+([\d:]+) left)?(.*)")


class FollowedLog:
    """Relays one pod's log from a thread: every line once, over any number of broken connections."""

    def __init__(self, cluster: Cluster, pod: Pod, relay: Callable[[str], None]) -> None:
        self.pod = pod
        self._cluster, self._relay = cluster, relay
        self._last = ""  # time of the last line, comparable as text
        self._heard: float | None = None  # arrival of the last line, by this machine's clock
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"log-{pod.name}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float = 20.0) -> None:
        """Relay the rest of the log after the pod has ended, for at most `seconds`."""
        self._leave.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        whole = False
        while not whole:
            leaving = self._leave.is_set()
            try:
                self._listen()
                whole = leaving  # this pass began after the pod had ended, and reached the end of the log
            except (ApiException, urllib3.exceptions.HTTPError, OSError):
                whole = leaving
            if not whole:
                self._leave.wait(AGAIN_SECONDS)

    def _listen(self) -> None:
        since = None if self._heard is None else int(time.monotonic() - self._heard) + SPARE_SECONDS
        lines = self._cluster.follow(
            self.pod.name, since_seconds=since, tail_lines=FIRST_LINES if since is None else None
        )
        for line in lines:
            stamp, _, text = line.partition(" ")
            moment = comparable(stamp)
            if moment > self._last:
                self._last, self._heard = moment, time.monotonic()
                self._relay(text)


def comparable(stamp: str) -> str:
    """Pad an RFC 3339 time to nine digits of a second, so that text order is time order; zeros may be missing."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


def show(line: str) -> None:
    """Print one line of the log unchanged, and update the progress bar of `mantis run` if the line counts steps.

    The line carries time, rank, run and step of its own process, so it gets no second prefix.
    """
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    told = STEPS.search(message_of(line))
    if told:
        done, total = (int(text.replace(",", "")) for text in told.group(1, 2))
        left = progress.seconds_of(told[4]) if told[4] else None
        note = told[5].strip()
        progress.publish(state="running", label="training", done=done, total=total, unit=told[3], left=left, note=note)
