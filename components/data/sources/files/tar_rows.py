"""WebDataset: tar files whose members of one name, up to its first dot, are one row: `7.json`, `7.0.jpg`, `7.1.jpg`."""

import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, Self

from components.data.sources.files.json_stream import BLANK, LONGEST_ROW, RowDecoder
from components.data.sources.files.source_form import FileRows, SourceForm, by_number
from components.data.sources.images.image_names import plain_name
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import is_there
from components.data.sources.rows.row_reader import ID_KEYS, IMAGE_KEYS, RowReader
from components.data.sources.source import Wanted
from mantis.errors import InputError
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.parquet_file import ROW_BYTES, ROW_VALUES
from mantis.store.range_file import stream

JSON = "json"
IMAGE_SUFFIXES = ("bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")
PLACES = (*IMAGE_KEYS, "image_url", "path", "url")  # the keys of a row under which an image is named
LOOKED_AT = 100  # members of a tar that are looked at to see whether it holds rows
PACKED = (".tar.gz", ".tgz")


@dataclass(frozen=True, kw_only=True)
class TarRows(FileRows):
    """The rows of `files`, in the order of the files. Images are embedded in the rows, since a tar has no index."""

    def read(self, wanted: Wanted) -> Iterator[Any]:
        first = 0
        for file in self.files:
            for sample in self._samples(file, wanted, first):
                yield sample.row()
                first += 1

    def count(self) -> int:
        return sum(1 for file in self.files for _ in self._samples(file, lambda _: False, 0))

    def _samples(self, file: StoredObject, wanted: Wanted, number: int) -> Iterator["_Sample"]:
        """The samples of one tar; the first one is row `number`. Images of rows that are not wanted are not read.

        Raises:
            InputError: the file is no tar, or is cut off.
        """
        origin = self.store.uri(file.key)
        packed = file.key.lower().endswith(PACKED)
        try:
            with (
                stream(self.store, file.key) as raw,
                tarfile.open(fileobj=raw, mode="r|gz" if packed else "r:", tarinfo=_Member) as tar,
            ):
                sample: _Sample | None = None
                for member in tar:
                    if not member.isfile():
                        continue
                    key, kind = _split(member.name)
                    if sample is not None and sample.key != key:
                        yield sample
                        sample = None
                    if sample is None:
                        sample = _Sample(key=key, origin=origin, full=wanted(number), raw=None if packed else raw)
                        number += 1
                    sample.add(tar, member, kind, self.reader.max_image_bytes)
                    tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every member that it met
                if sample is not None:
                    yield sample
                if not packed:
                    _require_end(self.store, file, tar.offset)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise InputError(
                f"{origin} cannot be read as a tar: {error}.", remedy="Copy the file again. It may be cut off."
            ) from None


class _Member(tarfile.TarInfo):
    """A member's name, size and place. The other fields would take most of the time of a tar of small images."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header.

        Raises:
            tarfile.HeaderError: the header is damaged.
        """
        total = sum(buf) - sum(buf[148:156]) + 8 * ord(" ") if len(buf) == tarfile.BLOCKSIZE else -1
        digits = bytes(buf[124:135])
        # Anything but a plain file of plain size and name is left to tarfile, and so is a damaged header.
        if buf[156:157] != tarfile.REGTYPE or not digits.isdigit() or f"{total:06o}".encode() != bytes(buf[148:154]):
            return super().frombuf(buf, encoding, errors)
        name = bytes(buf[:100]).partition(b"\0")[0]
        prefix = bytes(buf[345:500]).partition(b"\0")[0]
        member = cls((prefix + b"/" + name if prefix else name).decode(encoding, errors))
        member.size = int(digits, 8)
        return member


