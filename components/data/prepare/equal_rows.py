"""Gives every row a name of its own, and finds rows with equal content."""

from collections.abc import Iterable
from typing import Any

from components.data.sources.rejection import RowRejected, RowRepaired
from components.data.sources.rows.normal_row import CONTROL_OR_LINE, LONGEST_NAME


class RowNames:
    """Gives the rows of a subset unique names, in the order of the source.

    A row's name is its id. Many sets use an image's id for several conversations, and some count each of their parts
    from 0. So an id may repeat: the second row of `a` is named `a#2`.
    """

    def __init__(self) -> None:
        self._given: dict[str, int] = {}  # name -> how often rows asked for it

    def give(self, row: int, found: Any) -> tuple[str, tuple[RowRepaired, ...]]:
        """Name row number `row`, from 0, by its id `found`. A row without a usable id becomes `row-<number>`."""
        wanted, problem = _wanted(row, found)
        name = self._unused(wanted)
        repairs = (
            [RowRepaired(reason="id-malformed", value=problem, threshold="one line of text, at most 1,024 bytes")]
            if problem
            else []
        )
        if name != wanted:
            repairs.append(RowRepaired(reason="id-repeated", value=wanted, threshold=f"named {name}"))
        return name, tuple(repairs)

    def _unused(self, wanted: str) -> str:
        times = self._given.get(wanted, 0)
        name = wanted
        while name in self._given:
            times += 1
            name = f"{wanted}#{times}"
        self._given[name] = 1
        self._given[wanted] = max(times, 1)
        return name


class EqualRows:
    """Finds rows that repeat the content of an earlier row. Digests may be noted in any order."""

    def __init__(self, known: Iterable[tuple[int, str]]) -> None:
        self._first: dict[str, int] = {}
        for row, digest in known:
            self._first[digest] = min(row, self._first.get(digest, row))

    def check(self, row: int, digest: str) -> None:
        """Note the digest of row number `row`.

        Raises:
            RowRejected: an earlier row has the same digest.
        """
        first = self._first.setdefault(digest, row)
        if first < row:
            raise RowRejected("duplicate", value=f"the content of row {first}")
        self._first[digest] = row


def _wanted(row: int, found: Any) -> tuple[str, str]:
    """The name that a row asks for, and the problem with its id if it has an unusable one."""
    without = f"row-{row}"
    if found is None or found == "":
        return without, ""
    if isinstance(found, bool) or not isinstance(found, str | int):
        return without, f"{type(found).__name__} {str(found)[:60]!r}"
    try:
        size = len(str(found).encode())
    except UnicodeEncodeError as error:
        return without, f"not UTF-8 at character {error.start + 1}"
    if size > LONGEST_NAME:
        return without, f"{size:,} bytes: {str(found)[:60]!r}"
    control = CONTROL_OR_LINE.search(str(found))
    return (without, f"control character {control[0]!r}: {str(found)[:60]!r}") if control else (str(found), "")
