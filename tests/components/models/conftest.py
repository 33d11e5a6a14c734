import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from mantis.config.recipe import FromScratch, ModelSettings
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.family import Encoding, Family, Processor
from mantis.models.packed_batch import PackedBatch, Pixels
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.verification.family_checks import CheckSample
from mantis.models.verification.family_checks import pack as packed_row

TEXTS = ["What colour is the square in image 1? Image 2, image 3 and image 4: red, blue, green. How many?\n"] * 4

Pack = Callable[..., PackedBatch]


@pytest.fixture(params=["llava-clip", "llava-siglip"])
def llava(request: pytest.FixtureRequest) -> Family:
    return family(request.param)


@pytest.fixture(params=["compact", "llama3"])
def settings(request: pytest.FixtureRequest, llava: Family) -> ModelSettings:
    shape = FromScratch(vision_width=32, text_width=32, text_layers=2)
    return ModelSettings(family=llava.name, prompt=request.param, from_scratch=shape)


@pytest.fixture
def tokenizer(llava: Family) -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocabulary=400, special_tokens=llava.special_tokens())


@pytest.fixture
def processor(llava: Family, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> Processor:
    return llava.processor(tokenizer, settings)


@pytest.fixture
def conversations() -> list[Conversation]:
    """Images before, between and after text, several in a row, in a later turn, and none at all."""
    size = ImageSize(width=48, height=48)

    def conversation(name: str, *contents: str) -> Conversation:
        roles = ("user", "assistant")
        turns = tuple(Turn(role=roles[i % 2], content=text) for i, text in enumerate(contents))
        return Conversation(id=name, turns=turns, sizes=(size,) * "".join(contents).count("<image>"))

    return [
        conversation("row", "<image> <image>\nWhat colour is the square in image 2?", "red"),
        conversation(
            "later", "How many?\n<image>", "blue", "And <image> in <image>?", "green green", "Image 1?", "red"
        ),
        conversation("none", "How many?", "4"),
        conversation("between", "In <image> is the <image><image> square <image>", "blue"),
    ]


@pytest.fixture
def jpegs() -> Callable[..., list[bytes]]:
    def make(sizes: list[tuple[int, int]], *, seed: int = 0, mode: str = "RGB", kind: str = "JPEG") -> list[bytes]:
        rng = np.random.default_rng(seed)
        images = []
        for width, height in sizes:
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).convert(mode)
            buffer = io.BytesIO()
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
            images.append(buffer.getvalue())
        return images

    return make


@pytest.fixture
def pack() -> Pack:
    """Encodings and their pixels in one row."""

    def row(encodings: list[Encoding], pixels: list[Pixels]) -> PackedBatch:
        talk = Conversation(id="", turns=(), sizes=())
        return packed_row(
            [
                CheckSample(conversation=talk, images=[], encoding=encoding, pixels=each)
                for encoding, each in zip(encodings, pixels, strict=True)
            ]
        )

    return row
