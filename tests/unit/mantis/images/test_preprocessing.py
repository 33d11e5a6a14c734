import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mantis.config.model_settings import ModelSettings
from mantis.errors import InputError
from mantis.images import preprocessing
from mantis.images.preprocessing import Normalization, decode, normalize, resize_and_crop, resize_square
from mantis.models.families.llava.model import Llava
from mantis.models.family import Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from tests.fixtures.models import MakeJpegs
from tests.helpers.machine_speed import processor_seconds, reference_seconds

SIZES = [(48, 48), (64, 48), (48, 200), (333, 127), (20, 31), (1000, 700), (49, 48)]


def reference(ours: Any, images: list[bytes], folder: Path) -> torch.Tensor:
    from transformers import AutoImageProcessor

    ours.save(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=[Image.open(io.BytesIO(data)) for data in images], return_tensors="pt").pixel_values


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")]
)
def test_same_pixels_as_transformers(
    llava: Llava, processor: Processor, make_jpegs: MakeJpegs, tmp_path: Path, mode: str, kind: str
) -> None:
    images = make_jpegs(SIZES, mode=mode, kind=kind)
    expected = reference(processor, images, tmp_path)
    values = processor.preprocess(images).values
    assert values.shape == expected.shape == (len(SIZES), 3, 48, 48)
    std = torch.tensor(llava.tower.normalization.std).view(3, 1, 1)
    assert ((values - expected).abs() * std).max() <= 1.001 / 255


@pytest.fixture
def real_jpegs(test_data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(test_data.glob("mantis-chat/train_images/**/*.jpg"))[:40]]


def values_of(processor: Any, image: bytes) -> torch.Tensor:
    return processor([[Image.open(io.BytesIO(image))]], return_tensors="pt").pixel_values.reshape(-1, 3, 384, 384)


def test_real_jpegs_as_the_idefics2_processor_makes_them(real_jpegs: list[bytes]) -> None:
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    processor = Idefics2ImageProcessorPil(size={"height": 384, "width": 384}, do_image_splitting=False)
    half = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    values = normalize(resize_square(real_jpegs, 384, "bilinear"), half)
    expected = torch.cat([values_of(processor, image) for image in real_jpegs])
    assert (values - expected).abs().max() * 0.5 <= 1.001 / 255


def test_real_jpegs_as_the_siglip_processor_makes_them(real_jpegs: list[bytes]) -> None:
    from transformers import SiglipImageProcessor

    processor = SiglipImageProcessor(size={"height": 384, "width": 384})
    opened = [Image.open(io.BytesIO(image)) for image in real_jpegs]
    pixels = processor(images=opened, do_normalize=False, do_rescale=False, return_tensors="pt").pixel_values
    assert resize_square(real_jpegs, 384).equal(pixels.to(torch.uint8))


def test_bicubic_is_that_of_pillow_with_the_horizontal_pass_first(real_jpegs: list[bytes]) -> None:
    """Pillow 13 takes the cheaper order; the official models were trained on an earlier one."""
    beyond = 0
    for image in real_jpegs:
        with Image.open(io.BytesIO(image)) as opened:
            rgb = opened.convert("RGB")
        across = rgb.resize((384, rgb.height), Image.Resampling.BICUBIC)
        expected = np.asarray(across.resize((384, 384), Image.Resampling.BICUBIC)).astype(int)
        difference = np.abs(resize_square([image], 384)[0].permute(1, 2, 0).numpy() - expected)
        assert difference.max() <= 2
        beyond += int((difference > 1).sum())
    assert beyond / (40 * 3 * 384 * 384) < 1e-5


def test_no_images(processor: Processor) -> None:
    values = processor.preprocess([]).values
    assert values.shape == (0, 3, 48, 48)
    assert values.dtype == torch.float32


def test_bytes_that_are_no_image() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(b"not an image")


def test_thousands_of_small_images_per_second(make_jpegs: MakeJpegs) -> None:
    kind = family("llava-clip")
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    processor = kind.processor(tokenizer, ModelSettings())
    images = make_jpegs([(48, 48)]) * 2000
    spent = processor_seconds(lambda: processor.preprocess(images))
    assert spent / len(images) < 0.05 * reference_seconds(), "half a millisecond each on a usual core"


def test_an_image_of_the_right_size_is_not_resampled(make_jpegs: MakeJpegs) -> None:
    (image,) = make_jpegs([(48, 48)])
    with Image.open(io.BytesIO(image)) as opened:
        assert np.abs(decode(image).astype(int) - np.asarray(opened).astype(int)).max() <= 1


@pytest.mark.parametrize(
    "size", [(48, 48), (640, 480), (480, 640), (900, 7), (7, 900), (901, 9), (2000, 63), (33, 1000)]
)
def test_the_middle_of_a_long_image_is_that_of_the_resized_whole(
    size: tuple[int, int], make_jpegs: MakeJpegs, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_jpegs([size], kind="PNG")
    whole = resize_and_crop(images, 48).int()
    monkeypatch.setattr(preprocessing, "LONGEST", 0)
    cut = resize_and_crop(images, 48).int()
    assert cut.shape == (1, 3, 48, 48)
    assert (whole - cut).abs().max() <= 2
    assert (whole != cut).float().mean() < 0.02


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (65_000, 1), (8_000_000, 8), (3, 20_000)])
def test_a_long_image_needs_no_memory_for_the_resized_whole(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(buffer, "PNG")
    start = peak_of_process()
    values = resize_and_crop([buffer.getvalue()], 336)
    assert values.shape == (1, 3, 336, 336)
    assert (values == torch.tensor([200, 100, 50]).view(3, 1, 1)).all()
    assert peak_of_process() - start < 10 * size[0] * size[1] + 100_000_000  # Pillow decodes to 7 bytes per pixel


def peak_of_process() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
