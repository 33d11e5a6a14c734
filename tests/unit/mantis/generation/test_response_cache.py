"""A response's key holds the model, the prompt's text, the images and the decoding, and nothing else."""

from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Skill, load_benchmark
from mantis.artifacts.manifest import Manifest
from mantis.generation.answerer import Question
from mantis.generation.answering_models import FamilyModel
from mantis.generation.cache.response_cache import ResponseCache
from mantis.generation.decoding import Decoding
from mantis.generation.sample_images import grey_picture
from mantis.models.conversation import ImageSize
from mantis.runs.step_runner import Run


def picture(width: int) -> Any:
    return grey_picture(ImageSize(width=width, height=48))


ASKED = {"id": "q1", "prompt": "<image>What is it?", "pictures": (picture(48),), "allowed": ("A", "B")}


def key(run: Run, model: Manifest, *, benchmark: Benchmark | None = None, decoding: Any = None, **asked: Any) -> str:
    described = benchmark or load_benchmark("blink")
    cache = ResponseCache(
        store=run.store,
        settings=run.recipe.evaluation,
        questions=described.name,
        title=described.title,
        decoding=decoding or Decoding(max_new_tokens=8),
        model=FamilyModel(manifest=model, settings=run.recipe.model),
    )
    return f"{cache.prefix} {cache.key(Question(**{**ASKED, **asked}))}"


def with_settings(run: Run, section: str, **changed: Any) -> Run:
    settings = getattr(run.recipe, section).model_copy(update=changed)
    return Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={section: settings}))


@pytest.mark.parametrize(
    "changed",
    [
        {"metric": "mantis"},
        {"aggregation": "micro"},
        {"aggregation": None},
        {"split": "validation"},
        {"title": "Another"},
        {"profile": "official"},
        {"skills": {"Jigsaw": Skill(label="Puzzles", chance=0.4)}},
        {"paper": ()},
        {"kind": "short"},
        {"hub": None, "layout": "json"},
    ],
)
def test_what_only_decides_scores_keeps_the_key(eval_run: Run, stored_model: Manifest, changed: dict[str, Any]) -> None:
    other = load_benchmark("blink").model_copy(update=changed)
    assert key(eval_run, stored_model, benchmark=other) == key(eval_run, stored_model)


def test_names_and_settings_of_the_run_keep_the_key(eval_run: Run, stored_model: Manifest) -> None:
    before = key(eval_run, stored_model)
    assert key(eval_run, stored_model, id="renamed") == before
    assert key(with_settings(eval_run, "evaluation", scoring="strict", controls=()), stored_model) == before
    assert key(with_settings(eval_run, "training", learning_rate=0.5), stored_model) == before
    assert key(with_settings(eval_run, "model", base="models/abc"), stored_model) == before


def test_what_decides_the_response_changes_the_key(eval_run: Run, stored_model: Manifest) -> None:
    longer, stopped = Decoding(max_new_tokens=9), Decoding(max_new_tokens=8, stop=("end-of-text",))
    image = eval_run.recipe.model.image.model_copy(update={"size": 96})
    keys = [
        key(eval_run, stored_model),
        key(eval_run, stored_model, prompt="<image>What is it"),
        key(eval_run, stored_model, pictures=(picture(49),)),
        key(eval_run, stored_model, pictures=(picture(48), picture(48))),
        key(eval_run, stored_model, allowed=()),
        key(eval_run, stored_model, decoding=longer),
        key(eval_run, stored_model, decoding=stopped),
        key(eval_run, stored_model.model_copy(update={"fingerprint": "another"})),
        key(with_settings(eval_run, "model", prompt="llama3"), stored_model),
        key(with_settings(eval_run, "model", image=image), stored_model),
    ]
    assert len(set(keys)) == len(keys)
