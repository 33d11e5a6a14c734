import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.real import enlarged, jpegs, repeat, unique
from mantis.images.preprocessing import decode


def test_a_comment_makes_bytes_unique_and_leaves_pixels(test_data: Path) -> None:
    image = jpegs()[0]
    assert len({image, unique(image, 1), unique(image, 2)}) == 3
    assert (decode(unique(image, 1)) == decode(image)).all()


def test_enlarged_has_about_the_pixels(test_data: Path) -> None:
    with Image.open(io.BytesIO(enlarged(jpegs()[0], pixels=1_000_000))) as image:
        assert abs(np.prod(image.size) / 1e6 - 1) < 0.01


def test_repeated_rows_name_images_that_are_all_different(test_data: Path, tmp_path: Path) -> None:
    size = repeat(tmp_path, 120)
    rows = json.loads((tmp_path / "train.json").read_text())
    images = [(tmp_path / name).read_bytes() for row in rows for name in row["images"]]
    assert len({row["id"] for row in rows}) == 120
    assert len(set(images)) == len(images)
    assert sum(map(len, images)) == size
