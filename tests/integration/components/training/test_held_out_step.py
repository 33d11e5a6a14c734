"""Two ranks: evaluations between optimizer steps equal plain PyTorch, and disturb no gradient."""

import json
from pathlib import Path
from typing import Any

import pytest

from mantis.models.registry import family_names
from tests.fixtures.training import MakeRun, Torchrun

FAST = "llava-clip"
VARIANTS = ("zero-3", "zero-2", "zero-3 module by module")


@pytest.mark.parametrize(
    "name", [FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in family_names() if name != FAST)]
)
def test_the_held_out_loss_equals_plain_torch(name: str, make_run: MakeRun, torchrun: Torchrun, tmp_path: Path) -> None:
    """To 1e-5 of the gradients before the first evaluation; behind it AdamW has rounded in its own way."""
    run, _ = make_run(f"held-out-{name}", {"model.family": name, "data.holdout": "13"})
    out = tmp_path / "figures"
    done = torchrun("compare_held_out", 2, run.store.url, out, run.id)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads(out.with_name(f"figures.{rank}").read_text())[run.id] for rank in (0, 1)]
    for variant, rows in zip(VARIANTS, ranks[0], strict=True):
        first, second = rows
        assert first["gradient_error"] < 1e-5, variant
        assert second["gradient_error"] < 1e-3, variant
        for row in rows:
            assert row["held_out"] == pytest.approx(row["expected"], rel=1e-4), variant
            assert row["loss"] == pytest.approx(row["expected_loss"], rel=1e-4), variant
            assert row["again"] == row["held_out"], variant  # from memory, through the same kernels
            assert row["training"], variant
            assert row["random_is_untouched"], variant
        assert second["held_out"] != first["held_out"], variant
    assert [held_out_of(rank) for rank in ranks] == [held_out_of(ranks[0])] * 2


def held_out_of(rank: Any) -> list[list[tuple[float, int]]]:
    """The losses, which all ranks agree on, and the micro-steps, which all ranks take together."""
    return [[(row["held_out"], row["micro_steps"]) for row in variant] for variant in rank]
