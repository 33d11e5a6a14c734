"""Finds the subsets in a local folder or a bucket, and the layout of each."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from components.data.sources.files.arrow_rows import DICTIONARY
from components.data.sources.files.form_table import SOURCE_FORMS
from components.data.sources.files.json_list import JSON_LIST
from components.data.sources.files.parquet_rows import PARQUET, is_published
from components.data.sources.files.source_form import SourceForm, base_name
from components.data.sources.images.beside_images import BesideImages
from components.data.sources.images.folder_images import FolderImages, LocalImages
from components.data.sources.images.zip_images import ZipImages
from components.data.sources.reading import AS_FOUND, Reading
from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source import TRAIN, ImageSource, RowSource, listed
from mantis.errors import ConfigError, NotFoundError
from mantis.hub.hub_store import HubStore
from mantis.store.base import ObjectStore, StoredObject, concurrently
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from mantis.store.store_url import BUCKETS, folder_of, scheme_of

SPLITS = (TRAIN, "val", "validation", "test")
PREFERRED = "train.json"


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """The form of a folder's files, the files of each split, and the files with rows that belong to no split."""

    form: SourceForm
    splits: dict[str, list[StoredObject]]
    others: tuple[StoredObject, ...] = ()


def find_sources(url: str, reading: Reading = AS_FOUND) -> dict[str, RowSource]:
    """Find the subsets at `url`, by name. `reading` overrides the forms that are found.

    If the folder itself holds rows, it is the only subset. Else each of its subfolders with rows is a subset. The
    validation split of a folder is a subset of its own: `nlvr2` and `nlvr2-val`.

    Raises:
        ConfigError: the folder does not exist or holds no subset, or two subsets have the same name.
    """
    store = _open(url)
    name = _place(store) or "source"
    try:
        files, folders = store.children("")
    except NotFoundError as error:
        raise ConfigError(f"data.source = {url!r}: {error.problem}", remedy="Set a folder or a bucket.") from None
    found = _sources_in(store, "", name, files, reading)
    if found:
        return _by_name(found)

    def look(key: str) -> tuple[list[RowSource], Sequence[StoredObject]]:
        there = store.children(key)[0]
        return _sources_in(store, key, key, there, reading), there

    inner = concurrently(look, folders)
    found = [source for sources, _ in inner for source in sources]
    if not found:
        raise _no_subset(url, [*files, *(file for _, there in inner for file in there)], reading)
    return _by_name(found)


def _no_subset(url: str, files: Sequence[StoredObject], reading: Reading) -> ConfigError:
    """The error for a source without rows. It names the files that could hold some by their names."""
    near = [file.key for file in files if any(form.accepts(file) for form in SOURCE_FORMS)]
    wanted = "no known form" if reading.source_form is None else f"another form than {reading.source_form.name}"
    unread = f" {listed(near)}: {wanted}." if near else ""
    named = " --format names the form of a file." if near else ""
    return ConfigError(
        f"data.source = {url!r} holds no subset.{unread}",
        remedy="Put rows into it or its subfolders, in one of these forms: "
        f"{', '.join(form.name for form in SOURCE_FORMS)} (docs/how-to/bring-your-data.md).{named}",
    )


def open_source(url: str, subset: str, reading: Reading = AS_FOUND) -> RowSource:
    """Open the subset `subset` at `url`.

    Raises:
        ConfigError: the source has no such subset.
    """
    found = find_sources(url, reading)
    if subset not in found:
        raise ConfigError(
            f"subset = {subset!r} is not at data.source = {url!r}.", remedy=f"Choose one of {', '.join(found)}."
        )
    return found[subset]


def open_file(file: Path, reading: Reading = AS_FOUND) -> RowSource:
    """Open the rows of one local file. Their images are embedded, or files and zips beside it.

    Raises:
        ConfigError: there is no such file, or it has no known form.
    """
    if not file.is_file():
        raise ConfigError(f"{file} is no file.", remedy="Name a file with rows, or a folder that holds one subset.")
    store = LocalStore(file.absolute().parent)
    return _file_in(store, file.name, store.children("")[0], reading)


def open_remote_file(url: str, reading: Reading = AS_FOUND) -> RowSource | None:
    """Open the rows of one file in a bucket or on the hub, as `open_file` does; None if `url` names no such file.

    Raises:
        ConfigError: the file has no known form.
    """
    folder, _, name = url.rpartition("/")
    if not any(name.lower().endswith(suffix) for form in SOURCE_FORMS for suffix in form.suffixes):
        return None
    store = _open(folder)
    try:
        beside = store.children("")[0]
    except NotFoundError:
        return None
    return _file_in(store, name, beside, reading) if any(each.key == name for each in beside) else None


