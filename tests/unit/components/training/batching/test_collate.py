from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.training.batching.collate import prepare, to_device
from components.training.batching.data_loader import DataLoader, SampleProcessor
from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan
from components.training.loss import sample_losses, share_of_step
from mantis.artifacts.manifest import Manifest
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import TrainingError
from mantis.models.family import Family
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from tests.fixtures.training import MakeRun


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A run with all that a collator needs."""

    run: Run
    mixture: Manifest
    reader: MixtureReader
    kind: Family
    preparer: SampleProcessor


@pytest.fixture(scope="module")
def parts(make_run: MakeRun) -> Parts:
    run, mixture = make_run("collate")
    reader = MixtureReader(run.store, mixture)
    kind = family(run.recipe.model.family)
    preparer = SampleProcessor(reader, kind.processor(reader.tokenizer(), run.recipe.model))
    return Parts(run=run, mixture=mixture, reader=reader, kind=kind, preparer=preparer)


def test_pack_puts_samples_behind_each_other(parts: Parts) -> None:
    reader, preparer = parts.reader, parts.preparer
    samples = preparer.prepare([0, 4, 7])
    batch = preparer.pack(samples)
    lengths = [len(sample.encoding.input_ids) for sample in samples]
    assert lengths == [int(reader.tokens[at]) for at in (0, 4, 7)]
    assert batch.cu_seqlens.tolist() == [0, lengths[0], lengths[0] + lengths[1], sum(lengths)]
    assert batch.position_ids[0].tolist() == [index for length in lengths for index in range(length)]
    assert batch.input_ids[0].tolist() == [token for sample in samples for token in sample.encoding.input_ids]
    assert batch.pixel_values.shape[0] == sum(int(reader.images[at]) for at in (0, 4, 7))
    assert torch.equal(batch.input_ids[0, batch.target_positions + 1], batch.targets)
    assert torch.bincount(batch.target_samples).tolist() == [int(reader.targets[at]) for at in (0, 4, 7)]


def test_a_pack_of_none_is_empty(parts: Parts) -> None:
    preparer = parts.preparer
    batch = preparer.pack([])
    assert batch.input_ids.shape == (1, 0)
    assert batch.pixel_values.shape == (0, 3, 48, 48)
    assert batch.cu_seqlens.tolist() == [0]


def test_loss_is_the_mean_over_tokens_then_over_samples(parts: Parts) -> None:
    preparer = parts.preparer
    batch = preparer.pack(preparer.prepare([0, 4, 7]))
    logits = torch.randn(len(batch.targets), 400, generator=torch.Generator().manual_seed(0))
    losses = sample_losses(logits, batch)
    for sample in range(3):
        own = batch.target_samples == sample
        assert losses[sample] == pytest.approx(
            torch.nn.functional.cross_entropy(logits[own], batch.targets[own]).item(), rel=1e-6
        )
    share = share_of_step(losses, samples_of_step=12, world_size=4)
    assert share.item() == pytest.approx(losses.mean().item(), rel=1e-6)


def test_a_weight_multiplies_the_loss_of_its_sample_alone(parts: Parts) -> None:
    preparer = parts.preparer
    samples = preparer.prepare([0, 4, 7])
    weighted = [replace(samples[0], weight=2.0), samples[1], replace(samples[2], weight=0.25)]
    plain, batch = preparer.pack(samples), preparer.pack(weighted)
    assert plain.weights.tolist() == [1.0, 1.0, 1.0]
    logits = torch.randn(len(batch.targets), 400, generator=torch.Generator().manual_seed(0), requires_grad=True)
    losses = sample_losses(logits, batch)
    expected = sample_losses(logits, plain) * torch.tensor([2.0, 1.0, 0.25])
    assert torch.equal(losses, expected)
    # A weight of 2 counts as two visits in the same step: the gradient is that of a pack with the sample twice.
    twice = preparer.pack([samples[0], samples[0], samples[1]])
    places = torch.cat([torch.arange(len(plain.targets))[plain.target_samples == at] for at in (0, 0, 1)])
    once = preparer.pack([weighted[0], samples[1]])
    own = torch.arange(len(plain.targets))[plain.target_samples < 2]
    (by_visits,) = torch.autograd.grad(sample_losses(logits[places], twice).sum(), logits)
    (by_weight,) = torch.autograd.grad(sample_losses(logits[own], once).sum(), logits)
    assert torch.allclose(by_visits, by_weight, atol=1e-7)


def test_a_sample_that_cannot_be_prepared_is_named(parts: Parts) -> None:
    run, reader, kind = parts.run, parts.reader, parts.kind
    processor = kind.processor(reader.tokenizer(), run.recipe.model)
    good = reader.take([0])[0]
    poison = replace(good, images=[b"no image"] * len(good.images))
    with pytest.raises(TrainingError, match="Sample colours-0 cannot be prepared"):
        prepare(poison, processor=processor, tokens=int(reader.tokens[0]))
    with pytest.raises(TrainingError, match="the mixture's index says 3"):
        prepare(good, processor=processor, tokens=3)


def test_a_sample_is_refused_for_each_of_its_faults(parts: Parts) -> None:
    run, reader, kind = parts.run, parts.reader, parts.kind
    processor = kind.processor(reader.tokenizer(), run.recipe.model)
    good, tokens = reader.take([0])[0], int(reader.tokens[0])
    whole = prepare(good, processor=processor, tokens=tokens)
    assert (whole.id, whole.weight, len(whole.encoding.input_ids)) == ("colours-0", good.weight, tokens)
    heavy = prepare(replace(good, weight=3.0), processor=processor, tokens=tokens)
    assert heavy.weight == 3.0
    with pytest.raises(TrainingError, match=r"images of .* patches; its row says"):
        prepare(replace(good, images=good.images * 2), processor=processor, tokens=tokens)
    silent = [replace(turn, learned=False) for turn in good.conversation.turns]
    unlearned = replace(good, conversation=replace(good.conversation, turns=tuple(silent)))
    with pytest.raises(TrainingError, match="colours-0 has no target token"):
        prepare(unlearned, processor=processor, tokens=tokens)
    with pytest.raises(TrainingError, match="prepared: An image of 8 bytes cannot be decoded"):
        prepare(replace(good, images=[b"no image"] * len(good.images)), processor=processor, tokens=tokens)
    nothing: dict[str, Any] = {}
    unexpected: Any = SimpleNamespace(encode=lambda conversation: nothing["x"])
    with pytest.raises(TrainingError, match="Sample colours-0 cannot be prepared: KeyError: 'x'"):
        prepare(good, processor=unexpected, tokens=tokens)


def test_a_batch_moves_as_its_fields_say(parts: Parts) -> None:
    """Pixels take the model's type. Lengths and grids stay on the host, where the forward pass reads them."""
    preparer = parts.preparer
    batch = preparer.pack(preparer.prepare([0, 4]))
    assert to_device(batch, torch.device("cpu"), torch.float32) is batch
    half = to_device(batch, torch.device("cpu"), torch.bfloat16)
    assert half.pixel_values.dtype == torch.bfloat16
    assert (half.input_ids.dtype, half.weights.dtype) == (torch.int64, torch.float32)
    moved = to_device(batch, torch.device("meta"), torch.float32)
    on_host = {field.name for field in fields(moved) if getattr(moved, field.name).device.type == "cpu"}
    assert on_host == {"cu_seqlens", "image_grid"}
    assert moved.pixel_values.dtype == torch.float32


def test_the_feed_raises_what_its_thread_met(parts: Parts) -> None:
    reader, preparer = parts.reader, parts.preparer
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=8,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=200, patches=1000),
        cost=CostModel(quadratic=0.0, patch=1.0),
    )
    with DataLoader(preparer, plan, start=2, rank=0, world_size=1) as feed:
        works = list(feed)
    assert [work.step for work in works] == list(range(2, plan.steps))
    assert sum(batch.cu_seqlens.numel() - 1 for work in works for batch in work.batches) == len(reader) - 16

    tokens = reader.tokens
    reader.tokens = tokens + 1
    try:
        with (
            pytest.raises(TrainingError, match="Sample colours-"),
            DataLoader(preparer, plan, start=0, rank=0, world_size=1) as feed,
        ):
            list(feed)
    finally:
        reader.tokens = tokens
