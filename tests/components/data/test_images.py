import io
import struct
import zlib

import pytest
from PIL import Image

from components.core.hashing import sha256_bytes
from components.data.images import check_image
from components.data.refusal import Refusal

LIMIT = 1_000_000


def refused(data, *, max_pixels=LIMIT):
    with pytest.raises(Refusal) as caught:
        check_image("folder/a.jpg", data, max_pixels=max_pixels)
    assert caught.value.value.startswith("folder/a.jpg: ")
    return caught.value


def noise(form, size=(64, 48), mode="RGB", **options):
    image = Image.effect_noise(size, 80).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_bomb(width, height):
    """A PNG of a few hundred bytes whose header promises this many pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("GIF", "P")],
)
def test_sound_bytes_are_kept_as_they_are(form, mode):
    data = noise(form, mode=mode)
    checked = check_image("a", data, max_pixels=LIMIT)
    assert checked.data is data
    assert checked.sha256 == sha256_bytes(data)
    assert (checked.width, checked.height) == (64, 48)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(form, kept):
    data = noise(form)
    assert refused(data[: int(len(data) * kept)]).reason == "image-broken"


def test_a_jpeg_cut_in_the_middle_that_still_has_its_end_is_refused():
    data = noise("JPEG")
    assert refused(data[: len(data) // 2] + b"\xff\xd9").reason == "image-broken"


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"])
def test_what_is_no_image_is_refused(data):
    assert refused(data).reason == "image-unknown"


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (60_000, 60_000), (1001, 1000)])
def test_a_bomb_is_refused_by_its_header(width, height):
    refusal = refused(png_bomb(width, height))
    assert (refusal.reason, refusal.value) == ("image-pixels", f"folder/a.jpg: {width} x {height}")
    assert refusal.threshold == str(LIMIT)


def test_the_limit_holds_for_jpegs():
    assert refused(noise("JPEG"), max_pixels=64 * 48 - 1).reason == "image-pixels"
    assert check_image("a", noise("JPEG"), max_pixels=64 * 48).width == 64
