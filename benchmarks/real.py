"""Provide any number of real conversations from MANTIS_TEST_DATA, in which no two images have the same bytes."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from mantis.progress import Progress

START = b"\xff\xd8"  # first bytes of every JPEG


def conversations_folder() -> Path:
    """Return the folder with `train.json` and its images; exit if MANTIS_TEST_DATA is not set."""
    folder = os.environ.get("MANTIS_TEST_DATA")
    if not folder:
        sys.exit("MANTIS_TEST_DATA is not set: it must name the folder whose mantis-chat/ holds real conversations.")
    return Path(folder) / "mantis-chat"


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
