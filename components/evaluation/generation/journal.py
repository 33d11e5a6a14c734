"""Raw responses as they come: written once in small immutable objects, found again by everything that decides them.

`responses/<model>/<benchmark>/<identity>/<hash of the content>.jsonl`. No object is ever changed and each has the hash
of its content as its name, so that any number of workers can write here at the same time, and a worker that is killed
loses only what it had not finished. Scores and the judged responses of an evaluation are made from these.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mantis.errors import IntegrityError
from mantis.hashing import sha256_bytes
from mantis.schema_versions import Form, versioned, without_version
from mantis.store.base import ObjectStore, concurrently


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """A response and its key: the hash of model, benchmark, sample, prompt, pictures and decoding profile."""

    key: str
    id: str
    response: str


class Journal:
    """The responses below `prefix`, those of other workers included as of the last `refresh`."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._known: dict[str, tuple[str, str]] = {}  # key -> object, response
        self._read: set[str] = set()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def response(self, key: str) -> str:
        """The response to `key`, the same for every reader: where two workers answered, the first object by name."""
        return self._known[key][1]

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Write the entries as one object."""
        lines = [json.dumps(versioned(Form.JOURNAL, asdict(entry)), ensure_ascii=False) for entry in entries]
        data = ("\n".join(lines) + "\n").encode()
        name = f"{self._prefix}/{sha256_bytes(data)}.jsonl"
        self._store.put(name, data)
        self._take(name, data)

    def refresh(self) -> None:
        """Read what was written since.

        Raises:
            IntegrityError: an object is not what was written under its name.
        """
        new = [entry.key for entry in self._store.list(self._prefix) if entry.key not in self._read]
        for name, data in zip(new, concurrently(self._store.get, new), strict=True):
            self._take(name, data)

    def _take(self, name: str, data: bytes) -> None:
        if name != f"{self._prefix}/{sha256_bytes(data)}.jsonl":
            raise IntegrityError(
                f"{self._store.uri(name)} does not hold the responses that were written there.",
                remedy="Delete it; the same command makes them again.",
            )
        self._read.add(name)
        for line in data.decode().splitlines():
            entry = JournalEntry(**without_version(Form.JOURNAL, json.loads(line), self._store.uri(name)))
            known = self._known.get(entry.key)
            if known is None or name < known[0]:
                self._known[entry.key] = (name, entry.response)
