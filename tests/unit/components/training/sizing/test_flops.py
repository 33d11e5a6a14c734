from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.training.batching.data_loader import SampleProcessor
from components.training.engine.parameter_groups import freeze
from components.training.loss import LossHead
from components.training.sizing.flops import devices, flops_of, peak_flops
from mantis.artifacts.manifest import Manifest
from mantis.config.training_settings import TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.flop_groups import TOWER_GROUPS
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from tests.fixtures.training import MakeRun
from tests.helpers.tested_families import paper_first


def check(run: Run, mixture: Manifest, settings: TrainingSettings) -> None:
    """One sample of several images, by us and by torch."""
    reader = MixtureReader(run.store, mixture)
    kind = family(run.recipe.model.family)
    processor = kind.processor(reader.tokenizer(), run.recipe.model)
    model = kind.build(processor, seed=0)
    freeze(model, kind, settings)
    position = int(np.argmax(reader.images))
    preparer = SampleProcessor(reader, processor)
    batch = preparer.pack(preparer.prepare([position]))
    # Of the attention kernels torch counts those for GPUs, and the products of the plain one.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        LossHead(model).sample_losses(kind, model, batch).sum().backward()
    columns = {name: getattr(reader, name)[[position]] for name in ("tokens", "targets", "patches", "images")}
    expected = float(flops_of(model, kind, settings)(**columns)[0])
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("train", [("vision", "projector", "text"), ("projector", "text"), ("projector",)])
def test_the_count_is_what_torch_counts(make_run: MakeRun, train: tuple[Any, ...]) -> None:
    check(*make_run("flops"), TrainingSettings(train=train))


@pytest.mark.parametrize("name", paper_first())
def test_the_groups_of_a_family_are_what_torch_counts(make_run: MakeRun, name: Any) -> None:
    run, mixture = make_run(f"flops-small-{name}", {"model.family": name})
    check(run, mixture, TrainingSettings(train=("vision", "projector", "text")))


@pytest.mark.parametrize("name", ["idefics2", "flamingo"])
def test_a_resampler_works_on_its_latents(make_run: MakeRun, name: str) -> None:
    """It makes few latents of many patches: what comes behind them costs as much for any size of image."""
    shape = {"model.image.size": "96", "model.image.patch_size": "8", "model.image.latents": "2"}
    run, mixture = make_run(f"flops-{name}", {"model.family": name, **shape})
    check(run, mixture, TrainingSettings(train=("vision", "projector", "text")))


def test_a_family_without_its_groups_is_counted_wrong(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would hold for any groups."""
    monkeypatch.setattr(type(family("idefics2")), "flop_groups", lambda _: TOWER_GROUPS)
    shape = {"model.image.size": "96", "model.image.patch_size": "8", "model.image.latents": "2"}
    run, mixture = make_run("flops-wrong", {"model.family": "idefics2", **shape})
    with pytest.raises(AssertionError):
        check(run, mixture, TrainingSettings(train=("vision", "projector", "text")))


def test_a_cpu_is_measured_and_cards_are_data() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), torch.float32) < 1e13
    assert {"A100", "H100", "H200"} <= {entry["match"] for entry in devices()}
