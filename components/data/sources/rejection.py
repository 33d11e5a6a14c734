"""Reasons for a row that is dropped or repaired."""

from dataclasses import dataclass


class RowRejected(Exception):  # noqa: N818 - a result of the check, not a failure of the program
    """A row cannot be used. `reason` is a fixed word, `value` was found, `threshold` is allowed."""

    def __init__(self, reason: str, *, value: object, threshold: str = "") -> None:
        super().__init__(reason)
        self.reason, self.value, self.threshold = reason, str(value), threshold


@dataclass(frozen=True, kw_only=True)
class RowRepaired:
    """A change of a row that is kept. The fields mean the same as in RowRejected."""

    reason: str
    value: str
    threshold: str
