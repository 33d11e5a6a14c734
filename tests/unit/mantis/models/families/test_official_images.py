"""Images as the official models saw them: patches that an image fills in part, and images of a few pixels."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Idefics2ForConditionalGeneration, Idefics2ImageProcessor, PreTrainedTokenizerFast
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionEmbeddings

from components.training.batching.collate import prepare
from mantis.config.model_settings import FromScratch, ImageSettings, ModelSettings
from mantis.dataset.mixture_reader import TrainingSample
from mantis.generation.answerer import Question
from mantis.generation.generator import PromptEncoder
from mantis.generation.sample_images import Picture
from mantis.images.preprocessing import MAX_ENLARGED, at_least, decode
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.families.idefics2.model import image_features, position_ids
from mantis.models.families.idefics2.processing import grids
from mantis.models.family import Processor
from mantis.models.packed_batch import Pixels
from mantis.models.registry import family, family_names, family_spec
from mantis.models.verification.compare_tokens import differences
from mantis.models.verification.family_checks import family_case

OFFICIAL = ImageSettings(size=980, patch_size=14, latents=64, partial_patches=True)
# Width and height of a sample's images -> rows and columns of patches that Idefics2Model of transformers 4.41.2 sees.
# Made by its Idefics2ImageProcessor, and by the rule of Idefics2Model.forward: patches with any pixel of the image.
SEEN = [
    ([(640, 425)], [(30, 45)]),
    ([(640, 425), (640, 480)], [(31, 45), (34, 45)]),
    ([(640, 425), (500, 333), (1300, 700)], [(31, 46), (27, 36), (37, 70)]),
    ([(1000, 20), (20, 1000)], [(27, 70), (70, 27)]),
    ([(385, 392), (980, 980)], [(28, 28), (70, 70)]),
    ([(12, 40), (400, 391)], [(27, 27), (27, 28)]),
]
SMALL = [(12, 40), (1, 1), (3, 200), (40, 12), (15, 15), (16, 9)]  # width and height


def encoded(size: tuple[int, int], seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The small tokenizer of the family's checks."""
    return family_case(name).processor.tokenizer


def processor_of(name: str, **image: Any) -> Processor:
    """A processor of the family with changes of its small images."""
    small = family_spec(name).small_image.model_copy(update=image)
    settings = ModelSettings(family=name, prompt=family(name).template, image=small)
    return family(name).processor(tokenizer_of(name), settings)


@pytest.mark.parametrize(("sizes", "seen"), SEEN)
def test_idefics2_sees_the_patches_of_transformers_4_41(
    sizes: list[tuple[int, int]], seen: list[tuple[int, int]]
) -> None:
    settings = ModelSettings(family="idefics2", prompt="idefics2", image=OFFICIAL)
    processor = family("idefics2").processor(tokenizer_of("idefics2"), settings)
    pixels = processor.preprocess([encoded(size) for size in sizes])
    assert [tuple(grid) for grid in pixels.image_grid.tolist()] == seen
    whole = [ImageSize(width=width, height=height) for width, height in sizes]
    assert processor.sample_patches(whole) == [rows * columns for rows, columns in seen]
    assert sum(processor.sample_patches(whole)) == len(pixels.values)


def test_patches_have_the_positions_of_transformers() -> None:
    """All lengths of an edge up to 70 patches: rounding puts some between two places of the published table."""
    config = Idefics2VisionConfig(hidden_size=1, num_attention_heads=1, image_size=980, patch_size=14)
    embeddings = Idefics2VisionEmbeddings(config)
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(70.0 * 70)[:, None])
        for rows in range(1, 71):
            grid = (rows, 71 - rows)
            pixels = torch.zeros(1, 3, 14 * grid[0], 14 * grid[1])
            theirs = embeddings(pixels, torch.ones(1, *grid, dtype=torch.bool))[0, :, 0].long()
            assert torch.equal(position_ids([grid], 70), theirs), grid


def test_training_takes_samples_with_partial_patches() -> None:
    """Its check of the number of patches counts the images of a sample together."""
    processor = processor_of("idefics2", partial_patches=True)
    sizes = [(60, 47), (97, 41), (90, 98)]
    turns = (Turn(role="user", content="<image>" * 3), Turn(role="assistant", content="red"))
    shown = tuple(ImageSize(width=width, height=height) for width, height in sizes)
    conversation = Conversation(id="a", turns=turns, sizes=shown)
    sample = TrainingSample(conversation=conversation, images=[encoded(size) for size in sizes], weight=1.0)
    made = prepare(sample, processor=processor, tokens=len(processor.encode(conversation).input_ids))
    assert made.pixels.image_grid.prod(1).tolist() == processor.sample_patches(shown)
    assert processor.sample_patches(shown) != [processor.image_patches(size) for size in shown]


def test_without_the_setting_idefics2_sees_whole_patches() -> None:
    settings = ModelSettings(image=OFFICIAL.model_copy(update={"partial_patches": False}))
    assert grids([(425, 640), (480, 640)], settings) == [(30, 45), (34, 45)]


