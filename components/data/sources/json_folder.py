"""The raw JSON form: a folder with `train.json`, a list of rows, and the images that they name."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from components.core.errors import ConfigError, InputError
from components.core.hashing import fingerprint, sha256_file
from components.core.progress import Progress
from components.data.refusal import Refusal
from components.data.sources.json_stream import read_list

HASH_THREADS = 8
HASHED_AT_ONCE = 4096  # files
PREFERRED = "train.json"


@dataclass(frozen=True)
class JsonFolder:
    """One subset as a folder."""

    folder: Path

    @cached_property
    def file(self) -> Path:
        """The JSON file that holds the rows.

        Raises:
            InputError: there is none, or several and none is `train.json`.
        """
        found = _row_files(self.folder)
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise InputError(
                f"{self.folder} should hold one JSON file with rows; found: {names}.",
                remedy=f"Name the one to read {PREFERRED}.",
            )
        return found[0]

    def rows(self) -> Iterator[Any]:
        """The rows as they are, in order."""
        return read_list(self.file)

    def read_image(self, path: str, *, max_bytes: int) -> bytes:
        """The bytes of the image that a row names by `path`.

        Raises:
            Refusal: missing, outside the folder, no file, or of more than `max_bytes`.
        """
        real = self._locate(path)
        try:
            size = os.stat(real).st_size
            if size > max_bytes:
                raise Refusal("image-bytes", value=f"{path}: {size}", threshold=str(max_bytes))
            with open(real, "rb") as file:
                return file.read()
        except OSError as error:
            raise Refusal("image-missing", value=f"{path}: {error.strerror}") from None

    def fingerprint(self) -> str:
        """Hash of the JSON and of every file of this folder that its rows name."""
        paths = sorted(self._named_images())
        progress = Progress(label="hash source", total=len(paths), unit="images")
        hashes: list[str] = []
        with ThreadPoolExecutor(HASH_THREADS) as pool:
            for start in range(0, len(paths), HASHED_AT_ONCE):
                hashes += pool.map(self._hash, paths[start : start + HASHED_AT_ONCE])
                progress.advance(len(hashes) - start)
        return fingerprint({"json": sha256_file(self.file), "images": list(zip(paths, hashes, strict=True))})

    def _named_images(self) -> set[str]:
        named: set[str] = set()
        for row in self.rows():
            images = row.get("images") if isinstance(row, dict) else None
            if isinstance(images, list):
                named |= {path for path in images if isinstance(path, str) and _is_text(path)}
        return named

    def _hash(self, path: str) -> str:
        try:
            return sha256_file(Path(self._locate(path)))
        except (Refusal, OSError):
            return "none"  # preparing the row says what is wrong with it

    def _locate(self, path: str) -> str:
        root = self._root
        try:
            real = os.path.realpath(os.path.join(root, path))
        except (ValueError, OSError):
            raise Refusal("image-missing", value=f"{path}: no path of a file") from None
        if not real.startswith(root + os.sep):
            raise Refusal("image-outside", value=path)
        if not os.path.isfile(real):
            raise Refusal("image-missing", value=path)
        return real

    @cached_property
    def _root(self) -> str:
        return os.path.realpath(self.folder)


def find_subsets(source: str) -> dict[str, JsonFolder]:
    """The subsets at `source`, a folder: itself where it holds rows, else each of its subfolders that does.

    Raises:
        ConfigError: no such folder, nothing in it, or two subfolders of one name.
    """
    folder = _folder_of(source)
    if _row_files(folder):
        return {_subset_name(folder): JsonFolder(folder)}
    found: dict[str, JsonFolder] = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if _row_files(inner):
            name = _subset_name(inner)
            if name in found:
                raise ConfigError(
                    f"data.source: {found[name].folder.name!r} and {inner.name!r} are both the subset {name!r}.",
                    remedy="Rename one of the folders.",
                )
            found[name] = JsonFolder(inner)
    if not found:
        raise ConfigError(
            f"data.source = {source!r} holds no subset.",
            remedy="Expected: a JSON file with a list of rows in it or in its subfolders (docs/architecture.md).",
        )
    return found


def _folder_of(source: str) -> Path:
    parsed = urlparse(source)
    if parsed.scheme not in ("", "file"):
        raise ConfigError(f"data.source = {source!r} is no folder.", remedy="Name a folder on this machine.")
    folder = Path(unquote(parsed.path)) if parsed.scheme else Path(source)
    if not folder.is_dir():
        raise ConfigError(
            f"data.source = {source!r} does not exist."
            if not folder.exists()
            else f"data.source = {source!r}: a file.",
            remedy="Name the folder that holds the JSON file (--source FOLDER).",
        )
    return folder.absolute()


def _row_files(folder: Path) -> list[Path]:
    """`train.json` if there is one, whatever is in it; else every JSON file that begins as a list."""
    preferred = folder / PREFERRED
    if preferred.is_file():
        return [preferred]
    return [path for path in sorted(folder.glob("*.json")) if path.is_file() and _begins_as_list(path)]


def _begins_as_list(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(4096).lstrip().startswith("[")


def _subset_name(folder: Path) -> str:
    """The folder's name as a settings.Name."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", folder.name.lower()).lstrip("_.-")[:63]
    return name or "source"


def _is_text(value: str) -> bool:
    """False for text that has no UTF-8 form, as broken input has."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
