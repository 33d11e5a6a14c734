import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
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


@pytest.mark.parametrize("there", [None, "", "folder", "rows without images"])
def test_a_benchmark_with_a_wrong_folder_of_test_data_ends_with_an_error_that_says_so(
    there: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MANTIS_TEST_DATA", raising=False)
    if there is not None:
        monkeypatch.setenv("MANTIS_TEST_DATA", str(tmp_path) if there else "")
    if there == "rows without images":
        (tmp_path / "mantis-chat").mkdir()
        (tmp_path / "mantis-chat" / "train.json").write_text("[]")
    for name in ("data.decode", "data.tokenize", "data.prepare"):
        assert main([name]) == 2
        error = capsys.readouterr().err
        assert f"{name}: MANTIS_TEST_DATA" in error
        assert "holds train.json and its images" in error
        assert "Traceback" not in error
