"""From bases laid out as the published ones to a report: prepare, train, convert and evaluate, for every family."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from components.conversion.step import convert
from components.data.step import assemble, prepare, resolve_subsets
from components.evaluation.step import evaluate, resolve_benchmarks
from components.reporting.step import report
from components.training.step import train
from mantis.artifacts.manifest import Manifest
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.registry import family, family_names
from mantis.runs.step_runner import Run
from pipelines.execution.preflight import preflight
from tests.fixtures.published_layouts import published_layout

SMALL = {
    "data.generated_conversations": "40",
    "training.max_steps": "2",
    "training.gpus_per_node": "1",
    "training.learning_rate": "1e-3",
    "training.weight_decay": "0.0",  # a row that learns nothing stays as it is
    "evaluation.samples_per_skill": "2",
    "evaluation.controls": "[]",
}
# family -> the tokens of the data that its published base has no row for; other families have all
LACKING = {
    "flamingo": ["<|endofchunk|>"],
    "fuyu": ["|IMAGE|", "|ENDOFIMAGE|"],
    "idefics2": [],
    "llava-clip": ["<image>"],
    "llava-siglip": ["<image>"],
}
FAST = "idefics2"
FAMILIES = [name if name == FAST else pytest.param(name, marks=pytest.mark.slow) for name in family_names()]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has ended, and what it made."""

    run: Run
    mixture: Manifest
    model: Manifest
    report: Manifest


def run_demo(folder: Path, changes: dict[str, str]) -> Finished:
    """Take the demo's recipe with changes through all steps, in the store below `folder`."""
    run = preflight("demo", SMALL | changes, "", (folder / "store").as_uri())
    mixture = assemble(run, [prepare(run, subset) for subset in resolve_subsets(run)])
    model = convert(run, train(run, mixture))
    evaluations = [evaluate(run, benchmark, model) for benchmark in resolve_benchmarks(run)]
    return Finished(run=run, mixture=mixture, model=model, report=report(run, evaluations))


def loaded(done: Finished) -> Any:
    folder = Path(done.run.store.url.removeprefix("file://")) / done.model.key
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def rows_of(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of embedding and head. Idefics 1 keeps those of added tokens apart."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = []
    for module, apart in ((embedding, "additional_embedding"), (head, "additional_fc")):
        parts = [module.weight, *([getattr(module, apart).weight] if hasattr(module, apart) else [])]
        found.append(torch.cat(parts))
    return found[0], found[1]


def check_every_token_has_a_row(done: Finished, name: str) -> set[int]:
    """Check the tokens of all samples against the trained model. Returns the tokens."""
    reader = MixtureReader(done.run.store, done.mixture)
    processor = family(name).processor(reader.tokenizer(), done.run.recipe.model)
    encodings = [processor.encode(sample.conversation) for sample in reader.take(range(len(reader)))]
    used = {token for encoding in encodings for token in encoding.input_ids}
    embedding, head = rows_of(loaded(done))
    assert max(used) < len(embedding) == len(head)
    return used


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_from_a_published_layout_trains_the_new_rows(name: str, tmp_path: Path) -> None:
    changes = published_layout(name, tmp_path / "published")
    done = run_demo(tmp_path, changes)
    summary = json.loads(done.run.store.get(f"{done.report.key}/summary.json"))
    assert summary["training"]["steps"] == 2
    assert {row["benchmark"] for row in summary["scores"]} == {"demo-multi", "demo-single"}
    used = check_every_token_has_a_row(done, name)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(changes["model.base"])
    new = sorted(token for token in used if token >= len(tokenizer))
    kind = family(name)
    reader = MixtureReader(done.run.store, done.mixture)
    processor = kind.processor(reader.tokenizer(), done.run.recipe.model)
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    begun = kind.build(processor, seed=done.run.recipe.seed)
    before, after = rows_of(begun), rows_of(loaded(done))
    assert all(len(old) == len(trained) for old, trained in zip(before, after, strict=True))
    lacking = [reader.tokenizer().convert_ids_to_tokens(token) for token in new]
    assert lacking == LACKING.get(name, [])
    for old, trained in zip(before, after, strict=True):
        learned = [token for token in new if token != image]  # its embedding gives way to the image's features
        assert all((old[token] != trained[token]).any() for token in learned)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip"])
def test_stage_2_starts_from_the_projector_of_stage_1(name: str, tmp_path: Path) -> None:
    changes = published_layout(name, tmp_path / "published")
    first = run_demo(tmp_path, changes | {"model.prompt": "plain", "training.train": "[projector]"})
    check_every_token_has_a_row(first, name)
    second = run_demo(tmp_path, changes | {"model.projector": first.model.key, "training.train": "[text]"})
    check_every_token_has_a_row(second, name)
    projectors = [loaded(done).model.multi_modal_projector.state_dict() for done in (first, second)]
    assert all(torch.equal(projectors[1][key], value) for key, value in projectors[0].items())
