"""Finds the subsets in a local folder or a bucket, and the layout of each."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from components.data.sources.folder_images import FolderImages, LocalImages
from components.data.sources.json_rows import PREFERRED, JsonRows
from components.data.sources.parquet_rows import ParquetRows
from components.data.sources.source import TRAIN, ImageSource, RowSource, RowStream
from components.data.sources.zip_images import ZipImages
from mantis.errors import ConfigError, NotFoundError
from mantis.store.base import ObjectStore, StoredObject, concurrently
from mantis.store.local import LocalStore
from mantis.store.opening import open_store

SPLITS = (TRAIN, "val")
BEGINNING = 4096  # bytes of a JSON file that are read to see whether it is a list


def find_sources(url: str) -> dict[str, RowSource]:
    """Find the subsets at `url`, by name.

    If the folder itself holds rows, it is the only subset. Else each of its subfolders with rows is a subset. The
    validation split of a folder is a subset of its own: `nlvr2` and `nlvr2-val`.

    Raises:
        ConfigError: the folder does not exist or holds no subset, or two subsets have the same name.
    """
    store = _open(url)
    name = (store.root.name if isinstance(store, LocalStore) else store.url.rpartition("/")[2]) or "source"
    try:
        files, folders = store.children("")
    except NotFoundError as error:
        raise ConfigError(f"data.source = {url!r}: {error.problem}", remedy="Set a folder or a bucket.") from None
    found = _sources_in(store, "", name, files)
    if not found:
        inner = concurrently(lambda key: _sources_in(store, key, key, store.children(key)[0]), folders)
        found = [source for sources in inner for source in sources]
    if not found:
        raise ConfigError(
            f"data.source = {url!r} holds no subset.",
            remedy="Put train-*.parquet with its zips, or a JSON file with a list of rows, into it or its subfolders "
            "(docs/how-to/bring-your-data.md).",
        )
    return _by_name(found)


def open_source(url: str, subset: str) -> RowSource:
    """Open the subset `subset` at `url`.

    Raises:
        ConfigError: the source has no such subset.
    """
    found = find_sources(url)
    if subset not in found:
        raise ConfigError(
            f"subset = {subset!r} is not at data.source = {url!r}.", remedy=f"Choose one of {', '.join(found)}."
        )
    return found[subset]


def _open(url: str) -> ObjectStore:
    parsed = urlparse(url)
    if parsed.scheme == "s3":
        return open_store(url.rstrip("/"))
    if parsed.scheme not in ("", "file"):
        raise ConfigError(
            f"data.source = {url!r} is neither a folder nor a bucket.",
            remedy="Use /path, file:///path or s3://bucket/prefix.",
        )
    folder = Path(unquote(parsed.path)) if parsed.scheme else Path(url)
    if not folder.is_dir():
        raise ConfigError(
            f"data.source = {url!r} does not exist." if not folder.exists() else f"data.source = {url!r} is a file.",
            remedy="Set the folder that holds the rows (--source FOLDER).",
        )
    return LocalStore(folder)


def _sources_in(store: ObjectStore, folder: str, name: str, files: Sequence[StoredObject]) -> list[RowSource]:
    """The splits of the subset that consists of these files; empty if the files hold no rows."""
    found = []
    for split in SPLITS:
        rows = [file for file in files if re.fullmatch(rf"{split}(-.*)?\.parquet", _base(file))]
        if rows:
            zips = [file for file in files if re.fullmatch(rf"{split}_images.*\.zip", _base(file))]
            rows_kept = ParquetRows(store=store, files=tuple(rows))
            found.append(_source(store, folder, _name(name, split), split, rows_kept, rows, zips))
    if found:
        return found
    rows = [file for file in files if _base(file) == PREFERRED]
    rows = rows or [file for file in files if file.key.endswith(".json") and _begins_as_list(store, file)]
    if not rows:
        return []
    zips = [file for file in files if file.key.endswith(".zip")]
    json = JsonRows(store=store, folder=folder, files=tuple(rows))
    return [_source(store, folder, _name(name, TRAIN), TRAIN, json, rows, zips)]


def _source(
    store: ObjectStore,
    folder: str,
    name: str,
    split: str,
    rows: RowStream,
    files: Sequence[StoredObject],
    zips: Sequence[StoredObject],
) -> RowSource:
    """Make a source. Its images are members of the zips if there are zips, else files below the folder."""
    images: ImageSource
    if zips:
        images = ZipImages(store=store, files=tuple(sorted(zips, key=_part)))
    elif isinstance(store, LocalStore):
        images = LocalImages(store=store, folder=folder)
    else:
        images = FolderImages(store=store, folder=folder)

    def stored_bytes() -> int:
        listed = store.list(folder) if isinstance(rows, JsonRows) and not zips else [*files, *zips]
        return sum(file.size for file in listed)

    return RowSource(name=name, split=split, rows=rows, images=images, stored_bytes=stored_bytes)


def _by_name(sources: Sequence[RowSource]) -> dict[str, RowSource]:
    found: dict[str, RowSource] = {}
    for source in sources:
        if source.name in found:
            raise ConfigError(
                f"data.source: {found[source.name].url} and {source.url} both have the subset name {source.name!r}.",
                remedy="Rename one of the folders.",
            )
        found[source.name] = source
    return found


def _name(folder: str, split: str) -> str:
    """The folder's name as a valid `Name`. The name ends with the split, except for the training split."""
    suffix = "" if split == TRAIN else f"-{split}"
    name = re.sub(r"[^a-z0-9_.-]+", "-", folder.lower()).lstrip("_.-")[: 63 - len(suffix)] or "source"
    return name + suffix


def _base(file: StoredObject) -> str:
    return file.key.rpartition("/")[2]


def _part(file: StoredObject) -> tuple[int, str]:
    """Sort key that orders parts by their numbers: 2 before 10."""
    number = re.search(r"(\d+)\.zip$", file.key)
    return (int(number[1]) if number else 0, file.key)


def _begins_as_list(store: ObjectStore, file: StoredObject) -> bool:
    text = store.get_range(file.key, 0, BEGINNING).decode("utf-8-sig", errors="replace")
    return text.lstrip().startswith("[")
