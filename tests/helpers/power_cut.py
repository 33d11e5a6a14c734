"""A disk that forgets what was not synced: what a power cut would leave of a folder, at any moment."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest


class Disk:
    """Watches the calls of this process that rename and sync below `folder`.

    Args:
        folder: what is on the disk.
        patch: replaces `os.fsync` and `os.replace` for the test.
        check: called after every rename and every sync, with the folder that each kind of power cut would leave.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, check: Callable[[Path], object], scratch: Path) -> None:
        self.folder, self._check, self._scratch = folder, check, scratch
        self.synced: Counter[str] = Counter()  # how often each file or folder was synced, by its name
        self.cuts = 0
        self._bytes: dict[int, bytes] = {}  # of a file at its last sync, by its inode
        self._names: dict[int, dict[str, int]] = {}  # of a folder at its last sync: name -> inode
        self._held: list[int] = []  # descriptors: their inodes are not given to other files
        self._lock = threading.RLock()
        self._replace = os.replace
        patch.setattr(os, "fsync", self._fsync)
        patch.setattr(os, "replace", self._rename)

    def after_a_cut(self, *, names_are_early: bool) -> Path:
        """What the disk holds after a power cut now.

        Args:
            names_are_early: renames reached the disk at once, as a journal of metadata allows; else only with the sync
                of their folder. Bytes are there only as of the last sync of their file.
        """
        self.cuts += 1
        left = self._scratch / f"cut-{self.cuts}"
        left.mkdir(parents=True)
        self._copy(self.folder, left, names_are_early)
        return left

    def _copy(self, folder: Path, left: Path, names_are_early: bool) -> None:
        if names_are_early:
            names = {entry.name: entry.inode() for entry in os.scandir(folder)}
        else:
            names = self._names.get(folder.stat().st_ino, {})
        for name, inode in names.items():
            path = folder / name
            if path.is_dir():
                (left / name).mkdir()
                self._copy(path, left / name, names_are_early)
            else:
                (left / name).write_bytes(self._bytes.get(inode, b""))

    def _fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        with self._lock:
            self._held.append(os.dup(descriptor))
            inode = path.stat().st_ino
            if path.is_dir():
                self._names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
            else:
                self._bytes[inode] = path.read_bytes()
            self.synced[path.relative_to(self.folder).as_posix()] += 1
            self._both_cuts()

    def _rename(self, source: Path, target: Path) -> None:
        with self._lock:
            self._replace(source, target)
            self._both_cuts()

    def _both_cuts(self) -> None:
        for names_are_early in (False, True):
            self._check(self.after_a_cut(names_are_early=names_are_early))

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._held:
            os.close(descriptor)
