"""What SmolVLM needs beside the checks of every family: sizes as transformers has them, and a cap on tiles."""

import random

import pytest
from transformers import Idefics3ImageProcessor

from mantis.config.model_settings import ImageSettings, ModelSettings
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.families.smolvlm.processing import longest_edge, whole_tiles
from mantis.models.family import IGNORE, Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.verification.family_checks import jpeg

TILE = 384 * 384


def settings_of(max_pixels: int | None) -> ModelSettings:
    image = ImageSettings(size=384, patch_size=14, latents=81, max_pixels=max_pixels)
    return ModelSettings(family="smolvlm", prompt="smolvlm", image=image)


def processor(max_pixels: int | None) -> Processor:
    kind = family("smolvlm")
    tokenizer = train_tokenizer([], vocabulary=350, special_tokens=kind.special_tokens())
    return kind.processor(tokenizer, settings_of(max_pixels))


@pytest.mark.parametrize("edge", [1, 2, 4])
def test_the_tiles_of_any_size_are_those_of_transformers(edge: int) -> None:
    theirs = Idefics3ImageProcessor(size={"longest_edge": 384 * edge}, max_image_size={"longest_edge": 384})
    settings, rng = settings_of(TILE * edge**2), random.Random(edge)
    for _ in range(500):
        height, width = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
        high, wide = whole_tiles(*longest_edge(height, width, settings), settings)
        count, rows, columns = theirs.get_number_of_image_patches(height, width)
        found = (high // 384, wide // 384) if max(high, wide) > 384 else (0, 0)
        assert found == (rows, columns), (height, width)
        assert count in (0, rows * columns + 1)


@pytest.mark.parametrize(
    ("most", "size", "tiles", "between"),
    [(None, (640, 480), 1, 0), (4 * TILE, (640, 480), 5, 3), (16 * TILE, (640, 480), 13, 4), (TILE, (9, 900), 1, 0)],
)
def test_an_image_becomes_as_many_tiles_as_the_cap_holds(
    most: int, size: tuple[int, int], tiles: int, between: int
) -> None:
    """The tokens of a tile, one or two before each and one behind all, and line breaks between the rows."""
    found, whole = processor(most), ImageSize(width=size[0], height=size[1])
    assert found.image_tokens(whole) == tiles * (81 + 2) + 1 + between
    assert found.image_patches(whole) == tiles * 27 * 27
    assert found.preprocess([jpeg(size, 0)]).image_grid.tolist() == [[tiles * 27, 27]]


def test_a_line_break_of_an_answer_is_learned_although_images_have_some() -> None:
    found = processor(4 * TILE)
    size = ImageSize(width=640, height=480)
    turns = (Turn(role="user", content="Show."), Turn(role="assistant", content="<image>a\nb"))
    encoding = found.encode(Conversation(id="x", turns=turns, sizes=(size,)))
    learned = [label for label in encoding.labels if label != IGNORE]
    assert found.tokenizer.decode(learned) == " a\nb<end_of_utterance>"
