"""The benchmark `holdout`: a model's answers on the rows that its training kept out."""

import json
import math
from pathlib import Path

import pytest
import torch

from components.data.step import assemble, prepare
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import Target
from components.evaluation.step import evaluate, resolve_benchmarks
from mantis.artifacts.held_out import HeldOutRow, held_out_rows
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.config.recipe import Recipe
from mantis.errors import InputError
from mantis.generation.generator import Generator
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.data import RawFolder, encoded

MADE = MadeBy(run="r", step="s", revision=1, config_hash="", code_version="", image_digest="")


@pytest.fixture
def trained(raw_folder: RawFolder, eval_recipe: Recipe, local_store: LocalStore, stored_model: Manifest) -> Run:
    """A run with 4 held-out rows of 10, whose model `abc` names their mixture through a checkpoint."""
    rows = [
        raw_folder.row(f"r{number}", *[raw_folder.image(f"{number}-{at}.jpg", encoded((20 * number, at, 9)))
                                       for at in range(number % 3)])
        for number in range(10)
    ]  # fmt: skip
    raw_folder.write(rows)
    data = {"source": str(raw_folder.folder), "holdout": 4}
    recipe = Recipe.model_validate({**eval_recipe.model_dump(mode="json"), "data": data})
    run = Run(id="eval-run", store=local_store, recipe=recipe)
    (subset,) = [raw_folder.folder.name]
    mixture = assemble(
        Run(id="data", store=local_store, recipe=recipe.model_copy(
            update={"evaluation": recipe.evaluation.model_copy(update={"benchmarks": ()})})),
        [prepare(run, subset)],
    )  # fmt: skip
    checkpoint = Manifest(
        kind=ArtifactKind.CHECKPOINT, key="checkpoints/c", fingerprint="c", made_by=MADE,
        inputs={"mixture": mixture.reference()},
    )  # fmt: skip
    commit_manifest(local_store, checkpoint)
    return run


@pytest.fixture
def model(trained: Run, stored_model: Manifest) -> Manifest:
    checkpoint = Manifest(kind=ArtifactKind.CHECKPOINT, key="checkpoints/c", fingerprint="c", made_by=MADE)
    return stored_model.model_copy(update={"inputs": {"checkpoint": checkpoint.reference()}})


def rows_of(run: Run, model: Manifest) -> list[HeldOutRow]:
    from mantis.artifacts.held_out import mixture_of

    return held_out_rows(run.store, mixture_of(run.store, model))


def test_it_follows_the_benchmarks_of_the_recipe(trained: Run) -> None:
    assert resolve_benchmarks(trained) == ["demo-multi", "holdout"]


def test_answers_loss_and_overlap_are_stored(trained: Run, model: Manifest) -> None:
    manifest = evaluate(trained, "holdout", model)
    store, held = trained.store, rows_of(trained, model)
    lines = [json.loads(line) for line in store.get(f"{manifest.key}/responses/actual-00000.jsonl").splitlines()]
    assert {line["id"] for line in lines} == {f"raw/{row.id}" for row in held}
    assert {line["answer"] for line in lines} == {"A picture."}
    assert all(len(line["images"]) == int(line["id"].rpartition("r")[2]) % 3 for line in lines)
    rows = json.loads(store.get(f"{manifest.key}/holdout.json"))["rows"]
    assert [(row["subset"], row["samples"], row["missing"]) for row in rows] == [("", 4, 0), ("raw", 4, 0)]
    assert manifest.summary["loss"] == pytest.approx(rows[0]["loss"])
    assert rows[0]["token_f1"] == pytest.approx(sum(line["official"] for line in lines) / 4)
    assert rows[0]["exact_match"] == pytest.approx(sum(line["strict"] for line in lines) / 4)
    gallery = json.loads(store.get(f"{manifest.key}/gallery.json"))["answers"]
    assert {item["question"].replace("<image>", "") for item in gallery} <= {f"What is this? {row.id}" for row in held}


def test_the_loss_is_that_of_the_answers_tokens(trained: Run, model: Manifest, generator: Generator) -> None:
    rows = json.loads(trained.store.get(f"{evaluate(trained, 'holdout', model).key}/holdout.json"))["rows"]
    expected = []
    for row in rows_of(trained, model):
        number = int(row.id.removeprefix("r"))
        conversation = Conversation(
            id=row.id,
            turns=(Turn(role="user", content="<image>" * (number % 3) + f"What is this? {row.id}"),
                   Turn(role="assistant", content="A picture.")),
            sizes=(ImageSize(width=40, height=30),) * (number % 3),
        )  # fmt: skip
        encoder = generator.encoder
        made = encoder.processor.encode(conversation)
        ids = torch.tensor([made.input_ids])
        pixels = encoder.processor.preprocess([encoded((20 * number, at, 9)) for at in range(number % 3)])
        inputs = encoder.family.generation_inputs(generator.model, ids, pixels, list(range(number % 3)))
        with torch.inference_mode():
            logits = generator.model(input_ids=ids, **inputs).logits[0].log_softmax(-1)
        places = [place for place, label in enumerate(made.labels) if label >= 0]
        expected.append(-sum(float(logits[place - 1, made.labels[place]]) for place in places) / len(places))
    assert rows[0]["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert math.isfinite(rows[0]["loss"])


def test_a_model_without_such_rows_is_refused(trained: Run, stored_model: Manifest, local_store: LocalStore) -> None:
    with pytest.raises(InputError, match=r"not trained on a mixture of this store.*data.holdout = 0"):
        evaluate(trained, "holdout", stored_model)


@pytest.mark.parametrize(
    ("response", "f1", "exact"),
    [
        ("The red car.", 1, 1),
        ("red car", 1, 1),
        ("Red, car!", 1, 1),
        ("a red big car", 0.8, 0),
        ("car", 2 / 3, 0),
        ("blue", 0, 0),
        ("", 0, 0),
        ("red red car", 0.8, 0),
        ("¿Red car?", 1, 1),
    ],
)
def test_overlap_with_a_reference(response: str, f1: float, exact: float) -> None:
    judged = score_response(response, Target(kind="short", answers=("the red car",)), "text-overlap")
    assert (judged.official, judged.strict) == (pytest.approx(f1), exact)


def test_a_name_of_a_benchmark_of_ones_own_is_free(tmp_path: Path) -> None:
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from mantis.errors import ConfigError

    (tmp_path / "holdout.yaml").write_text("title: a")
    with pytest.raises(ConfigError, match="name of a shipped benchmark"):
        load_benchmark(str(tmp_path / "holdout.yaml"))
