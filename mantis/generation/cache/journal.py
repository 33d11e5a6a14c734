"""The journal keeps raw responses in small immutable objects. A response's key hashes everything that decides it.

The objects are `responses/<model>/<benchmark>/<identity>/<hash of the content>.jsonl`. An object's name is the hash of
its content, and no object ever changes. So any number of workers can write at the same time. A killed worker loses only
its unfinished batches. Scores and the responses of an evaluation are made from the journal.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mantis.errors import IntegrityError
from mantis.hashing import sha256_bytes
from mantis.schema_versions import Form, load_json, versioned, without_version
from mantis.store.base import ObjectStore, concurrently


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """A response and its key: the hash of model, prompt, images and decoding. `id` is the first sample that asked."""

    key: str
    id: str
    response: str


class Journal:
    """The responses below `prefix`, including those of other workers up to the last `refresh`."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._known: dict[str, tuple[str, str]] = {}  # key -> object, response
        self._read: set[str] = set()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def response(self, key: str) -> str:
        """The response to `key`. If two workers answered, the object with the first name wins, for every reader."""
        return self._known[key][1]

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Write the entries as one object."""
        lines = [json.dumps(versioned(Form.JOURNAL, asdict(entry)), ensure_ascii=False) for entry in entries]
        data = ("\n".join(lines) + "\n").encode()
        name = f"{self._prefix}/{sha256_bytes(data)}.jsonl"
        self._store.put(name, data)
        self._take(name, data)

    def refresh(self) -> None:
        """Read the objects that were written since the last call.

        Raises:
            IntegrityError: an object's content does not have the hash in its name.
        """
        new = [entry.key for entry in self._store.list(self._prefix) if entry.key not in self._read]
        for name, data in zip(new, concurrently(self._store.get, new), strict=True):
            self._take(name, data)

    def _take(self, name: str, data: bytes) -> None:
        if name != f"{self._prefix}/{sha256_bytes(data)}.jsonl":
            raise IntegrityError(
                f"{self._store.uri(name)} has changed: its content does not have the hash in its name.",
                remedy="Delete the object, and run the same command again. It generates these responses again.",
            )
        self._read.add(name)
        for line in data.splitlines():
            entry = JournalEntry(
                **without_version(Form.JOURNAL, load_json(line, self._store.uri(name)), self._store.uri(name))
            )
            known = self._known.get(entry.key)
            if known is None or name < known[0]:
                self._known[entry.key] = (name, entry.response)
