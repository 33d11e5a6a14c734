"""Finds a benchmark's media files in its folder and in zip archives there, by the end of their path.

Some archives are packed with more parent folders than others, so a whole path rarely fits. The file's name and its
direct folder must fit, since other folders may hold a file of the same name.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from mantis.errors import InputError

LEAST = 2  # trailing parts of a path that must fit

Place = tuple[Path | None, str]  # the archive, if any, and the path in it or below the folder


class Media:
    """All files below a folder and in its archives. A look-up takes the file with the most trailing parts in common."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def read(self, path: str) -> bytes | None:
        """The bytes of the file that fits `path` best; None if no file fits."""
        found = self._best(self._files.get(PurePosixPath(path).name, []), path)
        return None if found is None else self._read(*found)

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

    def _read(self, place: Path | None, name: str) -> bytes:
        if place is None:
            return (self._folder / name).read_bytes()
        return self._archives[place].read(name)

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
