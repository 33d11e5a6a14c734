"""A data set of the hub as a read-only store: its files are read in place, by ranges, at one commit."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from mantis.errors import ConfigError, NotFoundError, StoreError
from mantis.hub.client import HubFile, Repository, hub_errors, list_tree, newest_commit, read_range
from mantis.store.base import StoredObject, join

SCHEME = "hf://datasets/"
ADDRESS = re.compile(rf"{SCHEME}(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.+))?")
ASIDE = "bring the files another way and name their folder with --source."
BLOCK = 1 << 24


class HubStore:
    """The files of a data set, below a folder of it. `url` names the commit that is read.

    Keys are relative to the folder. Each method may raise the errors of `hub_errors`.
    """

    def __init__(self, address: str) -> None:
        """Resolve the revision of `address`, `hf://datasets/ORG/NAME[@REVISION][/FOLDER]`, to a commit.

        Raises:
            ConfigError: the address has another form.
        """
        found = ADDRESS.fullmatch(address.rstrip("/"))
        if found is None:
            raise ConfigError(
                f"data.source = {address!r} is no data set of the hub.",
                remedy=f"Use {SCHEME}ORG/NAME, with @REVISION and /FOLDER behind it if you need them.",
            )
        self._repository = Repository(name=found["name"], kind="dataset", aside=ASIDE)
        self._folder = found["folder"] or ""
        with hub_errors(self._repository):
            self._commit = newest_commit(self._repository, found["revision"] or "main")
        self.url = join(f"{SCHEME}{found['name']}@{self._commit}", self._folder).rstrip("/")
        self.name = (self._folder or found["name"]).rpartition("/")[2]

    @property
    def place(self) -> str:
        return self.url

    def get(self, key: str) -> bytes:
        return b"".join(self._blocks(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        remote = self._remote(key)
        if not min(length, remote.size - start) > 0:
            return b""
        with hub_errors(self._repository):
            return read_range(self._repository, self._commit, remote, start, min(length, remote.size - start))

    def get_file(self, key: str, path: Path) -> None:
        with path.open("wb") as target:
            target.writelines(self._blocks(key))

    def stat(self, key: str) -> StoredObject | None:
        found = self._files.get(key)
        return _entry(key, found) if found is not None else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        below = f"{prefix}/" if prefix else ""
        return (_entry(key, found) for key, found in sorted(self._files.items()) if key.startswith(below))

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        below = f"{prefix}/" if prefix else ""
        keys = sorted(key for key in self._files if key.startswith(below))
        files = tuple(_entry(key, self._files[key]) for key in keys if "/" not in key[len(below) :])
        folders = dict.fromkeys(below + key[len(below) :].split("/")[0] for key in keys if "/" in key[len(below) :])
        return files, tuple(folders)

    def uri(self, key: str) -> str:
        return join(self.url, key)

    def put(self, key: str, data: bytes) -> None:
        self._refuse()

    def put_file(self, key: str, path: Path) -> None:
        self._refuse()

    def commit(self, key: str, data: bytes, *, after: Sequence[str]) -> None:
        self._refuse()

    def delete(self, key: str) -> None:
        self._refuse()

    def lance_uri(self, key: str) -> str:
        self._refuse()

    def lance_options(self) -> dict[str, str]:
        return {}

    @cached_property
    def _files(self) -> dict[str, HubFile]:
        with hub_errors(self._repository):
            found = list_tree(self._repository, self._commit, self._folder)
        below = f"{self._folder}/" if self._folder else ""
        return {remote.path.removeprefix(below): remote for remote in found}

    def _remote(self, key: str) -> HubFile:
        found = self._files.get(key)
        if found is None:
            raise NotFoundError(f"{self.uri(key)} does not exist.", remedy="Check the address.")
        return found

    def _blocks(self, key: str) -> Iterator[bytes]:
        for start in range(0, self._remote(key).size, BLOCK):
            yield self.get_range(key, start, BLOCK)

    def _refuse(self) -> NoReturn:
        raise StoreError(f"{self.url} is read only.", remedy="Name a folder or a bucket as the store.")


def _entry(key: str, remote: HubFile) -> StoredObject:
    return StoredObject(key=key, size=remote.size, version=remote.sha256 or remote.git, sha256=remote.sha256)
