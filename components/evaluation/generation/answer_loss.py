"""The loss of reference answers: how likely a model finds the answer that a row has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from mantis.generation.generator import Generator
from mantis.generation.sample_images import Picture
from mantis.models.conversation import Conversation, Turn
from mantis.models.family import IGNORE


@dataclass(frozen=True, kw_only=True)
class ReferenceAnswer:
    """A prompt with an `<image>` mark for each image, and the answer that is expected."""

    id: str
    prompt: str
    answer: str
    pictures: tuple[Picture, ...]


@torch.inference_mode()
def answer_losses(generator: Generator, references: Sequence[ReferenceAnswer]) -> Iterator[float]:
    """Yield the mean cross-entropy of each answer's tokens, in nats per token.

    The targets are those of training: the tokens of the answer and its end token. One forward pass per answer.
    """
    model, encoder = generator.model, generator.encoder
    for reference in references:
        turns = (Turn(role="user", content=reference.prompt), Turn(role="assistant", content=reference.answer))
        sizes = tuple(picture.size for picture in reference.pictures)
        encoded = encoder.processor.encode(Conversation(id=reference.id, turns=turns, sizes=sizes))
        input_ids, labels = torch.tensor([encoded.input_ids]), torch.tensor(encoded.labels)
        targets = (labels != IGNORE).nonzero()[:, 0]
        pixels = encoder.processor.preprocess([picture.load() for picture in reference.pictures])
        shown = list(range(len(reference.pictures)))
        output = model(
            input_ids=input_ids.to(model.device),
            attention_mask=torch.ones_like(input_ids).to(model.device),
            **encoder.family.generation_inputs(model, input_ids, pixels, shown),
            use_cache=False,
            logits_to_keep=(targets - 1).to(model.device),  # position t predicts token t + 1
        )
        yield float(cross_entropy(output.logits[0].float(), labels[targets].to(model.device)))
