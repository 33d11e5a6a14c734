"""Provide any number of real conversations from MANTIS_TEST_DATA, in which no two images have the same bytes."""

import io
import json
import os
from pathlib import Path
from typing import Any

from mantis.errors import ConfigError
from mantis.progress import Progress

START = b"\xff\xd8"  # first bytes of every JPEG


def conversations_folder() -> Path:
    """Return the folder with `train.json` and its images.

    Raises:
        ConfigError: MANTIS_TEST_DATA is not set, or names a folder without conversations and images.
    """
    folder = os.environ.get("MANTIS_TEST_DATA")
    wanted = "the folder whose mantis-chat/ holds train.json and its images"
    remedy = f"Set it to {wanted}."
    if not folder:
        raise ConfigError("MANTIS_TEST_DATA is not set.", remedy=remedy)
    found = Path(folder) / "mantis-chat"
    if not (found / "train.json").is_file():
        raise ConfigError(f"MANTIS_TEST_DATA = {folder}: {found / 'train.json'} is no file.", remedy=remedy)
    if next(found.rglob("*.jpg"), None) is None:
        raise ConfigError(f"MANTIS_TEST_DATA = {folder}: {found} holds no JPEG.", remedy=remedy)
    return found


def raw_rows() -> list[dict[str, Any]]:
    """Return the rows of train.json."""
    rows: list[dict[str, Any]] = json.loads((conversations_folder() / "train.json").read_text())
    return rows


def jpegs() -> list[bytes]:
    """Return the distinct images."""
    return [path.read_bytes() for path in sorted(conversations_folder().rglob("*.jpg"))]


def enlarged(jpeg: bytes, *, pixels: int) -> bytes:
    """Resize the image to about `pixels` pixels (bicubic), as a JPEG of quality 90."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        factor = (pixels / (image.width * image.height)) ** 0.5
        size = (round(image.width * factor), round(image.height * factor))
        buffer = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def unique(jpeg: bytes, number: int) -> bytes:
    """Return the same image with other bytes: a comment segment holds `number`."""
    comment = str(number).encode()
    return START + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[len(START) :]


def repeat(folder: Path, count: int) -> int:
    """Write `count` conversations in raw form below `folder`, and return the bytes of their images.

    The real conversations repeat. Each row has its own id and image files, and no two images have the same bytes.
    """
    source, rows = conversations_folder(), raw_rows()
    images = {path: (source / path).read_bytes() for row in rows for path in row["images"]}
    written, size, repeated = 0, 0, []
    progress = Progress(label="write conversations", total=count, unit="rows")
    for number in range(count):
        row = rows[number % len(rows)]
        (folder / str(number // 1000)).mkdir(parents=True, exist_ok=True)
        names = []
        for path in row["images"]:
            names.append(f"{number // 1000}/{written}.jpg")
            data = unique(images[path], written)
            (folder / names[-1]).write_bytes(data)
            written, size = written + 1, size + len(data)
        repeated.append({"id": str(number), "images": names, "conversation": row["conversation"]})
        progress.advance()
    (folder / "train.json").write_text(json.dumps(repeated))
    return size
