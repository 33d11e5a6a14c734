"""What Qwen-VL needs beside the checks of every family: sizes, positions and windows, as transformers has them."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from mantis.config.model_settings import FromScratch, ImageSettings, ModelSettings
from mantis.config.recipe import parse_recipe
from mantis.errors import ConfigError
from mantis.generation.answerer import Question
from mantis.generation.generator import Encoded, PromptEncoder
from mantis.generation.sample_images import Picture
from mantis.models.conversation import IMAGE_MARK, ImageSize
from mantis.models.families.qwen_vl.processing import MERGE, fit
from mantis.models.families.qwen_vl.qwen_vision import two_frames
from mantis.models.families.qwen_vl.rotary_positions import padded_positions, rotary_positions
from mantis.models.family import Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import check_image, family
from mantis.models.verification.family_checks import family_case, jpeg, with_image

NAMES = ("qwen2_5-vl", "qwen3-vl")
IMAGE = 99  # the token of images in the tests of positions


def settings_of(**image: Any) -> ModelSettings:
    return ModelSettings(family="qwen3-vl", prompt="qwen3-vl", image=ImageSettings(**image))


@pytest.mark.parametrize(("edge", "least", "most"), [(14, 3136, 1_003_520), (16, 65_536, 1_048_576), (6, 144, 2304)])
def test_a_size_is_that_of_transformers(edge: int, least: int, most: int) -> None:
    settings, rng = settings_of(patch_size=edge, min_pixels=least, max_pixels=most), random.Random(0)
    for _ in range(3000):
        height, width = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
        if max(height, width) <= 200 * min(height, width):
            wanted = smart_resize(height, width, factor=2 * edge, min_pixels=least, max_pixels=most)
            assert fit(height, width, settings) == wanted, (height, width)


def test_a_line_of_pixels_is_an_image_too() -> None:
    """transformers refuses an image of more than 200 times its shorter edge; data preparation would have to drop it."""
    settings = settings_of(patch_size=14, min_pixels=3136, max_pixels=1_003_520)
    assert fit(1, 2000, settings) == (28, 2520)
    assert fit(5, 60_000, settings) == (28, 6160)


@pytest.mark.parametrize("name", NAMES)
def test_the_cap_is_planned_without_decoding(name: str) -> None:
    """The tokens of an image are counted from its size, and it has so many patches when it is decoded."""
    kind, size = family(name), ImageSize(width=640, height=480)
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())

    def processor(**image: Any) -> Processor:
        return kind.processor(tokenizer, ModelSettings(family=name, prompt=name, image=ImageSettings(**image)))

    free, capped = (processor(size=2000, patch_size=14, max_pixels=most) for most in (None, 100_000))
    assert (free.image_tokens(size), capped.image_tokens(size)) == (23 * 17, 13 * 9)
    (grid,) = capped.preprocess([jpeg((640, 480), 0)]).image_grid.tolist()
    assert grid == [18, 26]
    small, enlarged = processor(patch_size=14, size=100), processor(patch_size=14, size=100, min_pixels=9000)
    assert [each.image_tokens(ImageSize(width=20, height=20)) for each in (small, enlarged)] == [1, 16]


def test_a_cap_that_means_nothing_is_an_error() -> None:
    fields = {"model.family": "llava-clip", "model.image.max_pixels": "1000"}
    with pytest.raises(ConfigError, match=r"max_pixels = 1000, but llava-clip has no such bound"):
        check_image(parse_recipe("name: x", origin="x", overrides=fields))
    check_image(parse_recipe("name: x", origin="x", overrides=fields | {"model.family": "qwen3-vl"}))
    with pytest.raises(ConfigError, match=r"min_pixels = 5000 is more than max_pixels = 1000; lower min_pixels"):
        parse_recipe("name: x", origin="x", overrides=fields | {"model.image.min_pixels": "5000"})


def sample(rng: random.Random) -> tuple[list[int], list[list[int]]]:
    """Tokens and grids of a sample: images between stretches of text."""
    tokens, grids = [1] * rng.randint(1, 4), []
    for _ in range(rng.randint(0, 4)):
        rows, columns = rng.randint(1, 4), rng.randint(1, 5)
        grids.append([rows * MERGE, columns * MERGE])
        tokens += [IMAGE] * (rows * columns) + [2] * rng.randint(1, 3)
    return tokens, grids


def of_transformers(name: str, tokens: Tensor, grids: list[list[int]], mask: Tensor | None = None) -> Any:
    case = family_case(name)
    model: Any = case.family.build(case.processor, seed=0).model
    grid_thw = torch.tensor([[1, *grid] for grid in grids]) if grids else None
    own = type(model).get_rope_index
    return own(
        model,
        tokens,
        mm_token_type_ids=(tokens == IMAGE).int(),
        image_grid_thw=grid_thw,
        attention_mask=mask,
    )


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_a_packed_row_are_those_of_its_samples(name: str) -> None:
    rng = random.Random(3)
    samples = [sample(rng) for _ in range(12)]
    row = torch.tensor([[token for tokens, _ in samples for token in tokens]])
    places = torch.cat([torch.arange(len(tokens)) for tokens, _ in samples]).unsqueeze(0)
    grid = torch.tensor([each for _, grids in samples for each in grids])
    found = rotary_positions(row, places, grid, image_token=IMAGE, merge=MERGE)
    wanted = [of_transformers(name, torch.tensor([tokens]), grids)[0] for tokens, grids in samples]
    assert torch.equal(found, torch.cat(wanted, dim=2))
    assert not torch.equal(found, places.expand(3, -1, -1)), "an image takes as many positions as text would"


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_a_padded_batch_are_those_of_transformers(name: str) -> None:
    rng = random.Random(5)
    samples = [sample(rng) for _ in range(6)]
    width = max(len(tokens) for tokens, _ in samples)
    tokens = torch.tensor([[0] * (width - len(each)) + each for each, _ in samples])
    grids, mask = [grid for _, grids in samples for grid in grids], (tokens != 0).long()
    found = padded_positions(tokens, mask, torch.tensor(grids), image_token=IMAGE, merge=MERGE)
    positions, deltas = of_transformers(name, tokens, grids, mask)
    assert torch.equal(found[0], positions)
    assert torch.equal(found[1], deltas)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_large_images_are_those_of_transformers(name: str) -> None:
    """Images of several windows, one of which is cut off, beside small ones."""
    kind, edge = family(name), 6
    image = ImageSettings(size=200, patch_size=edge)
    shape = FromScratch(vision_width=32, text_width=32, text_layers=2, vision_layers=3)
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    settings = ModelSettings(family=name, prompt=name, image=image, from_scratch=shape)
    processor = kind.processor(tokenizer, settings)
    model: Any = kind.build(processor, seed=0).eval().model
    pixels = processor.preprocess([jpeg(size, 1) for size in ((130, 70), (12, 12), (48, 190))])
    assert pixels.image_grid.tolist() == [[12, 22], [2, 2], [32, 8]]
    ours = model.get_image_features(pixels.values, pixels.image_grid)
    for block in model.visual.blocks:
        del block.attn.forward
    del model.visual.patch_embed.proj.forward
    grid_thw = torch.cat([torch.ones(3, 1, dtype=torch.int64), pixels.image_grid], dim=1)
    theirs = model.visual(two_frames(pixels.values, edge), grid_thw=grid_thw)
    assert (torch.cat(ours.pooler_output) - theirs.pooler_output).abs().max() <= 1e-5
    if name == "qwen3-vl":
        pairs = zip(ours.deepstack_features, theirs.deepstack_features, strict=True)
        assert all((torch.cat(mine) - wanted).abs().max() <= 1e-5 for mine, wanted in pairs)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("name", NAMES)
def test_one_frame_is_embedded_as_two_equal_ones(name: str, dtype: torch.dtype, close: float) -> None:
    """The embedding and its gradient are those of the convolution, within a rounding of their largest value.

    The convolution computes in double precision: in half precision, some CPUs sum its gradient with large errors.
    """
    case = family_case(name)
    model: Any = case.model().to(dtype)
    pixels = case.packed().pixel_values.to(dtype)
    embed = model.model.visual.patch_embed
    ours = embed.proj(pixels)
    (gradient,) = torch.autograd.grad(ours.square().sum(), embed.proj.weight)
    embed = embed.double()
    del embed.proj.forward
    theirs = embed(two_frames(pixels, embed.patch_size).double())
    (wanted,) = torch.autograd.grad(theirs.square().sum(), embed.proj.weight)
    for found, expected in ((ours, theirs), (gradient, wanted)):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= close * expected.abs().max()


@pytest.mark.parametrize(
    ("bound", "patches"),
    [
        (None, [3072, 1200, 256]),
        (1_200_000, [3072, 1200, 256]),
        (600_000, [1008, 1008, 256]),  # the smallest image keeps min_pixels
        (50_000, [48, 48, 64]),  # a bound below three times min_pixels is stronger
        (1, [4, 4, 4]),  # one token each is the least
    ],
)
def test_the_images_of_a_sample_share_its_bound(bound: int | None, patches: list[int]) -> None:
    kind, image = family("qwen3-vl"), {"patch_size": 16, "max_pixels": 1_048_576, "min_pixels": 65_536}
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    processor = kind.processor(tokenizer, settings_of(**image, max_pixels_per_sample=bound))
    sizes = [ImageSize(width=width, height=height) for width, height in ((1024, 768), (640, 480), (100, 100))]
    assert processor.sample_patches(sizes) == patches
    assert processor.image_patches(sizes[0]) == 3072
    assert bound is None or bound == 1 or sum(patches) * 16**2 <= bound


def test_an_image_that_is_shown_twice_counts_twice() -> None:
    """In a batch of questions, too: each question has the bound for itself, and images as it was trained on."""
    case = family_case("qwen3-vl")
    processor = with_image(case, size=200, max_pixels_per_sample=2 * 48 * 48)
    picture = Picture(path="a", sha256="a", size=ImageSize(width=96, height=96), load=lambda: jpeg((96, 96), 0))
    encoder = PromptEncoder(family=case.family, processor=processor)

    def asked(times: int) -> Encoded:
        return encoder.encode(Question(id=str(times), prompt=IMAGE_MARK * times, pictures=(picture,) * times))

    inputs = encoder.inputs([asked(1), asked(3)])
    grids = inputs.pixels.image_grid[inputs.shown].prod(1).tolist()
    assert grids == [10 * 10, 6 * 6, 6 * 6, 6 * 6]
    token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    assert (inputs.input_ids == token).sum(1).tolist() == [10 * 10 // 4, 3 * 6 * 6 // 4]
