"""The written list of the steps whose address follows from each field. A field that is missing here fails the test.

A field that leaves an identity by mistake would give users the result of another recipe. So the list is not derived
from the marks of the fields.
"""

from typing import Any

import pytest

from mantis.config.identity import Settings
from mantis.config.recipe import Recipe, parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.golden.fingerprints import fingerprints_of, put_inputs
from tests.golden.sections import section_in
from tests.helpers.recipe_strategies import with_value

BASE = """
name: addresses
model: {prompt: compact, from_scratch: {}}
data: {context_length: 2048, holdout: 5, subsets: [{name: demo-single, cap: 100}]}
training:
  epochs: 2
  evaluate_every: 4
  keep_best: true
  zero_stage: 2
  adapter: {}
  parts: {text: {learning_rate: 0.001, weight_decay: 0.1}}
evaluation: {benchmarks: [demo-single]}
"""
PREPARE, ASSEMBLE, TRAIN, CONVERT = ("prepare-demo-single",), ("assemble",), ("train",), ("convert",)
EVALUATE, RESPONSES = ("evaluate-demo-single",), ("responses-demo-single",)
CONTAMINATION, REPORT = ("contamination",), ("report",)
SHAPE = (*ASSEMBLE, *TRAIN, *EVALUATE)  # evaluation reads the model's settings from the recipe
SEEN = (*SHAPE, *RESPONSES)
NO_STEP = ()

# Field -> another value than in BASE, and the steps that get another address with it.
DECIDES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "name": ("another", NO_STEP),
    "description": ("Another text.", NO_STEP),
    "seed": (7, (*PREPARE, *ASSEMBLE, *CONTAMINATION, *TRAIN, *EVALUATE)),
    "tracking.experiment": ("another", NO_STEP),
    "model.prompt": ("llama3", SEEN),
    "model.image.size": (72, SEEN),
    "model.image.width": (96, SEEN),
    "model.image.patch_size": (12, SEEN),
    "model.image.feature_layer": (-2, SEEN),
    "model.image.feature_select": ("full", SEEN),
    "model.image.latents": (8, SEEN),
    "model.image.smallest": (16, SEEN),
    "model.image.partial_patches": (True, SEEN),
    "model.image.min_pixels": (100, SEEN),
    "model.image.max_pixels": (10_000, SEEN),
    "model.image.max_pixels_per_sample": (20_000, SEEN),
    "model.from_scratch.vision_width": (32, SHAPE),
    "model.from_scratch.vision_layers": (1, SHAPE),
    "model.from_scratch.vision_heads": (2, SHAPE),
    "model.from_scratch.vision_position_std": (0.1, SHAPE),
    "model.from_scratch.text_width": (64, SHAPE),
    "model.from_scratch.text_layers": (1, SHAPE),
    "model.from_scratch.text_heads": (2, SHAPE),
    "model.from_scratch.text_mlp_ratio": (2.0, SHAPE),
    "model.from_scratch.vocabulary": (512, SHAPE),
    "data.format": ("json", PREPARE),
    "data.columns": ({"q": "question"}, PREPARE),
    "data.generated_conversations": (99, PREPARE),
    "data.sampling": ("sqrt", ASSEMBLE),
    "data.holdout": (6, ASSEMBLE),
    "data.learn": ("last", ASSEMBLE),
    "data.ignore": (["x"], PREPARE),
    "data.context_length": (77, ASSEMBLE),
    "data.max_turn_characters": (55, PREPARE),
    "data.max_image_pixels": (99, PREPARE),
    "data.max_image_bytes": (99, PREPARE),
    "data.max_frames": (2, PREPARE),
    "data.max_video_bytes": (99, PREPARE),
    "data.subsets.0.cap": (3, ASSEMBLE),
    "data.subsets.0.order": ("source", ASSEMBLE),
    "data.subsets.0.repeat": (2, ASSEMBLE),
    "data.subsets.0.max_images": (3, PREPARE),
    "training.epochs": (3, TRAIN),
    "training.max_steps": (3, TRAIN),
    "training.global_batch_size": (2, TRAIN),
    "training.learning_rate": (0.5, TRAIN),
    "training.weight_decay": (0.5, TRAIN),
    "training.betas": ([0.1, 0.2], TRAIN),
    "training.eps": (0.1, TRAIN),
    "training.max_grad_norm": (9.0, TRAIN),
    "training.precision": ("fp32", TRAIN),
    "training.train": (["text"], TRAIN),
    "training.seed": (9, TRAIN),
    "training.loss_spike_factor": (9.0, TRAIN),
    "training.max_skipped_steps": (9, TRAIN),
    "training.evaluate_every": (5, TRAIN),
    "training.keep_best": (False, TRAIN),
    "training.patience": (2, TRAIN),
    "training.schedule.kind": ("linear", TRAIN),
    "training.schedule.warmup_ratio": (0.5, TRAIN),
    "training.schedule.flat_ratio": (0.2, TRAIN),
    "training.adapter.kind": ("lora", TRAIN),
    "training.adapter.rank": (4, TRAIN),
    "training.adapter.alpha": (4, TRAIN),
    "training.adapter.rslora": (True, TRAIN),
    "training.adapter.dropout": (0.5, TRAIN),
    "training.adapter.init": ("gaussian", TRAIN),
    "training.adapter.targets": (["q_proj"], TRAIN),
    "training.adapter.whole": (["projector"], TRAIN),
    "training.adapter.modules_to_save": (["embed_tokens"], TRAIN),
    "training.adapter.quantized": (["text"], TRAIN),
    "training.parts.text.learning_rate": (0.5, TRAIN),
    "training.parts.text.weight_decay": (0.5, TRAIN),
    "conversion.checkpoint": ("best", CONVERT),
    "conversion.precision": ("fp32", CONVERT),
    "evaluation.profile": ("official", NO_STEP),  # generated benchmarks have one prompt for all profiles
    "evaluation.samples_per_skill": (9, (*CONTAMINATION, *EVALUATE)),
    "evaluation.limit": (3, EVALUATE),
    "evaluation.scoring": ("strict", EVALUATE),
    "evaluation.controls": ([], EVALUATE),
    "evaluation.layout": ("merge", EVALUATE),
}
# The same for fields of the machine, or of the comparison with others: the name of a run stays.
OF_THE_MACHINE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "data.max_dropped": (0.5, NO_STEP),
    "data.workers": (7, NO_STEP),
    "data.cache_gb": (1.0, NO_STEP),
    "training.gradient_checkpointing": (False, NO_STEP),
    "training.zero_stage": (3, NO_STEP),
    "training.cpu_offload": (True, NO_STEP),
    "training.launcher": ("trainjob", NO_STEP),
    "training.nodes": (2, NO_STEP),
    "training.gpus_per_node": (4, NO_STEP),
    "training.token_budget": (99, NO_STEP),
    "training.patch_budget": (99, NO_STEP),
    "training.data_workers": (5, NO_STEP),
    "training.hang_timeout_seconds": (5.0, NO_STEP),
    "training.checkpoint_every": (9, NO_STEP),
    "training.keep_last": (9, NO_STEP),
    "training.keep_every": (9, NO_STEP),
    "training.log_every": (9, NO_STEP),
    "evaluation.reference": ("another", REPORT),
    "evaluation.margin": (9.0, REPORT),
    "evaluation.batch_tokens": (99, NO_STEP),
    "evaluation.batch_patches": (99, NO_STEP),
    "evaluation.processes": (3, NO_STEP),
    "cluster.namespace": ("another", NO_STEP),
    "cluster.image": ("another", NO_STEP),
    "cluster.runtime": ("another", NO_STEP),
    "cluster.queue": ("another", NO_STEP),
    "cluster.priority": ("another", NO_STEP),
    "cluster.gpu_hour_price": (2.5, REPORT),
    "cluster.deploy": (True, NO_STEP),
    "cluster.resources": ({"memory": "9Gi"}, NO_STEP),
}
# The golden fingerprints of the shipped recipes hold these fields: another value needs other inputs or steps.
ELSEWHERE = {
    "schema_version", "model.family", "model.base", "model.vision", "model.projector", "data.source", "data.mixture",
    "data.skills", "data.subsets.0.name", "data.subsets.0.held_out", "evaluation.source", "evaluation.benchmarks",
    "evaluation.own_benchmarks",
}  # fmt: skip


