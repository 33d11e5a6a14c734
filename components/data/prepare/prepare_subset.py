"""Prepares one subset: checks every row, and keeps it in a Lance table or writes the reason to the ledger."""

import logging
from itertools import groupby

from components.data.prepare.fragments import (
    FRAGMENT_ROWS,
    SCHEMA,
    Fragment,
    FragmentWriter,
    content_of,
    read_fragments,
)
from components.data.prepare.ledger import Ledger
from components.data.prepare.near_duplicates import near_duplicates
from components.data.prepare.row_validator import RowLimits, RowValidator
from components.data.sources.source import RowSource
from mantis.artifacts.manifest import Number
from mantis.errors import InputError, IntegrityError
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import commit_fragments, open_table

logger = logging.getLogger(__name__)

DATA = "data.lance"


def prepare_subset(
    store: ObjectStore,
    prefix: str,
    subset: str,
    source: RowSource,
    *,
    limits: RowLimits,
    workers: int,
    fragment_rows: int = FRAGMENT_ROWS,
) -> dict[str, Number]:
    """Write `<prefix>/data.lance` and `<prefix>/ledger.parquet`. Returns the counts for the manifest.

    Fragments of an earlier attempt are kept. The result and its hash `content` do not depend on kills or on the number
    of workers. Memory holds a few rows per thread, a few batches, and the id and digest of every row.

    Raises:
        InputError: the source cannot be read, or none of its rows can be used.
        IntegrityError: the numbers of rows read, written and dropped do not agree.
    """
    recorded = read_fragments(store, prefix)
    if recorded:
        before = sum(part.rows for part in recorded.values())
        logger.info("%s: preparation continues after %s rows", subset, f"{before:,}")
    equals = [equal for fragment in recorded.values() for equal in fragment.equals]
    checker = RowValidator(subset, source, limits, workers, equals=equals)

    def first_of(number: int) -> int:
        return number - number % fragment_rows

    with FragmentWriter(store, prefix, f"{prefix}/{DATA}") as writer:
        outcomes = checker.outcomes(lambda number: first_of(number) not in recorded)
        for first, rows in groupby(outcomes, key=lambda outcome: first_of(outcome.number)):
            writer.write(first, rows)
        written = writer.finish()
    fragments = sorted([*recorded.values(), *written], key=lambda fragment: fragment.first)
    return _commit(store, prefix, subset, source, fragments, read=checker.read)


def _commit(
    store: ObjectStore, prefix: str, subset: str, source: RowSource, fragments: list[Fragment], *, read: int
) -> dict[str, Number]:
    """Commit all fragments as one table and one ledger."""
    ledger = Ledger()
    for fragment in fragments:
        ledger.extend(fragment.ledger)
    kept = sum(fragment.kept for fragment in fragments)
    if not kept:
        raise InputError(
            f"{source.url} ({source.described()}): none of {read} rows can be used ({ledger.reasons()}).",
            remedy=ledger.remedy() or "Put rows into the source.",
        )
    tables = [table for fragment in fragments for table in fragment.table]
    rows = commit_fragments(store, f"{prefix}/{DATA}", SCHEMA, tables)
    ledger.extend(near_duplicates(open_table(store, f"{prefix}/{DATA}"), subset))
    if rows != kept or kept + ledger.dropped != read:
        raise IntegrityError(
            f"{subset}: {read} rows were read, but {rows} were written and {ledger.dropped} dropped.",
            remedy=f"Delete {store.uri(prefix)} and run the step again. Report the problem if it comes back.",
        )
    ledger.save(store, prefix)
    logger.info("%s: kept %s of %s rows. Ledger: %s", subset, f"{kept:,}", f"{read:,}", ledger.reasons())
    return {
        "form": source.described(),
        "rows": read,
        "kept": kept,
        "dropped": ledger.dropped,
        "unusable": ledger.unusable,
        "repaired": ledger.repaired,
        "images": sum(fragment.images for fragment in fragments),
        "image_bytes": sum(fragment.image_bytes for fragment in fragments),
        "content": content_of(fragments),
    }