def test_the_features_of_partial_patches_are_those_of_the_official_rule(tmp_path: Path) -> None:
    """transformers' own tower, resampler and projection, with the mask of version 4.41 over padded images."""
    case = family_case("idefics2")
    image = ImageSettings(size=98, patch_size=14, latents=5, partial_patches=True)
    shape = FromScratch(vision_width=32, text_width=32, text_layers=1)
    settings = ModelSettings(family="idefics2", prompt="idefics2", image=image, from_scratch=shape)
    processor = case.family.processor(case.processor.tokenizer, settings)
    model = case.family.build(processor, seed=0).eval()
    model.save_pretrained(tmp_path)
    plain = Idefics2ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval().model

    images = [encoded(size, seed) for seed, size in enumerate([(60, 47), (97, 41), (90, 98), (45, 45)])]
    pixels = processor.preprocess(images)
    assert pixels.image_grid.tolist() == [
        [4, 5],
        [3, 6],
        [7, 6],
        [4, 4],
    ]  # of whole patches: 3 x 4, 2 x 6, 7 x 6, 3 x 3
    with torch.no_grad():
        ours = image_features(model.model, pixels.values, pixels.image_grid).pooler_output
        opened = [torch.from_numpy(decode(each)).permute(2, 0, 1) for each in images]
        made = Idefics2ImageProcessor(size={"shortest_edge": 38, "longest_edge": 98})([opened], return_tensors="pt")
        values, mask = made["pixel_values"][0], made["pixel_attention_mask"][0]
        seen = mask.unfold(1, 14, 14).unfold(2, 14, 14).sum(dim=(-1, -2)) > 0
        hidden = plain.vision_model(pixel_values=values, patch_attention_mask=seen).last_hidden_state
        theirs = plain.connector(hidden, attention_mask=seen.view(len(images), -1)).flatten(0, 1)
    assert (ours - theirs).abs().max() <= 1e-5
    with torch.no_grad():
        whole = image_features(model.model, *whole_patches(pixels)).pooler_output
    assert (ours - whole).abs().max() > 1e-3  # the partial patches count


def whole_patches(pixels: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
    """The same images without their last row."""
    parts = torch.split(pixels.values, pixels.image_grid.prod(1).tolist())
    kept = [
        part[: (rows - 1) * columns] for part, (rows, columns) in zip(parts, pixels.image_grid.tolist(), strict=True)
    ]
    return torch.cat(kept), pixels.image_grid - torch.tensor([[1, 0]])


def picture_of(width: int, height: int) -> Picture:
    data = encoded((width, height), width)
    return Picture(path="", sha256=str(width), size=ImageSize(width=width, height=height), load=lambda: data)


def test_a_question_sees_an_image_as_its_own_images_frame_it() -> None:
    """A batch of questions decodes a set of images once, as it is shown: an image that stands in it twice, twice."""
    processor = processor_of("idefics2", partial_patches=True)
    small, tall, wide = (picture_of(width, height) for width, height in [(60, 47), (45, 98), (98, 45)])
    samples = [(small, tall), (small,), (wide, small, small), (small, tall)]
    encoder = PromptEncoder(family=family("idefics2"), processor=processor)
    questions = [
        Question(id=str(at), prompt="<image>" * len(sample), pictures=sample, allowed=())
        for at, sample in enumerate(samples)
    ]
    prepared = [encoder.encode(question) for question in questions]
    inputs = encoder.inputs(prepared)
    alone = [processor.preprocess([picture.load() for picture in sample]) for sample in samples]
    assert torch.equal(inputs.pixels.pick(inputs.shown).values, torch.cat([pixels.values for pixels in alone]))
    assert [each.cost.patches for each in prepared] == [len(pixels.values) for pixels in alone]
    assert len(inputs.pixels.image_grid) == 2 + 1 + 3


@pytest.mark.parametrize("size", SMALL)
def test_small_images_are_enlarged_as_in_the_official_code(size: tuple[int, int]) -> None:
    data = encoded(size, 3)
    width, height = size
    scale_factor = max(16 / width, 16 / height)  # getitem of mantis/train/data.py
    expected = Image.open(io.BytesIO(data)).resize((int(width * scale_factor), int(height * scale_factor)))
    assert np.array_equal(decode(data, smallest=16), np.array(expected.convert("RGB")))
    assert decode(data, smallest=16).shape[:2] == at_least(height, width, 16)
    assert decode(data).shape[:2] == (height, width)


@pytest.mark.parametrize("size", [(16, 16), (16, 900), (48, 48)])
def test_other_images_stay_as_they_are(size: tuple[int, int]) -> None:
    assert np.array_equal(decode(encoded(size), smallest=16), decode(encoded(size)))


def test_a_long_line_is_not_enlarged_to_gigabytes() -> None:
    assert at_least(1, 60_000, 16) == (16, 960_000)
    assert at_least(1, 60_000_000, 16) == (1, 60_000_000)
    assert MAX_ENLARGED < 16 * 16 * 60_000_000


@pytest.mark.parametrize("name", family_names())
def test_every_family_counts_and_cuts_enlarged_images(name: str) -> None:
    processor = processor_of(name, smallest=16)
    sizes = [ImageSize(width=width, height=height) for width, height in SMALL]
    pixels = processor.preprocess([encoded(size) for size in SMALL])
    enlarged = [at_least(size.height, size.width, 16) for size in sizes]
    as_large = processor_of(name).preprocess(
        [png(decode(encoded(size), smallest=16)) for size in SMALL],
    )
    assert torch.equal(pixels.values, as_large.values)
    assert pixels.image_grid.prod(1).tolist() == [processor.image_patches(size) for size in sizes]
    plain = processor_of(name)
    counts = [plain.image_tokens(ImageSize(width=width, height=height)) for height, width in enlarged]
    assert [processor.image_tokens(size) for size in sizes] == counts
    plain_pixels = plain.preprocess([encoded(size) for size in SMALL]).values
    assert plain_pixels.shape != pixels.values.shape or not torch.equal(plain_pixels, pixels.values)


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["idefics2", "llava-clip"])
def test_the_reference_agrees_under_the_official_settings(name: str) -> None:
    """`mantis model verify` compares with transformers' processors under the recipe's settings of images."""
    processor = processor_of(name, smallest=64, partial_patches=name == "idefics2")
    assert list(differences(processor, family_spec(name).reference())) == []