def _file_in(store: ObjectStore, name: str, beside: Sequence[StoredObject], reading: Reading) -> RowSource:
    """The rows of the file `name`, one of the files `beside` at the top of a store."""
    own = [each for each in beside if each.key == name]
    found = _files_in(store, own, reading)
    if not found.splits:
        raise ConfigError(
            f"{store.uri(name)} has no known form of rows.",
            remedy=f"Write rows in one of these forms: {', '.join(form.name for form in SOURCE_FORMS)}.",
        )
    split = next(iter(found.splits))
    zips = [each for each in beside if each.key.lower().endswith(".zip")]
    return replace(_source(store, "", _name(Path(name).stem, split), split, found, zips, reading), others=tuple)


def _open(url: str) -> ObjectStore:
    scheme = scheme_of(url)
    if scheme in BUCKETS:
        return open_store(url.rstrip("/"))
    if scheme == "hf":
        return HubStore(url)
    if scheme not in ("", "file"):
        raise ConfigError(
            f"data.source = {url!r} is neither a folder, a bucket nor a data set of the hub.",
            remedy="Use /path, file:///path, s3://bucket/prefix or hf://datasets/ORG/NAME.",
        )
    folder = folder_of(url, field="data.source")
    if not folder.is_dir():
        raise ConfigError(
            f"data.source = {url!r} does not exist." if not folder.exists() else f"data.source = {url!r} is a file.",
            remedy="Set the folder that holds the rows (--source FOLDER).",
        )
    return LocalStore(folder)


def _place(store: ObjectStore) -> str:
    """The name of a source's folder."""
    if isinstance(store, LocalStore):
        return store.root.name
    return store.name if isinstance(store, HubStore) else store.url.rpartition("/")[2]


def _sources_in(
    store: ObjectStore, folder: str, name: str, files: Sequence[StoredObject], reading: Reading
) -> list[RowSource]:
    """The splits of the subset that consists of these files; empty if the files hold no rows."""
    if any(base_name(file) == DICTIONARY for file in files):
        return _dictionary(store, folder, name, reading)
    found = _files_in(store, files, reading)
    zips = [file for file in files if file.key.lower().endswith(".zip")]
    return [
        _source(store, folder, _name(name, split), split, found, _zips_of(split, found, zips), reading)
        for split in found.splits
    ]


def _dictionary(store: ObjectStore, folder: str, name: str, reading: Reading) -> list[RowSource]:
    """The splits of a data set that `datasets` saved with a folder for each."""
    found = []
    for inner in store.children(folder)[1]:
        split = inner.rpartition("/")[2]
        files = _files_in(store, store.children(inner)[0], reading)
        for rows in files.splits.values():
            own = replace(files, splits={split: rows})
            found.append(_source(store, inner, _name(name, split), split, own, (), reading))
    return found


def _files_in(store: ObjectStore, files: Sequence[StoredObject], reading: Reading) -> FoundFiles:
    """The form of the files and the files of each split.

    The order is: the published layout, files that are named by a split, any files of a form.
    """
    forms = SOURCE_FORMS if reading.source_form is None else (reading.source_form,)
    if PARQUET in forms:
        published = {split: [file for file in files if is_published(file, split)] for split in SPLITS}
        if any(published.values()):
            splits = {split: found for split, found in published.items() if found}
            return _with_others(PARQUET, splits, [file for file in files if PARQUET.accepts(file)])
    here = {form: [file for file in files if form.accepts(file)] for form in forms}
    if reading.source_form is None:
        here = {form: [file for file in found if form.recognises(store, file)] for form, found in here.items()}
    named = {
        form: {split: rows for split in SPLITS if (rows := _named(found, split, form))} for form, found in here.items()
    }
    chosen = _only(store, {form: splits for form, splits in named.items() if TRAIN in splits})
    chosen = chosen or _only(store, {form: {TRAIN: found} for form, found in here.items() if found})
    if chosen is not None:
        return _with_others(*chosen, [file for found in here.values() for file in found])
    broken = [file for file in files if base_name(file) == PREFERRED and JSON_LIST in forms]
    # Its parser says what is wrong with it.
    return FoundFiles(form=JSON_LIST, splits={TRAIN: broken} if broken else {})


def _with_others(form: SourceForm, splits: dict[str, list[StoredObject]], there: Iterable[StoredObject]) -> FoundFiles:
    """The splits, and those of the files `there` that belong to none."""
    read = {file.key for files in splits.values() for file in files}
    others = {file.key: file for file in there if file.key not in read}
    return FoundFiles(form=form, splits=splits, others=tuple(others.values()))


def _only(
    store: ObjectStore, found: dict[SourceForm, dict[str, list[StoredObject]]]
) -> tuple[SourceForm, dict[str, list[StoredObject]]] | None:
    """The only form of some files; None if there is none.

    Raises:
        ConfigError: there are several, so that the rows of one would be left out.
    """
    if len(found) > 1:
        files = {form.name: splits[TRAIN][0].key for form, splits in found.items()}
        shown = ", ".join(f"{name} ({store.uri(key)})" for name, key in files.items())
        raise ConfigError(
            f"data.source has rows in several forms side by side: {shown}.",
            remedy=f"Choose one with --format, e.g. --format {next(iter(files))}, or move the other files away.",
        )
    return next(iter(found.items()), None)


