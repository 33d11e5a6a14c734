"""The ledger lists every row that was dropped or repaired, so that no data is lost silently."""

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.hashing import canonical_json
from mantis.store.base import ObjectStore

LEDGER = "ledger.parquet"
LONGEST_VALUE = 300  # characters: enough for a path or a message
SCHEMA = pa.schema(
    [
        ("subset", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
        ("threshold", pa.string()),
    ]
)
Action = Literal["dropped", "repaired"]


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One row of the ledger: the source row, the action, its reason, the value found and the threshold."""

    subset: str
    row: int
    id: str
    action: Action
    reason: str
    value: str
    threshold: str

    def line(self) -> str:
        """The entry as one line of JSON, for hashes."""
        return canonical_json(asdict(self)) + "\n"


def dropped(subset: str, row: int, name: str, refusal: RowRejected) -> LedgerEntry:
    """Make the entry of a row that is not kept."""
    return _entry(subset, row, name, "dropped", refusal)


def repaired(subset: str, row: int, name: str, repair: RowRepaired) -> LedgerEntry:
    """Make the entry of a row that is kept with a change."""
    return _entry(subset, row, name, "repaired", repair)


class Ledger:
    """Collects and counts entries. A dropped row has exactly one `dropped` entry."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []

    def extend(self, entries: Iterable[LedgerEntry]) -> None:
        """Add the entries of another ledger."""
        self.entries.extend(entries)

    def drop(self, subset: str, row: int, name: str, refusal: RowRejected) -> None:
        self.entries.append(dropped(subset, row, name, refusal))

    def repair(self, subset: str, row: int, name: str, repair: RowRepaired) -> None:
        self.entries.append(repaired(subset, row, name, repair))

    @property
    def dropped(self) -> int:
        return sum(entry.action == "dropped" for entry in self.entries)

    @property
    def repaired(self) -> int:
        """Number of repaired rows. A row with several repairs counts once."""
        return len({(entry.subset, entry.row) for entry in self.entries if entry.action == "repaired"})

    def reasons(self) -> str:
        """Number of entries by reason, as text: `3 image-missing, 1 marks-missing`."""
        counts = Counter(entry.reason for entry in self.entries)
        return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) or "nothing"

    def save(self, store: ObjectStore, prefix: str) -> None:
        """Write `<prefix>/ledger.parquet`."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(entry) for entry in self.entries], schema=SCHEMA), buffer)
        store.put(f"{prefix}/{LEDGER}", buffer.getvalue())


def count_reasons(store: ObjectStore, prefix: str) -> dict[Action, dict[str, int]]:
    """Count the entries of `<prefix>/ledger.parquet` by action and reason, the most frequent first."""
    table = pq.read_table(io.BytesIO(store.get(f"{prefix}/{LEDGER}")), columns=["action", "reason"])
    counts = Counter((row["action"], row["reason"]) for row in table.to_pylist())
    counted: dict[Action, dict[str, int]] = {"dropped": {}, "repaired": {}}
    for (action, reason), count in counts.most_common():
        counted[action][reason] = count
    return counted


def _entry(subset: str, row: int, name: str, action: Action, why: RowRejected | RowRepaired) -> LedgerEntry:
    return LedgerEntry(
        subset=subset,
        row=row,
        id=_shown(name),
        action=action,
        reason=why.reason,
        value=_shown(why.value),
        threshold=why.threshold,
    )


def _shown(text: str) -> str:
    """Cut `text` to LONGEST_VALUE characters of valid UTF-8."""
    return text[:LONGEST_VALUE].encode(errors="backslashreplace").decode()
