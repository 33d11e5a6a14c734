"""Going on in mid-epoch on another number of ranks and another ZeRO stage, with a frozen tower."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training.step import train
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.errors import MantisError
from mantis.hashing import sha256_bytes
from mantis.store.base import delete_tree
from tests.fixtures.training import MakeRun
from tests.helpers.planted_code import Planted

RESUMED, COMPARED = 8, 20
RECIPE = {
    "training.train": "[projector, text]",
    "training.weight_decay": "0.01",
    "training.log_every": "1",
    "training.keep_last": "10",
}


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """The rows and objects of a training that nothing disturbs."""

    prefix: str
    rows: list[dict[str, Any]]
    objects: dict[str, bytes]


@pytest.fixture(scope="module")
def undisturbed(make_run: MakeRun) -> Undisturbed:
    """Rows of a training on two ranks with ZeRO-3, which is left with its checkpoints."""
    run, mixture = make_run("elastic", RECIPE)
    prefix = train(run, mixture).key
    return Undisturbed(
        prefix=prefix,
        rows=rows_of(run.store, prefix),
        objects={entry.key: run.store.get(entry.key) for entry in run.store.list(prefix)},
    )


def rows_of(store: Any, prefix: str) -> Any:
    return [json.loads(line) for line in store.get(f"{prefix}/metrics.jsonl").splitlines()]


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (4, 2),
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(4, 3, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
)
def test_the_same_samples_and_losses_on_another_layout(
    undisturbed: Undisturbed, make_run: MakeRun, capfd: pytest.CaptureFixture[str], ranks: int, stage: int
) -> None:
    prefix, rows, objects = undisturbed.prefix, undisturbed.rows, undisturbed.objects
    layout = {"training.gpus_per_node": str(ranks), "training.zero_stage": str(stage)}
    run, mixture = make_run(f"elastic-{ranks}-{stage}", {**RECIPE, **layout})
    delete_tree(run.store, prefix)
    for key, data in objects.items():
        if key.startswith(f"{prefix}/{step_folder(RESUMED)}/"):
            run.store.put(key, data)
    assert committed(run.store, prefix) == [RESUMED]

    assert train(run, mixture).key == prefix
    said = capfd.readouterr().err
    assert f"Training continues after step {RESUMED} " in said
    assert f"it is resharded for {ranks} ranks with ZeRO-{stage}" in said
    again = rows_of(run.store, prefix)
    assert again[:RESUMED] == rows[:RESUMED]
    for was, became in zip(rows[RESUMED:], again[RESUMED:], strict=True):
        assert [became[name] for name in ("step", "samples", "tokens")] == [
            was[name] for name in ("step", "samples", "tokens")
        ]
    losses = [(was["loss"], became["loss"]) for was, became in zip(rows, again, strict=True)]
    for was, became in losses[RESUMED : RESUMED + COMPARED]:
        assert became == pytest.approx(was, abs=1e-4)


@pytest.mark.parametrize(("ranks", "stage"), [(2, 3), (4, 2)], ids=["the same layout", "another layout"])
@pytest.mark.parametrize("kind", ["model_states", "optim_states"])
def test_a_planted_pickle_is_refused_by_name_and_not_run(
    undisturbed: Undisturbed, make_run: MakeRun, tmp_path: Path, ranks: int, stage: int, kind: str
) -> None:
    prefix, marker = undisturbed.prefix, tmp_path / "it-was-run"
    layout = {"training.gpus_per_node": str(ranks), "training.zero_stage": str(stage)}
    run, mixture = make_run(f"planted-{ranks}-{kind}", {**RECIPE, **layout})
    delete_tree(run.store, prefix)
    base = f"{prefix}/{step_folder(RESUMED)}"
    for key, data in undisturbed.objects.items():
        if key.startswith(f"{base}/"):
            run.store.put(key, data)
    name = f"zero_pp_rank_1_mp_rank_00_{kind}.pt"
    torch.save({"client": Planted(marker)}, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    commit = json.loads(run.store.get(f"{base}/COMMIT"))
    for file in commit["files"]:
        if file["name"] == name:
            file |= {"size": len(data), "sha256": sha256_bytes(data)}
    run.store.put(f"{base}/{name}", data)
    run.store.put(f"{base}/COMMIT", json.dumps(commit).encode())

    with pytest.raises(MantisError, match=rf"{name} wants posix\.system"):
        train(run, mixture)
    assert not marker.exists()
    assert committed(run.store, prefix) == [RESUMED]
