"""The ledger lists every row that was dropped, repaired or noted, so that no data is lost silently."""

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.prepare.reasons import reason_of
from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.artifacts.layout import subset_of
from mantis.artifacts.manifest import Manifest
from mantis.errors import InputError
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
Action = Literal["dropped", "repaired", "noted"]


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


def noted(subset: str, row: int, name: str, note: RowRepaired) -> LedgerEntry:
    """Make the entry of a row that is kept as it is."""
    return _entry(subset, row, name, "noted", note)


class Ledger:
    """Collects and counts entries. A dropped row has exactly one `dropped` entry."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []

    @classmethod
    def load(cls, store: ObjectStore, prefix: str) -> Self:
        """Read `<prefix>/ledger.parquet`."""
        ledger = cls()
        rows = pq.read_table(io.BytesIO(store.get(f"{prefix}/{LEDGER}"))).to_pylist()
        ledger.extend(LedgerEntry(**row) for row in rows)
        return ledger

    def extend(self, entries: Iterable[LedgerEntry]) -> None:
        """Add the entries of another ledger."""
        self.entries.extend(entries)

    def drop(self, subset: str, row: int, name: str, refusal: RowRejected) -> None:
        self.entries.append(dropped(subset, row, name, refusal))

    def repair(self, subset: str, row: int, name: str, repair: RowRepaired) -> None:
        self.entries.append(repaired(subset, row, name, repair))

    @property
    def dropped(self) -> int:
        """Number of dropped rows."""
        return sum(entry.action == "dropped" for entry in self.entries)

    @property
    def unusable(self) -> int:
        """Number of dropped rows that count for `data.max_dropped`; see Reason.counts."""
        return sum(entry.action == "dropped" and reason_of(entry.reason).counts for entry in self.entries)

    @property
    def repaired(self) -> int:
        """Number of repaired rows. A row with several repairs counts once."""
        return len({(entry.subset, entry.row) for entry in self.entries if entry.action == "repaired"})

    def reasons(self) -> str:
        """Number of entries by reason, as text: `3 image-missing, 1 marks-missing`."""
        counts = Counter(entry.reason for entry in self.entries)
        return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) or "nothing"

    def remedy(self) -> str:
        """What a person can do about the reason that drops most rows, with its first row; empty if none is dropped."""
        drops = [entry for entry in self.entries if entry.action == "dropped"]
        if not drops:
            return ""
        most = Counter(entry.reason for entry in drops).most_common(1)[0][0]
        first = next(entry for entry in drops if entry.reason == most)
        limit = f" (allowed: {first.threshold})" if first.threshold else ""
        return f"{reason_of(most).remedy} The first row: {first.row}, {most}: {first.value}{limit}."

    def require_few(self, subset: str, rows: int, *, most: float, about: str = "") -> None:
        """Compare the dropped rows of a subset with the largest share that the recipe allows.

        Raises:
            InputError: more than the share `most` of `rows` was dropped, for reasons that count. It ends with `about`.
        """
        if self.unusable <= most * rows:
            return
        share = self.unusable / rows
        enough = min(1.0, math.ceil(share * 100) / 100)
        raise InputError(
            f"{subset}: {self.unusable:,} of {rows:,} rows cannot be used, {share:.1%} ({self.reasons()}). "
            f"data.max_dropped = {most:g} allows {most:.1%}.{about}",
            remedy=f"{self.remedy()} To go on without these rows: --set data.max_dropped={enough:g}.",
        )

    def save(self, store: ObjectStore, prefix: str) -> None:
        """Write `<prefix>/ledger.parquet`."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(entry) for entry in self.entries], schema=SCHEMA), buffer)
        store.put(f"{prefix}/{LEDGER}", buffer.getvalue())


def require_few_dropped(store: ObjectStore, dataset: Manifest, *, most: float) -> None:
    """Compare the rows that preparation dropped with the largest share that the recipe allows.

    Raises:
        InputError: see Ledger.require_few.
    """
    about = f" The source is read as {dataset.summary['form']}."
    ledger = Ledger.load(store, dataset.key)
    ledger.require_few(subset_of(dataset.key), int(dataset.summary["rows"]), most=most, about=about)


def require_few_untrainable(store: ObjectStore, mixture: Manifest, read: Mapping[str, int], *, most: float) -> None:
    """Compare the rows that the mixture leaves out with the largest share of the rows `read` from each subset.

    Raises:
        InputError: see Ledger.require_few.
    """
    whole = Ledger.load(store, mixture.key)
    for subset, rows in read.items():
        ledger = Ledger()
        ledger.extend(entry for entry in whole.entries if entry.subset == subset)
        ledger.require_few(subset, rows, most=most)


Reasons = dict[Action, dict[str, int]]


def count_reasons(store: ObjectStore, prefix: str) -> dict[str, Reasons]:
    """Count the rows in `<prefix>/ledger.parquet` by subset, action and reason, the most frequent reason first.

    A row with several entries of one reason counts once.
    """
    names = ["subset", "action", "reason", "row"]
    entries = pq.read_table(io.BytesIO(store.get(f"{prefix}/{LEDGER}")), columns=names)
    rows = entries.group_by(names).aggregate([])
    counts = rows.group_by(names[:3]).aggregate([([], "count_all")]).to_pylist()
    counted: dict[str, Reasons] = {}
    for row in sorted(counts, key=lambda row: (-row["count_all"], row["reason"])):
        of_subset = counted.setdefault(row["subset"], {"dropped": {}, "repaired": {}, "noted": {}})
        of_subset[row["action"]][row["reason"]] = row["count_all"]
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
