import io
import time

import numpy as np
import pytest
import torch
from PIL import Image

from components.core.errors import InputError
from components.core.settings import ModelSettings
from components.models.images import decode
from components.models.registry import family

SIZES = [(48, 48), (64, 48), (48, 200), (333, 127), (20, 31), (1000, 700), (49, 48)]


def reference(llava, settings, images, folder, tokenizer):
    from transformers import AutoImageProcessor

    llava.save_processor(tokenizer, settings, folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=[Image.open(io.BytesIO(data)) for data in images], return_tensors="pt").pixel_values


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")]
)
def test_same_pixels_as_transformers(llava, settings, tokenizer, jpegs, tmp_path, mode, kind) -> None:
    images = jpegs(SIZES, mode=mode, kind=kind)
    expected = reference(llava, settings, images, tmp_path, tokenizer)
    values = llava.preprocess(images, settings)
    assert values.shape == expected.shape == (len(SIZES), 3, 48, 48)
    std = torch.tensor(llava.tower.normalization.std).view(3, 1, 1)
    assert ((values - expected).abs() * std).max() <= 1.001 / 255


def test_no_images(llava, settings) -> None:
    values = llava.preprocess([], settings)
    assert values.shape == (0, 3, 48, 48)
    assert values.dtype == torch.float32


def test_bytes_that_are_no_image() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(b"not an image")


def test_thousands_of_small_images_per_second(jpegs) -> None:
    images = jpegs([(48, 48)]) * 2000
    start = time.process_time()
    family("llava-clip").preprocess(images, ModelSettings())
    assert 2000 / (time.process_time() - start) > 2000


def test_an_image_of_the_right_size_is_not_resampled(jpegs) -> None:
    (image,) = jpegs([(48, 48)])
    with Image.open(io.BytesIO(image)) as opened:
        assert np.abs(decode(image).astype(int) - np.asarray(opened).astype(int)).max() <= 1