@dataclass(kw_only=True)
class _Sample:
    """The members of one row. Without `full` the images are not read. `raw` is the tar itself if it can be sought."""

    key: str
    origin: str
    full: bool
    raw: IO[bytes] | None
    json: bytes | None = None
    images: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # by kind: name and bytes
    others: dict[str, str] = field(default_factory=dict)
    size: int = 0  # bytes of all members
    members: int = 0

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str, max_image_bytes: int) -> None:
        self.members += 1
        self.size += min(member.size, max_image_bytes)
        if self.too_large:
            self.json, self.images, self.others = None, {}, {}  # the row is refused, so nothing of it is held
        elif (kind == JSON and self.json is not None) or kind in self.images:
            self.others[member.name] = f"a second member {kind} of {self.key}"
        elif kind == JSON:
            self.json = self._bytes(tar, member, LONGEST_ROW)
        elif kind.rpartition(".")[2] in IMAGE_SUFFIXES:
            # One byte over the limit is enough to refuse the image; the rest stays unread.
            self.images[kind] = (member.name, self._bytes(tar, member, max_image_bytes + 1) if self.full else b"")
        else:
            self.others[kind] = member.name

    def _bytes(self, tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
        """The first `most` bytes of a member. tarfile's own file of a member would copy them three times.

        Raises:
            EOFError: the tar ends within the member.
        """
        wanted = min(member.size, most)
        if self.raw is None or member.issparse():
            opened = tar.extractfile(member)
            data = opened.read(wanted) if opened is not None else b""
        else:
            self.raw.seek(member.offset_data)
            data = self.raw.read(wanted)
        if len(data) < wanted:
            raise EOFError("it ends within a member")
        return data

    @property
    def too_large(self) -> bool:
        """Whether the members together exceed what a row may hold."""
        return self.size > ROW_BYTES or self.members > ROW_VALUES

    def row(self) -> Any:
        """The JSON of the sample with its images as bytes. A sample without JSON is a row without a conversation."""
        if self.too_large:
            value = f"{self.key}: {self.size:,} bytes in {self.members:,} members"
            return RowRejected("row-bytes", value=value, threshold=f"{ROW_BYTES:,} bytes, {ROW_VALUES:,} members")
        if self.json is None:
            return {"id": self.key} | self.others
        try:
            text = self.json.decode("utf-8-sig", errors="surrogateescape").strip(BLANK)
            row, end = RowDecoder().raw_decode(text)
            if end < len(text):
                raise json.JSONDecodeError("text behind the end", text, end)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{self.origin}, member {self.key}.json: broken JSON: {error}.", remedy="Repair the member."
            ) from None
        if not isinstance(row, dict):
            return row
        if not any(row.get(key) not in (None, "") for key in ID_KEYS):
            row["id"] = self.key
        if self.full:
            self._embed(row)
        return row

    def _embed(self, row: dict[str, Any]) -> None:
        """Put the bytes of images where the row names them. A row that names none gets all, in the order of kinds."""
        ordered = [self.images[kind] for kind in sorted(self.images, key=by_number)]
        members = {}
        for kind, (name, data) in self.images.items():
            for alias in (name, name.rpartition("/")[2], kind, f".{kind}"):
                members[plain_name(alias)] = (name, data)
        used: set[str] = set()
        embedded = _embedded(row, members, used)
        row.update(embedded)
        if not used and ordered and not any(row.get(key) for key in IMAGE_KEYS):
            row["images"] = [{"bytes": data, "path": name} for name, data in ordered]
            used = {name for name, _ in ordered}
        left = {name: f"member {name}" for name, _ in ordered if name not in used}
        for key, value in (self.others | left).items():
            row[f"member {value}" if is_there(row.get(key)) else key] = value


def _embedded(value: Any, members: dict[str, tuple[str, bytes]], used: set[str], place: str = "") -> Any:
    """`value` with bytes in the place of each name of a member that stands where an image may be named."""
    if isinstance(value, list):
        return [_embedded(item, members, used, place) for item in value]
    if isinstance(value, dict):
        return {
            key: item if isinstance(item, str) and key not in PLACES else _embedded(item, members, used, key)
            for key, item in value.items()
        }
    if place in PLACES and isinstance(value, str) and (found := members.get(plain_name(value))) is not None:
        used.add(found[0])
        return {"bytes": found[1], "path": value}
    return value


def _split(name: str) -> tuple[str, str]:
    """The key of a member and its kind: the name up to the first dot of its last part, and the rest in lower case."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, kind = base.partition(".")
    return folder + slash + stem, kind.lower()


def _require_end(store: ObjectStore, file: StoredObject, offset: int) -> None:
    """Check that the tar ends where its last member does. tarfile takes a header that is cut off for the end.

    Raises:
        EOFError: the tar ends within a header.
    """
    rest = store.get_range(file.key, offset, tarfile.BLOCKSIZE) if offset < file.size else b""
    if rest and rest != tarfile.NUL * tarfile.BLOCKSIZE:
        raise EOFError("it ends within a member")


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    """Whether one of the first members is JSON: a tar of images alone holds no rows. A broken tar may hold rows."""
    packed = file.key.lower().endswith(PACKED)
    try:
        with (
            stream(store, file.key) as raw,
            tarfile.open(fileobj=raw, mode="r|gz" if packed else "r:") as tar,
        ):
            return any(_split(member.name)[1] == JSON for member in islice(tar, LOOKED_AT))
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        return True


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> TarRows:
    return TarRows(store=store, files=tuple(files), reader=reader)


WEBDATASET = SourceForm(name="webdataset", suffixes=(".tar", *PACKED), recognises=_recognises, open=_open)
