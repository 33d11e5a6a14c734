import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.prepare.image_checks import check_image
from components.data.sources.rejection import RowRejected
from mantis.hashing import sha256_bytes
from mantis.images.preprocessing import decode

LIMIT = 1_000_000


def refused(data: bytes, *, max_pixels: int = LIMIT) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        check_image("folder/a.jpg", data, max_pixels=max_pixels)
    assert caught.value.value.startswith("folder/a.jpg: ")
    return caught.value


def noise(form: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    image = Image.effect_noise(size, 80).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises this many pixels."""

    def chunk(kind: Any, body: Any) -> Any:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def official(data: bytes) -> np.ndarray:
    """What the official code trains on: mantis/train/train_utils.py, load_image."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L")),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *((form, "RGB") for form in ("WEBP", "BMP", "TIFF", "PPM")),
        ("WEBP", "RGBA"),
        ("GIF", "P"),
    ],
)
def test_sound_bytes_are_kept_as_they_are(form: str, mode: str) -> None:
    data = noise(form, mode=mode)
    checked = check_image("a", data, max_pixels=LIMIT)
    assert checked.data is data
    assert checked.repair is None
    assert checked.sha256 == sha256_bytes(data)
    assert (checked.width, checked.height) == (64, 48)
    assert (decode(data) == official(data)).all()


def test_a_jpeg_of_rgb_planes_is_kept() -> None:
    data = noise("JPEG", keep_rgb=True)
    assert check_image("a", data, max_pixels=LIMIT).data is data
    assert (decode(data) == official(data)).all()


@pytest.mark.parametrize("progressive", [False, True])
def test_whatever_damage_a_full_decode_finds_is_found(progressive: bool) -> None:
    """The check decodes at an eighth of the size; it reads every coefficient all the same."""
    generator = np.random.default_rng(7)
    found = 0
    for _ in range(60):
        data = bytearray(noise("JPEG", size=(160, 120), quality=85, progressive=progressive))
        start, count = int(generator.integers(700, len(data) - 60)), int(generator.integers(1, 40))
        data[start : start + count] = generator.bytes(count)
        try:
            simplejpeg.decode_jpeg(bytes(data), colorspace="RGB", strict=True)
        except ValueError:
            assert refused(bytes(data)).reason == "image-broken"
            found += 1
        else:
            check_image("a", bytes(data), max_pixels=LIMIT)
    assert found > 30


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_not_applied_as_in_the_official_code(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = noise(form, exif=exif)
    checked = check_image("a", data, max_pixels=LIMIT)
    assert (checked.data, checked.repair) == (data, None)
    assert (checked.width, checked.height) == (64, 48)
    assert decode(data).shape == official(data).shape == (48, 64, 3)


def test_pillow_turns_tiffs_itself_and_the_size_says_so() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = noise("TIFF", exif=exif)
    checked = check_image("a", data, max_pixels=LIMIT)
    assert (checked.height, checked.width, 3) == decode(data).shape == official(data).shape


def test_alpha_is_dropped_as_in_the_official_code() -> None:
    colours = np.full((30, 40, 4), (200, 10, 60, 0), np.uint8)  # red, and fully transparent
    data = encoded(Image.fromarray(colours), "PNG")
    assert check_image("a", data, max_pixels=LIMIT).data is data
    assert (decode(data) == (200, 10, 60)).all()


def frames(form: Any) -> Any:
    still = Image.effect_noise((64, 48), 80).convert("RGB")
    options = {"lossless": True} if form == "WEBP" else {}
    return encoded(still, form, save_all=True, append_images=[still.rotate(90), still.rotate(180)], **options)


@pytest.mark.parametrize(
    ("data", "reason", "found"),
    [
        (noise("JPEG", mode="CMYK"), "image-colours", "CMYK"),
        (noise("TIFF", mode="CMYK"), "image-colours", "CMYK"),
        (noise("TIFF", mode="YCbCr"), "image-colours", "YCbCr"),
        *((frames(form), "image-frames", "several") for form in ("GIF", "PNG", "WEBP", "TIFF")),
    ],
)
def test_what_the_fast_path_cannot_read_is_written_anew_with_the_same_pixels(
    data: bytes, reason: str, found: str
) -> None:
    checked = check_image("folder/a.jpg", data, max_pixels=LIMIT)
    assert checked.repair is not None
    assert (checked.repair.reason, checked.repair.value) == (reason, f"folder/a.jpg: {found}")
    assert checked.sha256 == sha256_bytes(checked.data) != sha256_bytes(data)
    assert (decode(checked.data) == official(data)).all()
    assert (checked.width, checked.height) == (64, 48)
    again = check_image("folder/a.jpg", checked.data, max_pixels=LIMIT)
    assert (again.data, again.repair) == (checked.data, None)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight_and_not_white(form: str) -> None:
    ramp = np.linspace(0, 65_535, 64 * 48).reshape(48, 64)
    data = encoded(Image.fromarray(ramp.astype(np.uint16)), form)
    assert official(data).mean() > 250, "convert clips: that is why this is repaired"
    checked = check_image("a", data, max_pixels=LIMIT)
    assert checked.repair is not None
    assert checked.repair.reason == "image-depth"
    assert np.abs(decode(checked.data)[..., 0] - ramp / 257).max() <= 1


def test_floating_point_is_spread_over_its_own_range() -> None:
    values = np.linspace(-1, 3, 64 * 48, dtype=np.float32).reshape(48, 64)
    checked = check_image("a", encoded(Image.fromarray(values), "TIFF"), max_pixels=LIMIT)
    pixels = decode(checked.data)
    assert (pixels.min(), pixels.max()) == (0, 255)
    values[3, 4] = np.nan
    assert refused(encoded(Image.fromarray(values), "TIFF")).reason == "image-broken"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_any_bytes_are_checked_or_refused(junk: Any, form: Any, data: Any) -> None:
    whole = SOUND[form]
    start = data.draw(st.integers(0, len(whole)))
    broken = whole[:start] + junk + whole[start + data.draw(st.integers(0, len(junk) + 8)) :]
    reasons = set()
    for candidate in (junk, broken):
        try:
            checked = check_image("a", candidate, max_pixels=LIMIT)
        except RowRejected as refusal:
            reasons.add(refusal.reason)
        else:
            assert decode(checked.data).shape == (checked.height, checked.width, 3)
    assert reasons <= {"image-broken", "image-unknown", "image-pixels"}


SOUND = {form: noise(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(form: str, kept: float) -> None:
    data = noise(form)
    assert refused(data[: int(len(data) * kept)]).reason == "image-broken"


def test_a_jpeg_cut_in_the_middle_that_still_has_its_end_is_refused() -> None:
    data = noise("JPEG")
    assert refused(data[: len(data) // 2] + b"\xff\xd9").reason == "image-broken"


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert refused(data).reason == "image-unknown"


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (60_000, 60_000), (1001, 1000)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    refusal = refused(png_bomb(width, height))
    assert (refusal.reason, refusal.value) == ("image-pixels", f"folder/a.jpg: {width} x {height}")
    assert refusal.threshold == str(LIMIT)


def test_the_limit_holds_for_jpegs() -> None:
    assert refused(noise("JPEG"), max_pixels=64 * 48 - 1).reason == "image-pixels"
    assert check_image("a", noise("JPEG"), max_pixels=64 * 48).width == 64
