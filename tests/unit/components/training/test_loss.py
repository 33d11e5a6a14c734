"""The loss head computes chunk by chunk what it computes at once, and one chunk of logits at a time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from components.training.loss import LossHead, mean_per_sample, share_of_step
from mantis.models.packed_batch import PackedBatch

VOCABULARY, WIDTH, TARGETS = 10, 4, 7
SAMPLES = [0, 0, 0, 1, 1, 1, 1]  # the sample of each target


class Head(nn.Linear):
    """Notes how many rows of logits each call makes."""

    rows: list[int]

    def forward(self, hidden: Tensor) -> Tensor:
        self.rows.append(hidden.numel() // WIDTH)
        return super().forward(hidden)


def batch(weights: tuple[float, ...] = (1.0, 1.0)) -> PackedBatch:
    nothing = torch.zeros(0, dtype=torch.int64)
    return PackedBatch(
        input_ids=nothing,
        position_ids=nothing,
        cu_seqlens=torch.tensor([0, 4, 9], dtype=torch.int32),
        pixel_values=torch.zeros(0),
        image_grid=nothing,
        targets=torch.tensor([1, 9, 0, 3, 3, 7, 2]),
        target_positions=nothing,
        target_samples=torch.tensor(SAMPLES),
        weights=torch.tensor(weights),
    )


class Model:
    """A head behind given hidden states, as the loss sees a model."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.head = Head(WIDTH, VOCABULARY, bias=False)
        self.head.rows = []
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(VOCABULARY, WIDTH, generator=generator))
        self.hidden = torch.randn(1, TARGETS, WIDTH, generator=generator).requires_grad_()
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=VOCABULARY))

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, engine: Any, packed: PackedBatch) -> Tensor:
        assert (engine, packed.targets.numel()) == ("engine", TARGETS)
        found = self.head(self.hidden)
        assert found.shape in ((1, TARGETS, VOCABULARY), (1, TARGETS, 1)), "a model may index the last dimension"
        return found[0]


def losses_of(model: Any, chunk_logits: int, packed: PackedBatch) -> Tensor:
    return LossHead(model, chunk_logits=chunk_logits).sample_losses(model, "engine", packed)


@pytest.mark.parametrize(
    ("chunk_logits", "rows"),
    [
        (VOCABULARY * TARGETS, [7]),  # exactly the whole: no chunks
        (VOCABULARY * TARGETS - 1, [6, 1]),
        (3 * VOCABULARY, [3, 3, 1]),
        (3 * VOCABULARY - 1, [2, 2, 2, 1]),
        (1, [1] * 7),  # less than one row
    ],
)
def test_chunks_change_neither_losses_nor_gradients(chunk_logits: int, rows: list[int]) -> None:
    packed = batch((1.0, 0.5))
    whole, chunked = Model(), Model()
    expected = cross_entropy(whole.hidden[0] @ whole.head.weight.T, packed.targets, reduction="none")
    means = torch.stack([expected[:3].mean(), 0.5 * expected[3:].mean()])
    found = losses_of(chunked, chunk_logits, packed)
    assert chunked.head.rows == rows
    torch.testing.assert_close(found, means)
    means.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(chunked.hidden.grad, whole.hidden.grad)
    torch.testing.assert_close(chunked.head.weight.grad, whole.head.weight.grad)


def test_chunks_are_computed_again_instead_of_kept() -> None:
    model = Model()
    losses = losses_of(model, VOCABULARY, batch())
    assert model.head.rows == [1] * 7
    losses.sum().backward()
    assert model.head.rows == [1] * 14


def test_a_head_learns_behind_a_model_that_does_not() -> None:
    model = Model()
    model.hidden = model.hidden.detach()
    losses_of(model, VOCABULARY, batch()).sum().backward()
    assert model.head.weight.grad is not None


def test_the_head_gives_logits_before_and_after_a_loss() -> None:
    model: Any = Model()
    head = LossHead(model, chunk_logits=1)
    assert model.head(model.hidden).shape == (1, TARGETS, VOCABULARY)
    head.sample_losses(model, "engine", batch())
    assert model.head(model.hidden).shape == (1, TARGETS, VOCABULARY)
    with pytest.raises(AssertionError):
        head.sample_losses(model, "another engine", batch())
    assert model.head(model.hidden).shape == (1, TARGETS, VOCABULARY)


def test_losses_of_half_precision_are_of_single_precision() -> None:
    for chunk_logits in (1, 10_000):
        model: Any = Model()
        model.head.to(torch.bfloat16)
        model.hidden = model.hidden.detach().to(torch.bfloat16)
        assert losses_of(model, chunk_logits, batch()).dtype == torch.float32


def test_a_sample_without_a_target_has_no_loss() -> None:
    losses = torch.tensor([3.0, 1.0])
    packed = batch((1.0, 4.0))
    one = PackedBatch(**{**vars(packed), "target_samples": torch.tensor([1, 1]), "targets": torch.tensor([0, 1])})
    assert mean_per_sample(losses, one).tolist() == [0.0, 8.0]


def test_a_share_is_scaled_by_ranks_and_samples() -> None:
    assert share_of_step(torch.tensor([1.0, 2.0]), samples_of_step=6, world_size=2).item() == 1.0
    assert share_of_step(torch.tensor([6.0]), samples_of_step=3, world_size=1).item() == 2.0
