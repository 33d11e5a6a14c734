"""Verifies a prepared dataset: reads and checks the rows of its source again, and compares them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from components.data.prepare.row_validator import RowResult, RowValidator, limits_of
from components.data.published.fetched import source_url
from components.data.sources.find import open_source
from components.data.sources.reading import reading_of
from mantis.artifacts.layout import subset_of
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.source_names import GENERATED
from mantis.errors import MantisError
from mantis.runs.step_runner import Run, open_run
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table

COLUMNS = ["row", "id", "roles", "contents", "learned", "weight", "paths", "sha256"]
MOST = 20  # differences that are listed; the rest is only counted


def check_origin(store: ObjectStore, dataset: Manifest) -> tuple[list[str], str]:
    """Compare the dataset with its source, which the recipe of the preparing run names.

    Returns one line per difference, and the reason why nothing could be compared (empty if the rows were compared).
    """
    subset = subset_of(dataset.key)
    try:
        run = open_run(dataset.made_by.run, store.url)
        if run.recipe.data.source == GENERATED:
            return [], "its rows were generated, so it has no source"
        differences = _differences(run, subset, dataset)
        named = list(islice(differences, MOST))
        left = sum(1 for _ in differences)
    except MantisError as error:
        return [], f"its source cannot be compared: {error.problem}"
    return [*named, *([f"{left} more rows of {subset} differ from the source"] if left else [])], ""


def _differences(run: Run, subset: str, dataset: Manifest) -> Iterator[str]:
    data = run.recipe.data
    source = open_source(source_url(run.store, data.source), subset, reading_of(data))
    limits = limits_of(data, subset)
    kept = _prepared(run.store, dataset)
    row = next(kept, None)
    for outcome in RowValidator(subset, source, limits, data.workers).outcomes(lambda number: True):
        expected = row if row is not None and row["row"] == outcome.number else None
        yield from (f"{source.url}, row {outcome.number}: {what}" for what in _compare(expected, outcome))
        if expected is not None:
            row = next(kept, None)
    if row is not None:
        yield f"{source.url} ends before row {row['row']}, which {dataset.key} was made from"


def _prepared(store: ObjectStore, dataset: Manifest) -> Iterator[dict[str, Any]]:
    table = open_table(store, f"{dataset.key}/data.lance")
    for batch in table.to_batches(columns=COLUMNS):
        yield from batch.to_pylist()


def _compare(prepared: dict[str, Any] | None, outcome: RowResult) -> Iterator[str]:
    """Yield the differences between a prepared row and the same row of the source today."""
    found = outcome.row
    if prepared is None and found is None:
        return
    if prepared is None:
        yield "was rejected when the dataset was prepared, and passes now"
        return
    if found is None:
        why = outcome.ledger[0]
        yield f"was kept when the dataset was prepared, and is rejected now: {why.reason} {why.value}".rstrip()
        return
    said = [list(turn) for turn in zip(prepared["roles"], prepared["contents"], prepared["learned"], strict=True)]
    if [list(turn) for turn in found.conversation.said] != said:
        yield "the text of its conversation has changed, or the turns that are learned"
    if found.conversation.weight != prepared["weight"]:
        yield f"its weight was {prepared['weight']:g}, and is now {found.conversation.weight:g}"
    if found.conversation.id != prepared["id"]:
        yield f"its id was {prepared['id']!r}, and is now {found.conversation.id!r}"
    images = [(image.path, image.sha256) for image in found.images]
    for (path, sha256), now in zip(zip(prepared["paths"], prepared["sha256"], strict=True), images, strict=False):
        if now != (path, sha256):
            yield f"the image {path} has changed: its SHA-256 differs from the recorded one"
    if len(images) != len(prepared["paths"]):
        yield f"it had {len(prepared['paths'])} images, and has now {len(images)}"
