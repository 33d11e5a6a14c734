"""Real processes, real SIGKILL."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.step import evaluate
from mantis.artifacts.manifest import Manifest, save_manifest
from mantis.artifacts.store_addresses import key_of
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from tests.helpers.paths import ROOT, root_of

LARGEST_BATCH = 12


def killed(run: Run, model: Manifest, tmp_path: Path, kills: int, workers: int) -> dict[str, Any]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(run.recipe.to_yaml())
    save_manifest(model, str(tmp_path / "model.json"))
    arguments = [run.store.url, str(recipe), str(tmp_path / "model.json"), str(kills), str(workers)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.evaluate_with_kills", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def results(store: ObjectStore, uri: str) -> dict[str, bytes]:
    """Responses, scores and gallery, byte by byte."""
    prefix = key_of(store, uri)
    return {entry.key: store.get(entry.key) for entry in store.list(prefix) if not entry.key.endswith("manifest.json")}


def keys(run: Run) -> list[str]:
    """Of every response that is stored."""
    paths = (root_of(run.store) / "responses").rglob("*.jsonl")
    return [json.loads(line)["key"] for path in paths for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("kills", "workers"), [(4, 1), (3, 2), pytest.param(20, 1, marks=pytest.mark.slow)])
def test_killed_at_random_it_ends_with_the_same(
    eval_run: Run, stored_model: Manifest, tmp_path: Path, kills: int, workers: int
) -> None:
    told = killed(eval_run, stored_model, tmp_path, kills, workers)
    assert told["killed"] == kills * workers
    assert told["codes"] == [0] * workers
    stored = keys(eval_run)
    wanted = set(stored)
    if workers == 1:
        assert len(stored) == len(wanted)  # each response is stored once ...
        lost = len(told["asked"]) - len(wanted)
        assert 0 <= lost <= kills * LARGEST_BATCH  # ... and generated once, but for those in flight
    first = evaluate(eval_run, "demo-multi", stored_model)
    again = results(eval_run.store, first.key)
    for entry in [*eval_run.store.list("responses"), *eval_run.store.list("evaluations")]:
        eval_run.store.delete(entry.key)
    assert evaluate(eval_run, "demo-multi", stored_model).key == first.key
    assert results(eval_run.store, first.key) == again
    assert set(keys(eval_run)) == wanted
