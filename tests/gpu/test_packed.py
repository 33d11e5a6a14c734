import io
from typing import Any

import pytest
import torch
from PIL import Image

from components.training.batching.collate import Prepared, collate, to_device
from components.training.loss import LossHead
from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names

SETTINGS = ModelSettings(from_scratch=FromScratch(text_width=128, text_heads=2, vocabulary=1000))
TOLERANCE = 2e-2  # of bf16


def prepared(processor: Any, count: Any) -> Any:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 40, 90)).save(picture, "PNG")
    samples = []
    for number in range(count):
        turns = (
            Turn(role="user", content=f"{IMAGE_MARK} " + f"number {number} " * (3 * number + 1)),
            Turn(role="assistant", content=f"it is {number} " * (number + 1)),
        )
        conversation = Conversation(id=str(number), turns=turns, sizes=(ImageSize(width=64, height=48),))
        encoding = processor.encode(conversation)
        pixels = processor.preprocess([picture.getvalue()])
        samples.append(Prepared(id=str(number), encoding=encoding, pixels=pixels))
    return samples


@pytest.mark.parametrize("name", [name for name in family_names() if name.startswith("llava")])
@pytest.mark.parametrize("chunk_logits", [500, 2**26], ids=["chunks", "whole"])
def test_packed_equals_separate_and_a_step_lowers_the_loss(device: torch.device, name: Any, chunk_logits: int) -> None:
    kind = family(name)
    text = [f"{number} {number}" for number in range(2000)]
    tokenizer = train_tokenizer(text, vocabulary=1000, special_tokens=kind.special_tokens())
    processor = kind.processor(tokenizer, SETTINGS)
    model = kind.build(processor, seed=0).to(device, torch.bfloat16)
    samples, none = prepared(processor, 6), processor.preprocess([])
    head = LossHead(model, chunk_logits=chunk_logits)

    def losses(members: Any) -> Any:
        batch = to_device(collate(members, no_pixels=none), device, torch.bfloat16)
        return head.sample_losses(kind, model, batch)

    packed, separate = losses(samples), torch.cat([losses([sample]) for sample in samples])
    torch.testing.assert_close(packed, separate, atol=TOLERANCE, rtol=TOLERANCE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    packed.mean().backward()
    optimizer.step()
    assert losses(samples).mean() < packed.mean()
