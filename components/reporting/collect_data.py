"""The data mixture and its ledgers."""

from collections.abc import Sequence
from typing import Any

from components.core.artifacts import Manifest
from components.core.errors import StoreError
from components.core.store import key_of
from components.core.tables import open_table
from components.reporting.addresses import subset_of
from components.reporting.reading import Reader
from components.reporting.view import LedgerReason, LedgerRow, Subset

EXAMPLES = 3
LEDGER_FIELDS = ("subset", "row", "id", "action", "reason", "value", "threshold")


def subsets_of(reader: Reader, datasets: Sequence[Manifest], mixture: Manifest | None) -> tuple[Subset, ...]:
    """One row per subset of the mixture: what preparation kept of it, and what an epoch holds."""
    prepared = {subset_of(reader.store, dataset): dataset.summary for dataset in datasets}
    epoch = _epoch(reader, mixture) if mixture else None
    names = sorted({*prepared, *(epoch or {})})

    def count(name: str, field: str) -> int | None:
        value = prepared.get(name, {}).get(field)
        return value if isinstance(value, int) else None

    def in_epoch(name: str, field: str) -> int | None:
        return None if epoch is None else epoch.get(name, {}).get(field, 0)

    return tuple(
        Subset(
            name=name,
            rows=count(name, "rows"),
            kept=count(name, "kept"),
            dropped=count(name, "dropped"),
            repaired=count(name, "repaired"),
            samples=in_epoch(name, "samples"),
            images=in_epoch(name, "images"),
            tokens=in_epoch(name, "tokens"),
        )
        for name in names
    )


def _epoch(reader: Reader, mixture: Manifest) -> dict[str, dict[str, int]] | None:
    """Samples, images and tokens of an epoch by subset; None where the index cannot be read."""
    try:
        table = open_table(reader.store, f"{key_of(reader.store, mixture.uri)}/index.lance")
        index = table.to_table(columns=["subset", "images", "tokens"])
    except StoreError:
        reader.note(f"{mixture.uri}/index.lance cannot be read: what an epoch holds is not shown.")
        return None
    sums = index.group_by("subset").aggregate([("images", "sum"), ("tokens", "sum"), ("subset", "count")])
    return {
        row["subset"]: {"samples": row["subset_count"], "images": row["images_sum"], "tokens": row["tokens_sum"]}
        for row in sums.to_pylist()
    }


def ledger_reasons(reader: Reader, artifacts: Sequence[Manifest]) -> tuple[LedgerReason, ...]:
    """The ledgers of `artifacts` (datasets, mixture) by subset, action and reason; the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for artifact in artifacts:
        for row in reader.parquet(artifact, "ledger.parquet"):
            if any(field not in row for field in LEDGER_FIELDS):
                reader.note(f"{artifact.uri}/ledger.parquet lacks one of the columns {', '.join(LEDGER_FIELDS)}.")
                break
            group = (row["subset"], artifact.made_by.step, row["action"], row["reason"])
            groups.setdefault(group, []).append(row)
    reasons = [
        LedgerReason(
            subset=subset,
            step=step,
            action=action,
            reason=reason,
            count=len(rows),
            examples=tuple(
                LedgerRow(row=row["row"], id=row["id"], value=row["value"], threshold=row["threshold"])
                for row in rows[:EXAMPLES]
            ),
        )
        for (subset, step, action, reason), rows in groups.items()
    ]
    return tuple(sorted(reasons, key=lambda reason: (-reason.count, reason.subset, reason.reason)))
