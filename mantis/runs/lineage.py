"""From an artifact, or one prediction in it, back to the data it came from, checking every hash on the way."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MANIFEST, Manifest, check_files, read_manifest
from mantis.artifacts.responses import ACTUAL, FOLDER
from mantis.artifacts.store_addresses import key_of
from mantis.errors import IntegrityError, NotFoundError
from mantis.schema_versions import Form, without_version
from mantis.store.base import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Link:
    """One artifact of the chain; `depth` counts from the artifact that was asked about.

    `problems` name objects that are missing or changed; `note` says what could not be compared, and why.
    """

    depth: int
    role: str
    manifest: Manifest
    problems: tuple[str, ...]
    note: str = ""


Origin = Callable[[ObjectStore, Manifest], tuple[list[str], str]]


def find_artifact(store: ObjectStore, address: str) -> Manifest:
    """The artifact at `address`, or the one that holds the file there; a key, or a URI in `store`.

    Raises:
        ConfigError: `address` is a URI in another store.
        NotFoundError: no committed artifact on the way up.
    """
    key = key_of(store, address)
    parts = key.removesuffix("/" + MANIFEST).split("/")
    for length in range(len(parts), 0, -1):
        manifest = read_manifest(store, "/".join(parts[:length]))
        if manifest is not None:
            return manifest
    raise NotFoundError(
        f"{store.uri(key)} is no committed artifact.", remedy="`mantis status RUN` lists a run's artifacts."
    )


def walk(store: ObjectStore, manifest: Manifest, *, check: bool = True, origin: Origin | None = None) -> Iterator[Link]:
    """The artifact and everything it was made from, depth first, each once.

    `origin` compares a dataset with the raw data outside of every artifact: its problems, and a note.
    """
    seen: set[str] = set()

    def visit(role: str, current: Manifest, depth: int) -> Iterator[Link]:
        if current.key in seen:
            return
        seen.add(current.key)
        problems, note = check_files(store, current) if check else [], ""
        if origin is not None and current.kind is ArtifactKind.DATASET and not problems:
            problems, note = origin(store, current)
        yield Link(depth=depth, role=role, manifest=current, problems=tuple(problems), note=note)
        for name, reference in sorted(current.inputs.items()):
            found = read_manifest(store, reference.key)
            if found is None:
                problem = f"{reference.key} is missing: it is an input of {current.key}"
                yield Link(depth=depth, role=role, manifest=current, problems=(problem,))
            elif found.fingerprint != reference.fingerprint:
                problem = f"{reference.key} has the fingerprint {found.fingerprint}, not {reference.fingerprint}"
                yield Link(depth=depth + 1, role=name, manifest=found, problems=(problem,))
            else:
                yield from visit(name, found, depth + 1)

    yield from visit(manifest.kind.value, manifest, 0)


def find_prediction(store: ObjectStore, evaluation: Manifest, sample: str) -> dict[str, Any]:
    """The stored response to sample `sample`, as evaluation wrote it.

    Raises:
        NotFoundError: the evaluation has no such sample.
        IntegrityError: its responses cannot be read.
    """
    prefix = evaluation.key
    if evaluation.kind is ArtifactKind.EVALUATION:
        for entry in store.list(f"{prefix}/{FOLDER}"):
            if not entry.key.rpartition("/")[2].startswith(ACTUAL):
                continue
            for row in _responses(store, entry.key):
                if row.get("id") == sample:
                    return row
    raise NotFoundError(f"{evaluation.key} has no prediction for sample {sample!r}.", remedy="Ids are in responses/.")


def _responses(store: ObjectStore, key: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(store.get(key).splitlines()):
        try:
            yield without_version(Form.RESPONSE, json.loads(line), store.uri(key))
        except ValueError:
            raise IntegrityError(
                f"{store.uri(key)}, line {number + 1}, is not JSON.", remedy="Delete the evaluation and run it again."
            ) from None
