"""A clock that only its user moves, so that no delay of the machine counts."""


class FakeClock:
    """Stands for the module `time` in one module. Sleeping returns at once and moves the clock."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
