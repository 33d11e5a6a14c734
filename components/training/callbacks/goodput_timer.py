"""Wall time by cause over all attempts, and the heartbeat that reports it to the next attempt."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, CallbackState, FinishedStep, TrainerView
from components.training.monitoring.goodput import Cause, GoodputClock, Heartbeat, HeartbeatTime


class GoodputTimer(Callback):
    """Counts the time of every phase on `clock` (seconds); `heartbeat` exists on the first rank only."""

    name = "goodput"

    def __init__(self, clock: GoodputClock, heartbeat: Heartbeat | None) -> None:
        self.clock = clock
        self._heartbeat = heartbeat
        self._earlier: dict[str, float] = {}

    def on_start(self, trainer: TrainerView) -> None:
        """Add the seconds of earlier attempts."""
        last = self._heartbeat.last if self._heartbeat else HeartbeatTime()
        self.clock.inherit(self._earlier, ran=last.seconds, queued=last.queued)
        self._beat()

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Count the time from now on for `phase`."""
        self.clock.enter(phase)
        if phase is Cause.EVALUATE:  # an evaluation may take as long as many steps
            self._beat()

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Update the heartbeat."""
        self._beat()
        return {}

    def on_end(self, trainer: TrainerView) -> None:
        """Delete the heartbeat: no later attempt will ask for it."""
        if self._heartbeat:
            self._heartbeat.close()

    def state_dict(self) -> CallbackState:
        """Seconds by cause over all attempts, up to now."""
        return {"seconds": self.clock.seconds()}

    def load_state_dict(self, state: CallbackState) -> None:
        """Keep the seconds of earlier attempts, up to the checkpoint."""
        self._earlier = dict(state["seconds"])

    def _beat(self) -> None:
        if self._heartbeat:
            self._heartbeat.beat(self.clock.seconds())
