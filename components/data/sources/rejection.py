"""What is said about a row that cannot be used, or only after a repair."""

from dataclasses import dataclass


class RowRejected(Exception):  # noqa: N818 - an answer about a row, not a failure of the program
    """Why a row cannot be used: a fixed word, what was found, and what was allowed."""

    def __init__(self, reason: str, *, value: object, threshold: str = "") -> None:
        super().__init__(reason)
        self.reason, self.value, self.threshold = reason, str(value), threshold


@dataclass(frozen=True, kw_only=True)
class RowRepaired:
    """What was changed in a row that is kept; the fields as in Refusal."""

    reason: str
    value: str
    threshold: str
