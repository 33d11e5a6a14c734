"""`data.holdout` keeps rows out of training: the same rows whatever their order, seed, cap or sampling."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.data.mixture.epoch_estimate import SubsetSize, plan_epoch
from components.data.mixture.holdout import held_out_positions, kept_rows
from components.data.step import assemble, prepare
from mantis.artifacts.held_out import HELD_OUT_INDEX, HeldOutRow, held_out_rows
from mantis.artifacts.manifest import Manifest
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import ConfigError, InputError
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from tests.fixtures.data import RawFolder, RunOn


@pytest.fixture
def write_rows(raw_folder: RawFolder) -> Any:
    """Write the subsets `first` (20 rows) and `second` (10 rows), in the order of `shuffle`."""

    def write(shuffle: int = 0, more: int = 0) -> Path:
        image = raw_folder.folder / "first/a.jpg"
        for name, count in (("first", 20 + more), ("second", 10)):
            subset = RawFolder(raw_folder.folder / name)
            rows = [subset.row(f"r{number}", subset.image("a.jpg")) for number in range(count)]
            random.Random(shuffle).shuffle(rows)
            subset.write(rows)
        assert image.exists()
        return raw_folder.folder

    return write


def mixed(run: Run) -> Manifest:
    return assemble(run, [prepare(run, subset) for subset in ("first", "second")])


def names(rows: list[HeldOutRow]) -> set[tuple[str, str]]:
    return {(row.subset, row.id) for row in rows}


def trained(run: Run, mixture: Manifest) -> set[tuple[str, str]]:
    reader = MixtureReader(run.store, mixture)
    return set(zip(reader.subsets, reader.ids, strict=True))


def test_training_never_sees_them(write_rows: Any, run_on: RunOn) -> None:
    run = run_on(write_rows(), {"data.holdout": "7", "training.epochs": "3"})
    mixture = mixed(run)
    kept_out, seen = names(held_out_rows(run.store, mixture)), trained(run, mixture)
    assert len(kept_out) == 7 == mixture.summary["held_out"]
    assert len(seen) == 23 == mixture.summary["samples"]
    assert not kept_out & seen
    assert {subset for subset, _ in kept_out} == {"first", "second"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"data.sampling": "sqrt"},
        {"data.subsets": "[{name: first, cap: 9, repeat: 2}, {name: second}]"},
        {"seed": "9"},
    ],
)
def test_whatever_an_epoch_draws(write_rows: Any, run_on: RunOn, overrides: dict[str, str]) -> None:
    folder = write_rows()
    plain = run_on(folder, {"data.holdout": "7"})
    run = run_on(folder, {"data.holdout": "7"} | overrides)
    mixture = mixed(run)
    assert names(held_out_rows(run.store, mixture)) == names(held_out_rows(plain.store, mixed(plain)))
    assert not names(held_out_rows(run.store, mixture)) & trained(run, mixture)


def test_the_order_of_the_rows_decides_nothing(write_rows: Any, run_on: RunOn) -> None:
    found = []
    for shuffle in (1, 2):
        run = run_on(write_rows(shuffle), {"data.holdout": "7"})
        found.append(held_out_rows(run.store, mixed(run)))
    assert names(found[0]) == names(found[1])
    assert {row.row for row in found[0]} != {row.row for row in found[1]}


def test_a_new_row_replaces_at_most_one(write_rows: Any, run_on: RunOn) -> None:
    before = run_on(write_rows(), {"data.holdout": "7"})
    first = names(held_out_rows(before.store, mixed(before)))
    after = run_on(write_rows(more=1), {"data.holdout": "7"})
    assert len(first - names(held_out_rows(after.store, mixed(after)))) <= 1


def test_one_row_must_stay(write_rows: Any, run_on: RunOn) -> None:
    folder = write_rows()
    with pytest.raises(InputError, match=r"data.holdout = 30, but the mixture has 30 rows.*Lower"):
        mixed(run_on(folder, {"data.holdout": "30"}))
    assert mixed(run_on(folder, {"data.holdout": "29"})).summary["samples"] == 1


def test_nothing_is_kept_out_unless_asked(write_rows: Any, run_on: RunOn) -> None:
    run = run_on(write_rows())
    mixture = mixed(run)
    assert held_out_rows(run.store, mixture) == []
    assert "held_out" not in mixture.summary
    assert mixture.fingerprint != mixed(run_on(write_rows(), {"data.holdout": "1"}, store=run.store)).fingerprint


def test_the_choice_is_spread_evenly() -> None:
    """Over many ids, a row's chance does not depend on its place or its subset."""

    class Table:
        def __init__(self, ids: list[str]) -> None:
            self.ids = ids

        def to_batches(self, columns: list[str], batch_size: int) -> list[dict[str, Any]]:
            import pyarrow as pa

            return [{"id": pa.array(self.ids)}]

    tables = {name: Table([f"row-{number}" for number in range(4000)]) for name in ("a", "b")}
    chosen = held_out_positions(tables, 2000)
    assert abs(len(chosen["a"]) - 1000) < 100
    quarters = Counter((chosen["a"] // 1000).tolist())
    assert all(abs(count - len(chosen["a"]) / 4) < 60 for count in quarters.values())
    assert len(kept_rows(4000, chosen["a"])) == 4000 - len(chosen["a"])


def test_a_plan_leaves_them_out(run_on: RunOn, tmp_path: Path) -> None:
    recipe = run_on(tmp_path, {"data.holdout": "30", "data.subsets": "[{name: first}, {name: second}]"}).recipe
    sizes = {
        name: SubsetSize(rows=rows, images=1.0, known="at the source")
        for name, rows in (("first", 200), ("second", 100))
    }
    planned = plan_epoch(recipe, sizes, image_tokens=10)
    assert {line.name: line.samples for line in planned.lines} == {"first": 180, "second": 90}


def test_held_out_rows_have_an_index_of_their_own_in_training_form(write_rows: Any, run_on: RunOn) -> None:
    run = run_on(write_rows(), {"data.holdout": "7"})
    mixture = mixed(run)
    index = MixtureReader(run.store, mixture, index_name=HELD_OUT_INDEX)
    assert set(zip(index.subsets, index.ids, strict=True)) == names(held_out_rows(run.store, mixture))
    sample = index.take([3])[0]
    processor = family(run.recipe.model.family).processor(index.tokenizer(), run.recipe.model)
    assert len(processor.encode(sample.conversation).input_ids) == index.tokens[3]
    assert (index.targets > 0).all()


@pytest.mark.parametrize(("cap", "rows"), [("", 10), ("cap: 4, repeat: 3, ", 4)])
def test_a_held_out_subset_is_in_no_epoch(write_rows: Any, run_on: RunOn, cap: str, rows: int) -> None:
    subsets = f"[{{name: first}}, {{name: second, {cap}held_out: true}}]"
    run = run_on(write_rows(), {"data.subsets": subsets})
    mixture = mixed(run)
    index = MixtureReader(run.store, mixture, index_name=HELD_OUT_INDEX)
    assert set(index.subsets) == {"second"}
    assert len(set(index.ids)) == len(index) == rows
    assert {subset for subset, _ in trained(run, mixture)} == {"first"}
    assert held_out_rows(run.store, mixture) == []  # the benchmark `holdout` has no part in it


def test_held_out_rows_that_do_not_fit_are_an_error(raw_folder: RawFolder, run_on: RunOn) -> None:
    for name, answer in (("first", "A picture."), ("second", "long " * 500)):
        subset = RawFolder(raw_folder.folder / name)
        row = subset.row("r", subset.image("a.jpg"))
        row["conversation"] = [row["conversation"][0], {"role": "assistant", "content": answer}]
        subset.write([row])
    changes = {"data.subsets": "[{name: first}, {name: second, held_out: true}]", "data.context_length": "200"}
    with pytest.raises(InputError, match=r"none of 1 samples of second can be used.*too-long"):
        mixed(run_on(raw_folder.folder, changes))


def test_a_plan_leaves_a_held_out_subset_out(run_on: RunOn, tmp_path: Path) -> None:
    recipe = run_on(tmp_path, {"data.subsets": "[{name: first}, {name: second, held_out: true}]"}).recipe
    sizes = {name: SubsetSize(rows=100, images=1.0, known="at the source") for name in ("first", "second")}
    assert [line.name for line in plan_epoch(recipe, sizes, image_tokens=10).lines] == ["first"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.subsets": "[{name: a, held_out: true}]"}, "holds out every subset"),
        ({"training.evaluate_every": "5"}, "training.evaluate_every needs held-out rows"),
        ({"data.holdout": "5", "training.keep_best": "true"}, "training.keep_best needs the held-out loss"),
        ({"data.holdout": "5", "training.patience": "2"}, "training.patience needs the held-out loss"),
        ({"conversion.checkpoint": "best"}, "conversion.checkpoint = best needs training.keep_best"),
    ],
)
def test_a_recipe_that_holds_nothing_out_is_refused(
    run_on: RunOn, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_on(tmp_path, changes)
