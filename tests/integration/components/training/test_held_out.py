"""Held-out loss during a whole training: it changes nothing, survives a resume, and decides what it is asked to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from components.conversion.convert_checkpoint import convert_checkpoint
from components.conversion.step import convert
from components.training.step import train
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.artifacts.manifest import Manifest
from mantis.hashing import sha256_bytes
from mantis.runs.step_runner import Run
from mantis.store.base import delete_tree
from mantis.tracking.mlflow_runs import find_tracked_run
from tests.fixtures.training import MakeRun

STEPS, EVERY = 39, 6  # 230 samples of 250 rows; neither log_every (5) nor checkpoint_every (8) divides EVERY
EVALUATED = [6, 12, 18, 24, 30, 36, 39]
HELD_OUT = {"data.holdout": "20", "training.keep_last": "10"}
EVALUATES = HELD_OUT | {"training.evaluate_every": str(EVERY), "training.keep_best": "true"}
BEST = EVALUATES | {"conversion.checkpoint": "best", "conversion.precision": "fp32"}


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An undisturbed training with evaluations, and its objects in the store."""

    run: Run
    manifest: Manifest
    objects: dict[str, bytes]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.run, self.manifest)


@pytest.fixture(scope="module")
def evaluated(make_run: MakeRun) -> Evaluated:
    run, mixture = make_run("evaluated", BEST)
    manifest = train(run, mixture)
    objects = {entry.key: run.store.get(entry.key) for entry in run.store.list(manifest.key)}
    return Evaluated(run=run, manifest=manifest, objects=objects)


def rows_of(run: Run, manifest: Manifest) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.store.get(f"{manifest.key}/metrics.jsonl").splitlines()]


def losses_of(rows: list[dict[str, Any]]) -> dict[int, float]:
    return {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}


def digest(run: Run, manifest: Manifest, step: int) -> str:
    """SHA-256 of the optimizer's tensors of all ranks: fp32 weights and both moments."""
    parts = []
    for path in sorted(Path(run.store.lance_uri(f"{manifest.key}/{step_folder(step)}")).glob("*_optim_states.pt")):
        state = torch.load(path, weights_only=False)["optimizer_state_dict"]
        tensors = list(state["fp32_flat_groups"])
        for moments in state["optimizer_state_dict"]["state"].values():
            tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
        parts += [tensor.detach().numpy().tobytes() for tensor in tensors]
    assert len(parts) >= 6
    return sha256_bytes(b"".join(parts))


def test_the_optimizer_takes_the_same_path_as_without(evaluated: Evaluated, make_run: MakeRun) -> None:
    run, mixture = make_run("not-evaluated", HELD_OUT)
    plain = train(run, mixture)
    assert plain.key != evaluated.manifest.key
    assert plain.inputs["mixture"] == evaluated.manifest.inputs["mixture"]
    assert digest(run, plain, STEPS) == digest(evaluated.run, evaluated.manifest, STEPS)
    there = {row["step"]: row["gradient_norm"] for row in evaluated.rows}
    assert all(there[row["step"]] == row["gradient_norm"] for row in rows_of(run, plain))


def test_the_curve_is_in_the_metrics_in_the_summary_and_in_mlflow(evaluated: Evaluated) -> None:
    losses, summary = losses_of(evaluated.rows), evaluated.manifest.summary
    assert list(losses) == EVALUATED
    assert losses[STEPS] < 0.9 * losses[EVERY]
    best = min(losses, key=lambda step: losses[step])
    assert (summary["best_step"], summary["best_held_out_loss"]) == (best, losses[best])
    assert summary["last_held_out_loss"] == losses[STEPS]
    assert summary["held_out_samples"] == 20
    assert summary["stopped_early"] is False
    assert summary["seconds_evaluate"] > 0
    assert (summary["ranks"], summary["gpus"], summary["nodes"]) == (2, 0, 1)
    assert str(summary["hardware"]).startswith("2 × CPU rank (")
    assert f"torch {torch.__version__.partition('+')[0]}" in str(summary["software"])
    assert float(summary["device_hours"]) > 2 * float(summary["seconds_step"]) / 3600
    tracked = find_tracked_run(evaluated.run)
    assert tracked is not None
    history = tracked.client.get_metric_history(tracked.id, "train/held_out_loss")
    assert {metric.step: metric.value for metric in history} == losses


@pytest.mark.parametrize("step", [8, pytest.param(18, marks=pytest.mark.slow)])
def test_a_resumed_training_evaluates_at_the_same_steps_with_the_same_values(
    evaluated: Evaluated, make_run: MakeRun, step: int, capfd: pytest.CaptureFixture[str]
) -> None:
    run, mixture = make_run("evaluated", BEST)
    restore(evaluated, step)
    again = train(run, mixture)
    assert f"Training continues after step {step} " in capfd.readouterr().err
    assert losses_of(rows_of(run, again)) == losses_of(evaluated.rows)
    assert digest(run, again, STEPS) == digest(evaluated.run, evaluated.manifest, STEPS)
    assert again.summary["best_step"] == evaluated.manifest.summary["best_step"]


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [(4, 2), pytest.param(1, 3, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)],
)
def test_another_world_size_evaluates_the_same_samples(
    evaluated: Evaluated, make_run: MakeRun, ranks: int, stage: int
) -> None:
    layout = {"training.gpus_per_node": str(ranks), "training.zero_stage": str(stage)}
    run, mixture = make_run(f"evaluated-{ranks}-{stage}", BEST | layout)
    restore(evaluated, 8)
    losses = losses_of(rows_of(run, train(run, mixture)))
    expected = losses_of(evaluated.rows)
    assert list(losses) == EVALUATED
    for at in (6, 12, 18):  # later ones drift apart by rounding
        assert losses[at] == pytest.approx(expected[at], abs=1e-4)


def test_conversion_takes_the_best_step_and_proves_it_with_a_probe_of_its_own(evaluated: Evaluated) -> None:
    run, manifest = evaluated.run, evaluated.manifest
    restore(evaluated, EVERY, everything=True)
    # The first evaluated step was the best one when it was saved, and its weights differ from the last ones.
    first = manifest.model_copy(update={"summary": manifest.summary | {"best_step": EVERY}})
    summary = convert_checkpoint(run, first, "models/of-the-first")
    assert summary["step"] == EVERY
    assert summary["largest_logit_difference"] < 1e-4
    assert convert(run, manifest).summary["step"] == manifest.summary["best_step"]


def test_training_stops_when_nothing_gets_better_and_keeps_the_best_step(make_run: MakeRun) -> None:
    stands_still = {"training.learning_rate": "1e-30", "training.patience": "2", "training.keep_last": "1"}
    run, mixture = make_run("patient", BEST | stands_still)
    manifest = train(run, mixture)
    assert committed(run.store, manifest.key) == [18, 6]
    assert list(losses_of(rows_of(run, manifest))) == [6, 12, 18]
    assert manifest.summary["stopped_early"] is True
    assert (manifest.summary["steps"], manifest.summary["best_step"]) == (18, 6)
    assert convert(run, manifest).summary["step"] == 6


def restore(evaluated: Evaluated, step: int, *, everything: bool = False) -> None:
    """Leave only the checkpoint of `step` of the undisturbed training in the store, or put back all of it."""
    prefix = evaluated.manifest.key
    delete_tree(evaluated.run.store, prefix)
    for key, data in evaluated.objects.items():
        if everything or key.startswith(f"{prefix}/{step_folder(step)}/"):
            evaluated.run.store.put(key, data)
    assert step in committed(evaluated.run.store, prefix)
