"""Finds a benchmark's media files in its folder and in zip archives there, by the end of their path.

Some archives are packed with more parent folders than others, so a whole path rarely fits. The file's name and its
direct folder must fit, since other folders may hold a file of the same name.

An archive may be hostile. So no member is read beyond a limit, and a video goes to the disk in blocks.
"""

import shutil
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO

from mantis.errors import InputError
from mantis.generation.sample_images import MAX_IMAGE_BYTES

LEAST = 2  # trailing parts of a path that must fit
MAX_VIDEO_BYTES = 8 << 30
MAX_RATIO = 100  # of a member's size to its compressed size, above MAX_IMAGE_BYTES; videos hardly compress
BLOCK = 1 << 20  # bytes

Place = tuple[Path | None, str]  # the archive, if any, and the path in it or below the folder


class MediaError(Exception):
    """A file cannot be read within the limits. `reason` is the fixed word of a missing sample, behind its kind."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Media:
    """All files below a folder and in its archives. A look-up takes the file with the most trailing parts in common."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def image(self, path: str) -> bytes | None:
        """The bytes of the image file that fits `path` best; None if no file fits.

        Raises:
            MediaError: the file has more than MAX_IMAGE_BYTES, or is a broken or encrypted member of an archive.
        """
        found = self._best(self._files.get(PurePosixPath(path).name, []), path)
        if found is None:
            return None
        place, name = found
        if place is None:
            file = self._folder / name
            if file.stat().st_size > MAX_IMAGE_BYTES:
                raise MediaError("too-large")
            return file.read_bytes()
        with self._member(place, name, MAX_IMAGE_BYTES) as member:
            return member.read()

    @contextmanager
    def video(self, path: str) -> Iterator[Path | None]:
        """The video file that fits `path` best, on the disk until the context ends; None if no file fits.

        Raises:
            MediaError: the file has more than MAX_VIDEO_BYTES, or is a broken or encrypted member of an archive.
        """
        found = self._best(self._files.get(PurePosixPath(path).name, []), path)
        if found is None or found[0] is None:
            yield None if found is None else self._folder / found[1]
            return
        with tempfile.NamedTemporaryFile(prefix="mantis-video-") as temporary:
            with self._member(found[0], found[1], MAX_VIDEO_BYTES) as member:
                shutil.copyfileobj(member, temporary, BLOCK)
            temporary.flush()
            yield Path(temporary.name)

    def folder(self, path: str) -> list[str]:
        """The paths of the files in the folder `path`, for `read`; empty if no folder fits."""
        best = self._best(self._folders.get(PurePosixPath(path).name, []), path)
        return [] if best is None else self._members[best]

    @cached_property
    def _entries(self) -> list[Place]:
        return list(self._list())

    @cached_property
    def _files(self) -> dict[str, list[Place]]:
        found = defaultdict(list)
        for place, name in self._entries:
            found[PurePosixPath(name).name].append((place, name))
        return found

    @cached_property
    def _members(self) -> dict[Place, list[str]]:
        found = defaultdict(list)
        for place, name in self._entries:
            found[place, str(PurePosixPath(name).parent)].append(name)
        return found

    @cached_property
    def _folders(self) -> dict[str, list[Place]]:
        found = defaultdict(list)
        for place, name in self._members:
            found[PurePosixPath(name).name].append((place, name))
        return found

    def _list(self) -> Iterator[Place]:
        for path in sorted(self._folder.rglob("*")):
            if path.suffix == ".zip":
                yield from ((path, info.filename) for info in self._open(path).infolist() if not info.is_dir())
            elif path.is_file():
                yield None, path.relative_to(self._folder).as_posix()

    def _open(self, path: Path) -> zipfile.ZipFile:
        try:
            return self._archives.setdefault(path, zipfile.ZipFile(path))
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read as a zip: {error}.", remedy="Fetch the file again.") from None

    @contextmanager
    def _member(self, archive: Path, name: str, max_bytes: int) -> Iterator[IO[bytes]]:
        """Open a member of at most `max_bytes`. zipfile inflates no more than the size that the directory declares."""
        member = self._archives[archive].getinfo(name)
        bomb = member.file_size > max(MAX_IMAGE_BYTES, MAX_RATIO * member.compress_size)
        if member.file_size > max_bytes or bomb:
            raise MediaError("too-large")
        try:
            with zipfile.ZipFile(archive) as own, own.open(member) as opened:  # its own position in the file
                yield opened
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise MediaError("unreadable") from error

    @staticmethod
    def _best(candidates: list[Place], path: str) -> Place | None:
        wanted = PurePosixPath(path).parts[::-1]

        def fit(candidate: Place) -> int:
            archive, name = candidate
            parts = (*(() if archive is None else (archive.stem,)), *PurePosixPath(name).parts)[::-1]
            same = takewhile(lambda pair: pair[0] == pair[1], zip(wanted, parts, strict=False))
            return sum(1 for _ in same)

        best = max(candidates, key=fit, default=None)
        return best if best is not None and fit(best) >= LEAST else None
