"""SIGTERM (a preemption notice) and SIGINT (Ctrl-C): finish the step, save, leave."""

import signal
from types import FrameType

from components.core.errors import TrainingError

STOPPED = 143  # exit status of a rank that was asked to stop and saved: 128 + SIGTERM


class StoppedError(TrainingError):
    """Asked to stop by a signal; everything up to that step is saved."""


class StopRequest:
    """Remembers the first signal; the loop asks for it at every step boundary. A second one ends the process."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
