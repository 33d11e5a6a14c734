"""The loss head in bf16 on a GPU that is not there; the families' forward passes are in test_families.py."""

import pytest
import torch

from components.training.batching.collate import Prepared, collate, to_device
from components.training.loss import LossHead
from mantis.models.registry import family_names
from mantis.models.verification.fake_gpu import GPU, fake_gpu, to_fake_gpu
from mantis.models.verification.family_checks import FamilyCase, family_case

WHOLE, CHUNKS = 2**26, 5000


def packed(case: FamilyCase) -> list[Prepared]:
    return [Prepared(id=each.conversation.id, encoding=each.encoding, pixels=each.pixels) for each in case.samples]


@pytest.mark.parametrize("chunk_logits", [WHOLE, CHUNKS], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", family_names())
def test_losses_need_no_value_of_the_gpu(name: str, chunk_logits: int) -> None:
    case = family_case(name)
    batch = collate(packed(case), no_pixels=case.processor.preprocess([]))
    model = case.model()
    with torch.no_grad(), fake_gpu() as operators:
        to_fake_gpu(model, torch.bfloat16)
        head = LossHead(model, chunk_logits=chunk_logits)
        losses = head.sample_losses(case.family, model, to_device(batch, GPU, torch.bfloat16))
    assert (losses.device, losses.dtype, list(losses.shape)) == (GPU, torch.float32, [len(case.samples)])
    assert any("varlen" in operator for operator in operators)


def test_lengths_and_grids_stay_on_the_host() -> None:
    case = family_case("idefics2")
    batch = collate(packed(case), no_pixels=case.processor.preprocess([]))
    with fake_gpu():
        moved = to_device(batch, GPU, torch.bfloat16)
        assert moved.cu_seqlens is batch.cu_seqlens
        assert moved.image_grid is batch.image_grid
        assert {moved.input_ids.device, moved.pixel_values.device, moved.weights.device} == {GPU}
