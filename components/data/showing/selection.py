"""Which rows of a source or a prepared set are looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rows to look at: `read` rows for the plots, and `shown` conversations, or the rows numbered `rows`.

    Numbers count from 0, in the order of the source.
    """

    read: int = 1000
    shown: int = 5
    rows: tuple[int, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the rows that are shown."""
        return tuple(dict.fromkeys(self.rows)) or tuple(range(min(self.shown, self.read)))
