import json
from typing import Any

import pytest

from tests.fixtures.training import MakeRun, Torchrun
from tests.helpers.step_checks import check_steps
from tests.helpers.tested_families import PAPER


@pytest.fixture(scope="module")
def figures(make_run: MakeRun, torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What compare_zero_step.py found for the paper's families: for each rank, family and variant, a row per step."""
    made = {name: make_run(name, {"model.family": name})[0] for name in PAPER}
    folder = tmp_path_factory.mktemp("zero-step")
    done = torchrun("compare_zero_step", 2, made[PAPER[0]].store.url, folder / "figures", *made)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"figures.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize(
    "variant",
    range(5),
    ids=["zero-3", "zero-2", "zero-3 frozen tower, checkpointing", "stage 1, 48 samples", "stage 2, 48 samples"],
)
def test_step_equals_official_accumulation(figures: Any, name: Any, variant: int) -> None:
    check_steps(figures[0][name][variant])


def test_ranks_take_the_same_number_of_micro_steps_and_one_was_empty(figures: Any) -> None:
    first, second = (rank["llava-clip"][0] for rank in figures)
    assert [row["micro_steps"] for row in first] == [row["micro_steps"] for row in second]
    assert max(row["micro_steps"] for row in first) > 1
    assert any(row["empty"] for row in first + second)
