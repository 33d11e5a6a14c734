"""Assembles the mixture: chooses the rows of an epoch and counts the tokens of each sample."""

import json
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from components.data.mixture.epochs import SourceRows, epoch_of
from components.data.mixture.holdout import Positions, held_out_positions, kept_rows, write_held_out
from components.data.mixture.lengths import Batch, Counter, Length, LengthPool, Untrainable
from components.data.prepare.ledger import Ledger
from components.data.published.published_sets import published, skill_of
from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.artifacts.held_out import HELD_OUT_INDEX
from mantis.artifacts.manifest import Manifest, Number
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import INDEX, conversation_of
from mantis.errors import InputError
from mantis.models.processing.chat_templates import load_chat_template, render
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.weights.loading import base_tokenizer, model_folder
from mantis.models.weights.mirror import resolved
from mantis.progress import Progress
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore, delete_tree, upload_tree
from mantis.store.lance_tables import open_table, write_table

logger = logging.getLogger(__name__)

SUBSETS = "subsets.json"
SCHEMA = pa.schema(
    [
        ("subset", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("turns", pa.int32()),
        ("tokens", pa.int32()),
        ("targets", pa.int32()),
        ("images", pa.int32()),
        ("patches", pa.int32()),
        ("learned_from", pa.int32()),
        ("weight", pa.float64()),
    ]
)
TEXT = ["row", "id", "roles", "contents", "learned", "weight", "widths", "heights"]
TOO_MANY = "images-too-many"  # the reason of rows that `max_images` leaves out
ROWS_AT_ONCE = 512
CHARACTERS_AT_ONCE = 1 << 19  # of one batch: a token costs a process 200 bytes while its batch is counted
TABLES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rows of one subset in an epoch. `rows` has each row once, `visits` has it once per visit in the epoch."""

    subset: str
    table: Any  # lance.LanceDataset
    rows: NDArray[np.int64]
    visits: NDArray[np.int64]

    def batches(self) -> Iterator[Batch]:
        """Read the chosen rows in order, without their images."""
        for start in range(0, len(self.rows), ROWS_AT_ONCE):
            part = self.rows[start : start + ROWS_AT_ONCE].tolist()
            yield from _of_bounded_text(self.table.take(part, columns=TEXT).to_pylist())


def _of_bounded_text(rows: Batch) -> Iterator[Batch]:
    """Split rows into batches of at most CHARACTERS_AT_ONCE characters. A longer row is a batch of its own."""
    batch: Batch = []
    characters = 0
    for row in rows:
        longer = sum(map(len, row["contents"]))
        if batch and characters + longer > CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
        batch.append(row)
        characters += longer
    if batch:
        yield batch


def assemble_mixture(run: Run, datasets: Mapping[str, Manifest], prefix: str) -> dict[str, Number]:
    """Write index, tokenizer and ledger of the mixture below `prefix`. Returns the counts for the manifest.

    Raises:
        InputError: no sample fits into `data.context_length`, or no row is left for training.
    """
    recipe, store = run.recipe, run.store
    every = {subset: open_table(store, f"{dataset.key}/data.lance") for subset, dataset in datasets.items()}
    tables = {subset: table for subset, table in every.items() if not recipe.data.subset(subset).held_out}
    held_out = held_out_positions(tables, recipe.data.holdout)
    if recipe.data.holdout:
        write_held_out(store, prefix, tables, held_out)
    with LengthPool(recipe.data.workers) as pool, tempfile.TemporaryDirectory() as folder:
        chosen = _choose(run, datasets, tables, held_out)
        tokenizer = mixture_tokenizer(store, recipe, (batch for part in chosen for batch in part.batches()))
        tokenizer.save_pretrained(folder)
        delete_tree(store, f"{prefix}/tokenizer")
        upload_tree(store, f"{prefix}/tokenizer", Path(folder))
        counter = Counter(
            model=recipe.model,
            tokenizer_folder=folder,
            context_length=recipe.data.context_length,
            learn=recipe.data.learn,
        )
        ledger = Ledger()
        index = _whole_index(pool, counter, chosen, ledger)
        if recipe.data.holds_out:
            kept_out = _whole_index(pool, counter, _kept_out(run, datasets, every, held_out), ledger)
            write_table(store, f"{prefix}/{HELD_OUT_INDEX}", SCHEMA, kept_out.to_batches())
    write_table(store, f"{prefix}/{INDEX}", SCHEMA, index.to_batches())
    ledger.save(store, prefix)
    described = versioned(Form.MIXTURE_SUBSETS, {"subsets": [_description(part) for part in chosen]})
    store.put(f"{prefix}/{SUBSETS}", json.dumps(described, indent=1).encode())
    logger.info("An epoch has %s samples. Ledger: %s", f"{len(index):,}", ledger.reasons())
    number = {"held_out": recipe.data.holdout} if recipe.data.holdout else {}
    return _summary(index, ledger, len(tokenizer), [part.subset for part in chosen]) | number


def _choose(
    run: Run, datasets: Mapping[str, Manifest], tables: Mapping[str, Any], held_out: Mapping[str, Positions]
) -> list[Chosen]:
    data = run.recipe.data
    kept = {subset: kept_rows(table.count_rows(), held_out[subset]) for subset, table in tables.items()}
    sources = {
        subset: _source_rows(run.store, datasets[subset], tables[subset], rows)
        if data.subset(subset).order == "shuffled"
        else SourceRows.all_of(len(rows))
        for subset, rows in kept.items()
    }
    epoch = epoch_of(sources, data, seed=run.recipe.seed)
    visited_rows = {subset: kept[subset][visits] for subset, visits in epoch.items()}
    return [
        Chosen(subset=subset, table=tables[subset], rows=np.unique(visits), visits=visits)
        for subset, visits in visited_rows.items()
    ]


def _source_rows(store: ObjectStore, dataset: Manifest, table: Any, kept: Positions) -> SourceRows:
    """Where the rows of the table at the positions `kept` stood in the source."""
    entries = Ledger.load(store, dataset.key).entries
    too_many = np.array(sorted(entry.row for entry in entries if entry.reason == TOO_MANY), np.int64)
    numbers = table.to_table(columns=["row"])["row"].to_numpy()[kept]
    total = int(dataset.summary["rows"]) - len(too_many)
    return SourceRows(numbers=numbers - np.searchsorted(too_many, numbers), total=total)


def _kept_out(
    run: Run, datasets: Mapping[str, Manifest], tables: Mapping[str, Any], held_out: Mapping[str, Positions]
) -> list[Chosen]:
    """The rows that training never sees: those that `data.holdout` drew, and once those of subsets held out whole."""
    data = run.recipe.data
    subsets = tuple(settings.model_copy(update={"repeat": 1}) for settings in data.subsets)
    once = data.model_copy(update={"subsets": subsets, "sampling": "none"})
    whole = {subset: table for subset, table in tables.items() if subset not in held_out}
    nothing = dict.fromkeys(whole, np.empty(0, np.int64))
    found = _choose(replace(run, recipe=run.recipe.model_copy(update={"data": once})), datasets, whole, nothing)
    found += [Chosen(subset=name, table=tables[name], rows=rows, visits=rows) for name, rows in held_out.items()]
    return sorted(found, key=lambda part: part.subset)


def _whole_index(pool: LengthPool, counter: Counter, parts: Sequence[Chosen], ledger: Ledger) -> pa.Table:
    """Count the tokens of all subsets of `parts`.

    Raises:
        InputError: no row fits into the context.
    """
    index = pa.concat_tables([SCHEMA.empty_table(), *(_index(pool, counter, part, ledger) for part in parts)])
    if not len(index):
        names = ", ".join(part.subset for part in parts if len(part.rows))
        raise InputError(
            f"data.context_length = {counter.context_length}: none of {sum(len(part.rows) for part in parts):,} "
            f"samples of {names} can be used ({ledger.reasons()}).",
            remedy=ledger.remedy(),
        )
    return index


def mixture_tokenizer(store: ObjectStore, recipe: Recipe, batches: Iterable[Batch]) -> PreTrainedTokenizerFast:
    """The tokenizer of the recipe's model. For a model from scratch it is trained on the text of `batches`.

    Raises:
        InputError: the base is not in the store, or has no tokenizer.
    """
    specials = family(recipe.model.family).special_tokens()
    shape = recipe.model.scratch_shape
    if shape is None:
        return base_tokenizer(model_folder(resolved(store, recipe.model).base), specials)
    texts = _texts(recipe, batches, specials)
    tokenizer = train_tokenizer(texts, vocabulary=shape.vocabulary, special_tokens=specials)
    logger.info("Trained a tokenizer of %s tokens on the mixture's text", f"{len(tokenizer):,}")
    return tokenizer


def _texts(recipe: Recipe, batches: Iterable[Batch], specials: Sequence[str]) -> Iterator[str]:
    """The mixture's text as the chat template writes it, cut at special tokens, which a tokenizer never splits."""
    style = load_chat_template(recipe.model.prompt)
    between = re.compile("|".join(map(re.escape, specials)))
    for batch in batches:
        for row in batch:
            for piece in render(conversation_of(row), style):
                yield from filter(None, between.split(piece.text))


def _index(pool: LengthPool, counter: Counter, part: Chosen, ledger: Ledger) -> pa.Table:
    """Count the tokens of one subset. Returns its index rows in the order of its visits."""
    progress = Progress(label=f"count tokens of {part.subset}", total=len(part.rows), unit="samples")
    tables = [SCHEMA.empty_table()]
    done = 0
    for rows, lengths in pool.count(counter, part.batches()):
        positions = part.rows[done : done + len(rows)].tolist()
        kept = [
            _entry(part.subset, position, row, length)
            for position, row, length in zip(positions, rows, lengths, strict=True)
            if length_kept(length, ledger, part.subset, row, counter)
        ]
        tables.append(pa.Table.from_pylist(kept, schema=SCHEMA))
        if len(tables) > TABLES_AT_ONCE:  # a small table takes three times the memory of its values
            tables = [pa.concat_tables(tables).combine_chunks()]
        done += len(rows)
        progress.advance(len(rows))
    return visited(pa.concat_tables(tables), part.visits)


def visited(rows: pa.Table, visits: NDArray[np.int64]) -> pa.Table:
    """Index rows in the order of `visits`, repeated as they are.

    `rows` has each kept row once, in ascending order. A visit of a row that was not kept is left out.
    """
    kept = rows["row"].to_numpy()
    places = np.searchsorted(kept, visits)
    there = places < len(kept)
    there[there] = kept[places[there]] == visits[there]  # the other visits are of rows that do not fit the context
    return rows.take(places[there])


def length_kept(
    length: Length | Untrainable, ledger: Ledger, subset: str, row: dict[str, Any], counter: Counter
) -> TypeGuard[Length]:
    """True if the sample is kept. A cut or dropped sample gets a ledger entry under its row in the source."""
    if isinstance(length, Untrainable):
        refusal = RowRejected(length.reason, value=length.value, threshold=length.threshold)
        ledger.drop(subset, row["row"], row["id"], refusal)
        return False
    if length.whole > length.tokens:
        repair = RowRepaired(reason="truncated", value=str(length.whole), threshold=str(counter.context_length))
        ledger.repair(subset, row["row"], row["id"], repair)
    if row["roles"][0] == "system" and not load_chat_template(counter.model.prompt).takes_system:
        place = f"a chat template with a system text; {counter.model.prompt} has none"
        repair = RowRepaired(reason="system-left-out", value=row["contents"][0], threshold=place)
        ledger.repair(subset, row["row"], row["id"], repair)
    return True


def _entry(subset: str, position: int, row: dict[str, Any], length: Length) -> dict[str, Any]:
    return {
        "subset": subset,
        "row": position,
        "id": row["id"],
        "turns": length.turns,
        "tokens": length.tokens,
        "targets": length.targets,
        "images": length.images,
        "patches": length.patches,
        "learned_from": length.learned_from,
        "weight": row["weight"],
    }


def _description(part: Chosen) -> dict[str, Any]:
    """A row of subsets.json: name, skill, counts and licence of a subset."""
    known = published().get(part.subset)
    return {
        "name": part.subset,
        "skill": skill_of(part.subset),
        "drawn": len(part.rows),
        "visits": len(part.visits),
        "licence": known.licence.model_dump(mode="json") if known else None,
    }


def _summary(index: pa.Table, ledger: Ledger, vocabulary: int, subsets: Sequence[str]) -> dict[str, Number]:
    names, counts = np.unique(index["subset"].to_numpy(), return_counts=True)
    per_subset = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {
        "samples": len(index),
        "tokens": int(index["tokens"].to_numpy().sum()),
        "targets": int(index["targets"].to_numpy().sum()),
        "images": int(index["images"].to_numpy().sum()),
        "longest": int(index["tokens"].to_numpy().max()),
        "vocabulary": vocabulary,
        "dropped": ledger.dropped,
        "repaired": ledger.repaired,
        **{f"rows/{subset}": per_subset.get(subset, 0) for subset in subsets},
    }
