"""Wall time by cause over all attempts, the devices' time, and the heartbeat that reports to the next attempt."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, CallbackState, FinishedStep, TrainerView
from components.training.monitoring.goodput import Cause, GoodputClock, Heartbeat, HeartbeatTime


class GoodputTimer(Callback):
    """Counts the time of every phase on `clock` (seconds); `heartbeat` exists on the first rank only.

    `devices` is the number of ranks of this attempt. Another attempt may have had another number.
    """

    name = "goodput"

    def __init__(self, clock: GoodputClock, heartbeat: Heartbeat | None, *, devices: int) -> None:
        self.clock = clock
        self._heartbeat = heartbeat
        self._devices = devices
        self._earlier: dict[str, float] = {}
        self._earlier_device_seconds = 0.0

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
        """Seconds by cause over all attempts, and the devices' seconds, up to now."""
        return {"seconds": self.clock.seconds(), "device_seconds": self.device_seconds()}

    def load_state_dict(self, state: CallbackState) -> None:
        """Keep the seconds of earlier attempts, up to the checkpoint."""
        self._earlier = dict(state["seconds"])
        # A checkpoint of an earlier version of this program has no such figure.
        self._earlier_device_seconds = state.get("device_seconds", busy_seconds(self._earlier) * self._devices)

    def device_seconds(self) -> float:
        """Seconds that devices were taken, added up over all of them; the time in a queue does not count.

        Time of an earlier attempt that its checkpoint does not know counts for the devices of this attempt.
        """
        since = busy_seconds(self.clock.seconds()) - busy_seconds(self._earlier)
        return self._earlier_device_seconds + since * self._devices

    def _beat(self) -> None:
        if self._heartbeat:
            self._heartbeat.beat(self.clock.seconds())


def busy_seconds(seconds: Mapping[str, float]) -> float:
    """All seconds but those in a queue, in which no device is taken."""
    return sum(value for cause, value in seconds.items() if cause != Cause.QUEUE)
