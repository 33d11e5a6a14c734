"""Collect the subsets, ledgers, licences and image comparison of the data mixture."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.report_schema import Contamination, LedgerReason, LedgerRow, LicenceNotice, Subset
from mantis.artifacts.layout import ArtifactKind, subset_of
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.errors import StoreError
from mantis.runs.records import read_record
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form
from mantis.store.lance_tables import open_table

Row = TypeVar("Row", bound=BaseModel)

EXAMPLES = 3
LEDGER_FIELDS = ("subset", "row", "id", "action", "reason", "value", "threshold")


def subsets_of(reader: Reader, datasets: Sequence[Manifest], mixture: Manifest | None) -> tuple[Subset, ...]:
    """Return one row per subset of the mixture: the rows that preparation kept, and the content of an epoch."""
    prepared = {subset_of(dataset.key): dataset.summary for dataset in datasets}
    epoch = _epoch(reader, mixture) if mixture else None
    skills = {row.get("name"): row.get("skill") for row in _described(reader, mixture)}
    names = sorted({*prepared, *(epoch or {})})

    def count(name: str, field: str) -> int | None:
        value = prepared.get(name, {}).get(field)
        return value if isinstance(value, int) else None

    def in_epoch(name: str, field: str) -> int | None:
        return None if epoch is None else epoch.get(name, {}).get(field, 0)

    return tuple(
        Subset(
            name=name,
            skill=skills.get(name) or "",
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


def _described(reader: Reader, mixture: Manifest | None) -> list[dict[str, Any]]:
    return reader.json_rows(mixture, "subsets.json", Form.MIXTURE_SUBSETS, "subsets") if mixture else []


def licences_of(reader: Reader, mixture: Manifest | None) -> tuple[LicenceNotice, ...]:
    """Return the terms of those subsets of the mixture that are published data sets."""
    rows = [{"subset": row.get("name"), **row["licence"]} for row in _described(reader, mixture) if row.get("licence")]
    return tuple(_valid(reader, LicenceNotice, rows, "subsets.json"))


def base_licences_of(reader: Reader, manifests: Sequence[Manifest]) -> tuple[LicenceNotice, ...]:
    """Return the terms of the published weights that training started from, as recorded when they were fetched."""
    sources = [manifest.summary for manifest in manifests if manifest.kind is ArtifactKind.SOURCE]
    found = [summary for summary in sources if "model" in summary]
    rows = [
        {
            "subset": summary.get("model"),
            "name": summary.get("licence"),
            "terms": summary.get("terms"),
            "forbids": tuple(str(summary.get("forbids", "")).split()),
            "origin": summary.get("origin", ""),
        }
        for summary in found
    ]
    return tuple(_valid(reader, LicenceNotice, rows, "a base's manifest"))


def contamination_of(reader: Reader, run: Run) -> tuple[Contamination, ...]:
    """Return the images that the benchmarks and the training data share, one row per benchmark."""
    record = read_record(run.store, run.id, "contamination")
    found = read_manifest(run.store, record.key) if record and record.key else None
    if found is None:
        reader.note("This run did not compare benchmark images with training images.")
        return ()
    hits = reader.parquet(found, "hits.parquet")
    rows = [
        row | {"examples": [_words(hit) for hit in hits if hit["benchmark"] == row.get("benchmark")][:EXAMPLES]}
        for row in reader.json_rows(found, "benchmarks.json", Form.CONTAMINATION, "benchmarks")
    ]
    return tuple(_valid(reader, Contamination, rows, "benchmarks.json"))


def _valid(reader: Reader, kind: type[Row], rows: Sequence[dict[str, Any]], name: str) -> Iterator[Row]:
    for number, row in enumerate(rows):
        try:
            yield kind.model_validate(row)
        except ValidationError as error:
            reader.note(f"{name}, row {number}: {error.errors()[0]['msg']}; the row is left out.")


def _words(hit: dict[str, Any]) -> str:
    how = "is" if hit["match"] == "exact" else f"resembles ({hit['distance']} of 256 bits differ)"
    return f"{hit['image']} {how} {hit['path']} of {hit['subset']}, row {hit['row']}"


def _epoch(reader: Reader, mixture: Manifest) -> dict[str, dict[str, int]] | None:
    """Count samples, images and tokens of an epoch, by subset; None if the index cannot be read."""
    try:
        table = open_table(reader.store, f"{mixture.key}/index.lance")
        index = table.to_table(columns=["subset", "images", "tokens"])
    except StoreError:
        reader.note(f"{mixture.key}/index.lance cannot be read, so the content of an epoch is not shown.")
        return None
    sums = index.group_by("subset").aggregate([("images", "sum"), ("tokens", "sum"), ("subset", "count")])
    return {
        row["subset"]: {"samples": row["subset_count"], "images": row["images_sum"], "tokens": row["tokens_sum"]}
        for row in sums.to_pylist()
    }


def ledger_reasons(reader: Reader, artifacts: Sequence[Manifest]) -> tuple[LedgerReason, ...]:
    """Group the ledgers of `artifacts` (datasets, mixture) by subset, action and reason, the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for artifact in artifacts:
        for row in reader.parquet(artifact, "ledger.parquet"):
            if any(field not in row for field in LEDGER_FIELDS):
                reader.note(f"{artifact.key}/ledger.parquet lacks one of the columns {', '.join(LEDGER_FIELDS)}.")
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
