"""Going on in mid-epoch on another number of ranks and another ZeRO stage, with a frozen tower."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from components.training.step import train
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.store.base import delete_tree
from tests.fixtures.training import MakeRun

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
