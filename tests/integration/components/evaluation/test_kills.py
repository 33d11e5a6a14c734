"""Real processes, real SIGKILL."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.generation.chat_endpoint import GROUP
from components.evaluation.generation.endpoint_model import model_behind
from components.evaluation.step import evaluate, evaluate_model
from mantis.artifacts.manifest import Manifest, save_manifest
from mantis.artifacts.store_addresses import key_of
from mantis.generation.answering_models import model_in_folder
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from tests.helpers.openai_server import openai_server
from tests.helpers.paths import ROOT, root_of

LARGEST_BATCH = 12
CONCURRENCY = 4  # of the helper


def killed(run: Run, model: Manifest | str, tmp_path: Path, kills: int, workers: int) -> dict[str, Any]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(run.recipe.to_yaml())
    if isinstance(model, Manifest):
        save_manifest(model, str(tmp_path / "model.json"))
        model = str(tmp_path / "model.json")
    arguments = [run.store.url, str(recipe), model, str(kills), str(workers)]
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


def never_killed(run: Run, first: Manifest, evaluate_again: Callable[[], Manifest]) -> None:
    """Responses, scores and gallery of an evaluation that was killed are those of one that was not."""
    after_kills, wanted = results(run.store, first.key), set(keys(run))
    for entry in [*run.store.list("responses"), *run.store.list("evaluations")]:
        run.store.delete(entry.key)
    assert evaluate_again().key == first.key
    assert results(run.store, first.key) == after_kills
    assert set(keys(run)) == wanted


def without_controls(run: Run) -> Run:
    evaluation = run.recipe.evaluation.model_copy(update={"controls": ()})
    return Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={"evaluation": evaluation}))


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_any_model_of_transformers_ends_with_the_same(
    eval_run: Run, chat_model_folder: Path, tmp_path: Path, kills: int
) -> None:
    told = killed(eval_run, str(chat_model_folder), tmp_path, kills, 1)
    assert (told["killed"], told["codes"]) == (kills, [0])
    stored = keys(eval_run)
    assert len(stored) == len(set(stored))
    assert 0 <= len(told["asked"]) - len(stored) <= kills * LARGEST_BATCH
    model = model_in_folder(str(chat_model_folder))
    first = evaluate_model(eval_run, "demo-multi", model)
    never_killed(eval_run, first, lambda: evaluate_model(eval_run, "demo-multi", model))


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_an_endpoint_ends_with_the_same(eval_run: Run, tmp_path: Path, kills: int) -> None:
    run = without_controls(eval_run)
    with openai_server(seconds=0.02, failures=0.2) as server:
        told = killed(run, server.url, tmp_path, kills, 1)
        assert (told["killed"], told["codes"]) == (kills, [0])
        again = sum(server.answered.values()) - 60
        assert 0 <= again <= kills * (2 * CONCURRENCY + 2 * GROUP)  # those in flight, or waiting for their group
        model = model_behind(server.url, "some-model", fields={}, concurrency=CONCURRENCY)
        first = evaluate_model(run, "demo-multi", model)
        assert sum(server.answered.values()) - 60 == again
        never_killed(run, first, lambda: evaluate_model(run, "demo-multi", model))