def test_every_field_is_in_the_list_once() -> None:
    found = set(_plain_fields(Recipe, ""))
    listed = [*DECIDES, *OF_THE_MACHINE, *ELSEWHERE]
    assert len(listed) == len(set(listed))
    assert set(listed) == found, "say in this file what a new field decides"


@pytest.fixture(scope="module")
def base() -> Recipe:
    return parse_recipe(BASE, origin="test")


@pytest.mark.parametrize(("fields", "names"), [(DECIDES, True), (OF_THE_MACHINE, False)], ids=["results", "machine"])
def test_a_field_decides_what_is_written_here(
    base: Recipe, local_store: LocalStore, fields: dict[str, tuple[Any, tuple[str, ...]]], names: bool
) -> None:
    put_inputs(local_store, base)
    before = fingerprints_of(Run(id="x", store=local_store, recipe=base))
    found, named = {}, set()
    for field, (value, _) in fields.items():
        other = with_value(base, _path(field), value)
        assert other != base, field
        after = fingerprints_of(Run(id="x", store=local_store, recipe=other))
        assert after.keys() == before.keys()
        found[field] = {step for step in before if before[step] != after[step]}
        named |= {field} if other.default_run_id() != base.default_run_id() else set()
    assert found == {field: set(steps) for field, (_, steps) in fields.items()}
    assert named == (set(fields) if names else set())


def _path(field: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))


def _plain_fields(section: type[Settings], place: str) -> list[str]:
    """The dotted names of all fields that hold no section. Items of a list are at 0, of `parts` at `text`."""
    found = []
    for name, field in section.model_fields.items():
        dotted = f"{place}.{name}" if place else name
        inner = section_in(field.annotation)
        if inner is None:
            found.append(dotted)
        else:
            item = {"data.subsets": ".0", "training.parts": ".text"}.get(dotted, "")
            found += _plain_fields(inner, dotted + item)
    return found
