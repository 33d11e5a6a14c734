"""SIGTERM (a preemption notice) and SIGINT (Ctrl-C) stop a training: it finishes the step, saves, and ends."""

import signal
from types import FrameType

from mantis.errors import TrainingError

STOPPED = 143  # exit status of a rank that was asked to stop and saved: 128 + SIGTERM


class StoppedError(TrainingError):
    """A signal stopped the training; the state after its last step is saved."""


class PrunedError(TrainingError):
    """A training gave up as a hopeless trial of a sweep; the state after its last step is saved."""


class StopRequest:
    """Remembers the first signal, which `TrainStep` reads in every step. A second signal ends the process."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
