"""Reads the images of a row: paths, data URIs, bytes, and mappings of bytes and path."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes, urlparse
from urllib.request import url2pathname

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import (
    CONTROL_OR_LINE,
    LONGEST_NAME,
    ImageRef,
    NestedKeys,
    is_there,
    shown,
)

ALLOWED = "a path, a data URI, bytes, or a mapping of bytes and path"
DOWNLOADED = "a file: download the images and write their paths"
DOWNLOADED_VIDEO = "a file: download the videos and write their paths"
ONE_LINE = f"a path of one line and at most {LONGEST_NAME:,} bytes; Base64 stands in a data URI or under `bytes`"
DATA_URI = re.compile("data:", re.IGNORECASE)
PATH_KEYS = ("path", "image", "url", "image_url", "file_name")
BYTES_KEYS = ("bytes", "data", "base64")
VIDEO_PATH_KEYS = ("path", "video", "url")
IMAGE_FIELDS = dict.fromkeys(PATH_KEYS, 0) | dict.fromkeys(BYTES_KEYS, 1)
VIDEO_FIELDS = dict.fromkeys(VIDEO_PATH_KEYS, 0)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_images(value: Any, roots: Mapping[str, str], nested: list[NestedKeys]) -> tuple[ImageRef, ...]:
    """Read one image or a list of images. A path below one of `roots` becomes relative.

    `nested` gets the keys of mappings that are not read.

    Raises:
        RowRejected: an entry is no image, or is the URL of one.
    """
    if not is_there(value):
        return ()
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple(read_image(number, entry, roots, nested) for number, entry in enumerate(entries))


def read_image(number: int, entry: Any, roots: Mapping[str, str], nested: list[NestedKeys]) -> ImageRef:
    """Read image `number` of a row, from 0. `nested` as in `read_images`.

    Raises:
        RowRejected: see `read_images`.
    """
    if isinstance(entry, str):
        return _text(number, entry, roots)
    if isinstance(entry, bytes):
        return ImageRef(path=_embedded(number), data=entry)
    if not isinstance(entry, dict):
        raise _malformed(number, entry)
    path, data = _first(entry, PATH_KEYS), _first(entry, BYTES_KEYS)
    if unused := _unread(entry, IMAGE_FIELDS, (path, data)):
        nested.append(NestedKeys(where=f"image {number + 1}", unused=unused))
    if isinstance(data, str):
        data = _decoded(number, entry, data)
    if isinstance(path, dict) and data is None:  # {"image_url": {"url": ...}}
        return read_image(number, path, roots, nested)
    if data is None:
        if not isinstance(path, str):
            raise _malformed(number, entry)
        return _text(number, path, roots)
    if not isinstance(data, bytes) or not (path is None or isinstance(path, str)):
        raise _malformed(number, entry)
    return ImageRef(path=_named(number, path) if path is not None else _embedded(number), data=data)


def read_videos(value: Any, roots: Mapping[str, str], nested: list[NestedKeys]) -> tuple[str, ...]:
    """Read the path of one video or a list of paths, each as text or in a mapping. `nested` as in `read_images`.

    Raises:
        RowRejected: an entry is no path.
    """
    if not is_there(value):
        return ()
    paths = []
    for number, entry in enumerate(value if isinstance(value, list | tuple) else [value]):
        named = entry if isinstance(entry, dict) else {"path": entry}
        path = _first(named, VIDEO_PATH_KEYS)
        if unused := _unread(named, VIDEO_FIELDS, (path,)):
            nested.append(NestedKeys(where=f"video {number + 1}", unused=unused))
        if not isinstance(path, str) or DATA_URI.match(path):
            raise RowRejected("video-malformed", value=f"video {number + 1}: {shown(entry)}", threshold="a path")
        found = _local(path, roots)
        if URL.match(found):
            raise RowRejected("image-url", value=f"video {number + 1}: {found}", threshold=DOWNLOADED_VIDEO)
        paths.append(_named(number, found))
    return tuple(paths)


def _first(entry: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        if is_there(value := entry.get(key)):
            return value
    return None


def _unread(entry: Mapping[str, Any], fields: Mapping[str, int], found: Sequence[Any]) -> dict[str, Any]:
    """The values of a mapping that are not read. `fields` has the place in `found` of the value that a key may hold.

    A second name of a value counts only if it says otherwise.
    """
    return {
        key: value
        for key, value in entry.items()
        if not (key in fields and found[fields[key]] == value) and is_there(value)
    }


def _text(number: int, text: str, roots: Mapping[str, str]) -> ImageRef:
    if DATA_URI.match(text):
        return ImageRef(path=_embedded(number), data=_data_uri(number, text))
    path = _local(text, roots)
    if URL.match(path):
        raise RowRejected("image-url", value=f"image {number + 1}: {path}", threshold=DOWNLOADED)
    return ImageRef(path=_named(number, path))


def _local(text: str, roots: Mapping[str, str]) -> str:
    """The path as the rows may write it; below one of `roots` it becomes relative. A URL stays as it is."""
    if text.startswith("file://"):
        return _local(url2pathname(urlparse(text).path), roots)
    for root, relative in roots.items():
        if text.startswith(root):
            return relative + text[len(root) :].lstrip("/")
    return text


def _data_uri(number: int, text: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise _malformed(number, text)
    return _decoded(number, text, body) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _decoded(number: int, entry: Any, text: str) -> bytes:
    """The bytes of Base64, which writers of MIME cut into lines."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(number, entry) from None


def _embedded(number: int) -> str:
    """The name of an image that a row embeds without a path."""
    return f"#{number + 1}"


def _named(number: int, path: str) -> str:
    """`path`, if it is one line of bounded text.

    Raises:
        RowRejected: it is not.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise RowRejected("text-not-utf8", value=f"an image's path, character {error.start + 1}") from None
    if not path or size > LONGEST_NAME or CONTROL_OR_LINE.search(path):
        raise RowRejected("images-malformed", value=f"path {number + 1}: {shown(path)}", threshold=ONE_LINE)
    return path


def _malformed(number: int, entry: Any) -> RowRejected:
    return RowRejected("images-malformed", value=f"image {number + 1}: {shown(entry)}", threshold=ALLOWED)
