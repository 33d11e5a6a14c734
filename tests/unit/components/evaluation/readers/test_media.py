"""Hostile files of a benchmark: archives, pictures and paths stay within the limits of data preparation."""

import io
import resource
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from components.evaluation.readers.media import Media, MediaError
from components.evaluation.readers.mvbench_reader import frames_of_video
from mantis.config.data_settings import DataSettings
from mantis.generation.sample_images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, spooled_picture
from tests.fixtures.data import encoded


def zipped(folder: Path, members: dict[str, bytes], *, kind: int = zipfile.ZIP_DEFLATED) -> Media:
    with zipfile.ZipFile(folder / "all.zip", "w", kind, compresslevel=9) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return Media(folder)


def test_the_limits_are_those_of_data_preparation() -> None:
    assert DataSettings().max_image_bytes == MAX_IMAGE_BYTES
    assert DataSettings().max_image_pixels == MAX_IMAGE_PIXELS


def test_a_member_of_an_archive_is_read(tmp_path: Path) -> None:
    media = zipped(tmp_path, {"frames/1.jpg": encoded()})
    assert media.image("frames/1.jpg") == encoded()
    assert media.image("frames/2.jpg") is None
    with media.video("frames/1.jpg") as file:
        assert file is not None
        assert file.read_bytes() == encoded()
    assert not file.exists()


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()  # 1 GiB
    name, size = "video/bomb.mp4", 1 << 30
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, data)
    raw = (tmp_path / "bomb.zip").read_bytes()
    told = {8: 8, 22: size}  # method and size in the local header; in the directory they stand two bytes later
    for start, shift in ((0, 0), (raw.index(b"PK\1\2"), 2)):
        for at, value in told.items():
            width = 2 if at == 8 else 4
            place = start + shift + at
            raw = raw[:place] + value.to_bytes(width, "little") + raw[place + width :]
    (tmp_path / "bomb.zip").write_bytes(raw)
    assert len(raw) < 2 << 20
    media, before = Media(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match="too-large"):
        media.image(name)
    with pytest.raises(MediaError, match="too-large"), media.video(name):
        pass
    assert frames_of_video(media, name, count=8, bound=None) == ([], "video-too-large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_member_that_lies_about_its_size_is_unreadable(tmp_path: Path) -> None:
    media = zipped(tmp_path, {"frames/1.jpg": bytes(100_000)})
    raw = bytearray((tmp_path / "all.zip").read_bytes())
    directory = raw.index(b"PK\1\2")
    raw[directory + 24 : directory + 28] = (500).to_bytes(4, "little")
    (tmp_path / "all.zip").write_bytes(raw)
    with pytest.raises(MediaError, match="unreadable"):
        Media(tmp_path).image("frames/1.jpg")
    raw[directory + 8] |= 1  # encrypted
    (tmp_path / "all.zip").write_bytes(raw)
    with pytest.raises(MediaError, match="unreadable"):
        Media(tmp_path).image("frames/1.jpg")
    assert media.image("frames/2.jpg") is None


def test_a_large_file_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    with (tmp_path / "frames/1.jpg").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(MediaError, match="too-large"):
        Media(tmp_path).image("frames/1.jpg")


def test_only_formats_and_sizes_of_data_preparation_are_pictures(tmp_path: Path) -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(OSError, match="no image of an accepted format"):
        spooled_picture(postscript, "a.eps", tmp_path)
    buffer = io.BytesIO()
    Image.new("1", (8100, 8000)).save(buffer, "PNG")
    with pytest.raises(OSError, match=r"8100 x 8000 pixels, more than 64,000,000"):
        spooled_picture(buffer.getvalue(), "a.png", tmp_path)
    with pytest.raises(OSError, match=r"bytes, more than 32,000,000"):
        spooled_picture(bytes(MAX_IMAGE_BYTES + 1), "a.png", tmp_path)
    assert list(tmp_path.iterdir()) == []
