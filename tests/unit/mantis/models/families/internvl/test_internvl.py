"""What InternVL needs beside the checks of every family: tiles, and a cap on them."""

import pytest

from mantis.config.model_settings import ImageSettings, ModelSettings
from mantis.models.conversation import ImageSize
from mantis.models.family import Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.verification.family_checks import jpeg

TILE = 448 * 448


def processor(max_pixels: int | None) -> Processor:
    kind = family("internvl")
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    image = ImageSettings(size=448, patch_size=14, max_pixels=max_pixels)
    return kind.processor(tokenizer, ModelSettings(family="internvl", prompt="internvl", image=image))


@pytest.mark.parametrize(
    ("most", "size", "tiles"),
    [
        (None, (1000, 500), 1),
        (4 * TILE, (1000, 500), 3),  # two beside each other, and the small copy
        (4 * TILE - 1, (900, 900), 1),  # nine hundred square: one tile is as square as four, which are too many
        (4 * TILE, (900, 900), 5),
        (12 * TILE, (1800, 1350), 13),
        (12 * TILE, (30, 3000), 13),
    ],
)
def test_an_image_becomes_as_many_tiles_as_the_cap_holds(most: int, size: tuple[int, int], tiles: int) -> None:
    found, (width, height) = processor(most), size
    assert found.image_tokens(ImageSize(width=width, height=height)) == 256 * tiles + 2
    assert found.image_patches(ImageSize(width=width, height=height)) == 1024 * tiles


def test_the_tiles_are_counted_as_they_are_cut() -> None:
    found, sizes = processor(4 * TILE), [(1000, 500), (300, 310), (200, 900)]
    grid = found.preprocess([jpeg(size, 0) for size in sizes]).image_grid
    counted = [found.image_patches(ImageSize(width=width, height=height)) for width, height in sizes]
    assert grid.prod(1).tolist() == counted
    assert grid[0].tolist() == [3 * 32, 32]
