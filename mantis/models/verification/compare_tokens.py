"""Whether our tokens, labels and pixels are those of transformers and the official rules: `mantis model verify`."""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn
from mantis.models.family import Processor
from mantis.models.verification.reference_processor import FamilyReference, expected, saved_processor

SEED = 20_240_502
MOST_IMAGES = 10
EXCHANGES = 2
WORDS = [
    "What",
    "colour",
    "is",
    "the",
    "Square's",
    "edge?",
    "red,",
    "12",
    "images",
    "(left)",
    "naïve",
    "\n- a list",
    "OK!",
]
SHAPES = [(48, 48), (60, 30), (31, 90), (640, 480), (333, 500), (1300, 700)]
TOLERANCE = 1e-5  # of pixel values about 1: sums in another order
CONTEXT = 8  # tokens shown around the first that differs


@dataclass(frozen=True, kw_only=True)
class Case:
    """A conversation and its images."""

    conversation: Conversation
    images: tuple[Image.Image, ...]


def cases(shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[Case]:
    """Conversations of two exchanges with 0 to 10 images anywhere in the user's turns; the same ones every time.

    Before, between and behind text, with and without spaces, several in a row, and in a later turn.
    """
    rng = random.Random(SEED)
    for count in range(MOST_IMAGES + 1):
        questions = [rng.choices(WORDS, k=rng.randint(1, 7)) for _ in range(EXCHANGES)]
        sizes = [rng.choice(shapes) for _ in range(count)]
        for _ in sizes:
            question = rng.choice(questions)
            question.insert(rng.randint(0, len(question)), IMAGE_MARK)
        turns: list[Turn] = []
        for question in questions:
            turns.append(Turn(role="user", content=rng.choice(["", " ", "  "]).join(question)))
            turns.append(Turn(role="assistant", content=" ".join(rng.choices(WORDS, k=rng.randint(1, 5)))))
        yield Case(
            conversation=Conversation(
                id=f"{count} images",
                turns=tuple(turns),
                sizes=tuple(ImageSize(width=width, height=height) for width, height in sizes),
            ),
            images=tuple(_picture(size, rng) for size in sizes),
        )


def differences(
    processor: Processor, reference: FamilyReference, *, official: PreTrainedTokenizerFast | None = None
) -> Iterator[str]:
    """A line for each case in which the processor's tokens, labels or pixels differ from the reference's.

    The reference uses the `official` tokenizer. Without one it uses what the processor saves.
    """
    saved, tokenizer = saved_processor(processor, official), processor.tokenizer
    for case in cases():
        wanted = expected(reference, processor, saved, case.conversation, case.images)
        encoding = processor.encode(case.conversation)
        name = case.conversation.id
        yield from _first_difference(f"{name}: tokens", encoding.input_ids, wanted.input_ids, tokenizer)
        yield from _first_difference(f"{name}: labels", encoding.labels, wanted.labels, tokenizer)
        pixels = processor.preprocess([as_png(image) for image in case.images]).values
        yield from _pixel_difference(f"{name}: pixels", pixels, wanted.values)


def as_png(image: Image.Image) -> bytes:
    """The image's bytes, lossless: no decoder of JPEG has a part in the comparison."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)  # compression would take most of the comparison's time
    return buffer.getvalue()


def _picture(size: tuple[int, int], rng: random.Random) -> Image.Image:
    small = np.frombuffer(rng.randbytes(6 * 6 * 3), dtype=np.uint8).reshape(6, 6, 3)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def _first_difference(
    what: str, ours: list[int], wanted: list[int], tokenizer: PreTrainedTokenizerFast
) -> Iterator[str]:
    if ours == wanted:
        return
    at = next(
        (at for at, pair in enumerate(zip(ours, wanted, strict=False)) if pair[0] != pair[1]),
        min(len(ours), len(wanted)),
    )
    shown = (
        " ".join(repr(tokenizer.convert_ids_to_tokens(token)) if token >= 0 else str(token) for token in tokens)
        for tokens in (ours[at : at + CONTEXT], wanted[at : at + CONTEXT])
    )
    yield f"{what} ({len(ours)} and {len(wanted)}) differ from {at} on: ours {next(shown)}; expected {next(shown)}"


def _pixel_difference(what: str, ours: Tensor, wanted: Tensor) -> Iterator[str]:
    if ours.numel() != wanted.numel():
        yield f"{what}: ours are {ours.numel():,} values, expected {wanted.numel():,}"
    elif ours.numel():
        largest = float((ours.flatten() - wanted.flatten()).abs().max())
        if not largest <= TOLERANCE:
            yield f"{what} differ by up to {largest:.3g}; {TOLERANCE:.0e} is allowed"