def _named(files: Sequence[StoredObject], split: str, form: SourceForm) -> list[StoredObject]:
    """The files that are named by the split: `train.jsonl` alone, else `train-0.jsonl`, `train_a.jsonl` and so on."""
    stems = {file.key: _stem(file, form) for file in files}
    exact = [file for file in files if stems[file.key] == split]
    return exact or [file for file in files if re.fullmatch(rf"{split}[-_.].*", stems[file.key])]


def _stem(file: StoredObject, form: SourceForm) -> str:
    suffix = max((end for end in form.suffixes if file.key.lower().endswith(end)), key=len)
    return base_name(file)[: -len(suffix)]


def _zips_of(split: str, found: FoundFiles, zips: Sequence[StoredObject]) -> list[StoredObject]:
    """The zips with the images of a split: in Parquet's layout those that are named by it, else those of no other."""
    own = [file for file in zips if _is_named_for(file, split)]
    if own and found.form is PARQUET:
        return own
    others = [other for other in found.splits if other != split]
    return [file for file in zips if not any(_is_named_for(file, other) for other in others)]


def _is_named_for(file: StoredObject, split: str) -> bool:
    return re.fullmatch(rf"{split}_images.*\.zip", base_name(file)) is not None


def _source(
    store: ObjectStore,
    folder: str,
    name: str,
    split: str,
    found: FoundFiles,
    zips: Sequence[StoredObject],
    reading: Reading,
) -> RowSource:
    """Make a source. Its images are members of the zips if there are zips, and files below the folder."""
    reader = RowReader(
        form=reading.row_form,
        columns=reading.columns,
        roots=_roots(store, folder),
        max_image_bytes=reading.max_image_bytes,
        questions=reading.questions,
    )
    form, files = found.form, found.splits[split]
    rows = form.open(store, files, reader)

    def stored_bytes() -> int:
        listed = [*files, *zips] if zips or form is PARQUET else store.list(folder)
        return sum(file.size for file in listed)

    return RowSource(
        name=name,
        split=split,
        form=form.name,
        others=lambda: [*map(base_name, found.others), *_below(store, folder)],
        rows=rows,
        reader=reader,
        images=_images(store, folder, zips),
        stored_bytes=stored_bytes,
    )


def _below(store: ObjectStore, folder: str) -> list[str]:
    """The files in the folders below `folder` that would be read if it held no rows itself, by their relative paths."""
    inner = store.children(folder)[1]
    found = [f"{key}/{name}" for key in inner for name in _names_in(store, key) if _is_split(name)]
    return sorted(key.removeprefix(f"{folder}/") if folder else key for key in found)


def _names_in(store: ObjectStore, folder: str) -> Iterator[str]:
    """The names of the files in a folder, which may be millions of images."""
    if not isinstance(store, LocalStore):
        yield from map(base_name, store.children(folder)[0])
        return
    try:
        with os.scandir(store.root / folder) as entries:
            yield from (entry.name for entry in entries if entry.name.startswith(SPLITS) and entry.is_file())
    except PermissionError:
        return  # a folder that nobody may open holds no rows for anybody


def _is_split(name: str) -> bool:
    """Whether a file of this name is found as rows of a split."""
    if not name.startswith(SPLITS):
        return False
    file = StoredObject(key=name, size=0)
    return any(form.accepts(file) and _named([file], split, form) for form in SOURCE_FORMS for split in SPLITS)


def _images(store: ObjectStore, folder: str, zips: Sequence[StoredObject]) -> ImageSource:
    """The images below a folder: members of its zips, then files."""
    beside = FolderImages(store=store, folder=folder)
    if isinstance(store, LocalStore):
        beside = LocalImages(store=store, folder=folder)
    if not zips:
        return beside
    return BesideImages(zips=ZipImages(store=store, files=tuple(sorted(zips, key=_part))), folder=beside)


def _roots(store: ObjectStore, folder: str) -> dict[str, str]:
    """What absolute paths of images begin with: the folder of the rows, then the source. Each has its relative path."""
    up = "../" * len(folder.split("/")) if folder else ""
    places = {folder: "", "": up}
    if not isinstance(store, LocalStore):
        return {f"{store.uri(place).rstrip('/')}/": relative for place, relative in places.items()}
    return {
        f"{path.as_posix().rstrip('/')}/": relative
        for place, relative in places.items()
        for path in (store.root / place, (store.root / place).resolve())
    }


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


def _part(file: StoredObject) -> tuple[int, str]:
    """Sort key that orders parts by their numbers: 2 before 10."""
    number = re.search(r"(\d+)\.zip$", file.key)
    return (int(number[1]) if number else 0, file.key)
