"""Checkpoints in another layout than they were saved in: frozen and trained weights, moments, buffers, what follows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.fixtures.training import Torchrun


@pytest.fixture(scope="module")
def saved(torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """stage -> folder with a checkpoint of two ranks, and the state before and two steps after."""

    def save(stage: int) -> Path:
        folder = tmp_path_factory.mktemp(f"zero-{stage}")
        done = torchrun("reshard_checkpoint", 2, "save", stage, folder)
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    found: dict[int, Path] = {}

    def once(stage: int) -> Path:
        if stage not in found:
            found[stage] = save(stage)
        return found[stage]

    return once


@pytest.mark.parametrize(
    ("saved_stage", "stage", "ranks"),
    [
        (3, 3, 1),
        pytest.param(3, 2, 4, marks=pytest.mark.slow),
        pytest.param(3, 3, 4, marks=pytest.mark.slow),
        pytest.param(3, 2, 2, marks=pytest.mark.slow),
        pytest.param(2, 3, 4, marks=pytest.mark.slow),
        pytest.param(2, 2, 1, marks=pytest.mark.slow),
    ],
)
def test_everything_is_there_on_another_layout(
    saved: Callable[[int], Path], torchrun: Torchrun, tmp_path: Path, saved_stage: int, stage: int, ranks: int
) -> None:
    folder, out = saved(saved_stage), tmp_path / "state.pt"
    done = torchrun("reshard_checkpoint", ranks, "load", stage, folder, 2, saved_stage, out)
    assert done.returncode == 0, done.stderr[-3000:]
    (before, after), (was, became) = torch.load(out), torch.load(folder / "expected.pt")
    assert before.keys() == was.keys()
    assert {name for name in was if name.startswith("weight frozen")}
    for name, value in was.items():
        assert torch.equal(before[name].flatten(), value.flatten()), name
    for name, value in became.items():
        assert torch.allclose(after[name].flatten(), value.flatten(), rtol=1e-5, atol=1e-6), name
    assert not torch.equal(after["weight last.weight"], before["weight last.weight"])
