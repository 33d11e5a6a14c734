"""Manifests: the few KB that stand for an artifact, and whose presence commits it."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from components.core.errors import IntegrityError
from components.core.hashing import fingerprint, sha256_bytes
from components.core.store import ObjectStore, concurrently, key_of

MANIFEST = "manifest.json"
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = bool | int | float | str


class Kind(StrEnum):
    """What an artifact is."""

    SOURCE = "source"
    DATASET = "dataset"
    MIXTURE = "mixture"
    CONTAMINATION = "contamination"
    CHECKPOINT = "checkpoint"
    MODEL = "model"
    EVALUATION = "evaluation"
    REPORT = "report"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(_Frozen):
    """Another artifact, by address and by what it was when it was used."""

    uri: str
    fingerprint: str


class File(_Frozen):
    """One object of an artifact; `name` is relative to the artifact's URI, `size` in bytes."""

    name: str
    size: int
    sha256: Hash


class MadeBy(_Frozen):
    """Who made it; recorded, never part of a fingerprint."""

    run: str
    step: str
    revision: int
    config_hash: str
    code_version: str
    image_digest: str


def made_here(step: str, revision: int, config: Mapping[str, object], *, run: str = "") -> MadeBy:
    """Made by this code and image, by `step` with `config`; `run` is empty for what a person asked for."""
    return MadeBy(
        run=run,
        step=step,
        revision=revision,
        config_hash=fingerprint(config),
        code_version=code_version(),
        image_digest=image_digest(),
    )


class Manifest(_Frozen):
    """The content of every KFP artifact of this project, and of `<uri>/manifest.json`."""

    schema_version: Literal[1] = 1
    kind: Kind
    uri: str
    fingerprint: str
    inputs: dict[str, Reference] = Field(default_factory=dict)
    made_by: MadeBy
    files: tuple[File, ...] = ()
    summary: dict[str, Number] = Field(default_factory=dict)

    def reference(self) -> Reference:
        """How another manifest names this one."""
        return Reference(uri=self.uri, fingerprint=self.fingerprint)


def parse_manifest(text: str | bytes, *, origin: str) -> Manifest:
    """Manifest from JSON.

    Raises:
        IntegrityError: not a manifest of a known schema version.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise IntegrityError(
            f"{origin} is no manifest of schema version 1: {field}: {first['msg']}.",
            remedy="Delete the artifact's folder; the step that makes it will make it again.",
        ) from None


def load_manifest(path: str) -> Manifest:
    """Manifest from the local file that KFP hands to a component as an input artifact."""
    return parse_manifest(Path(path).read_text(), origin=path)


def save_manifest(manifest: Manifest, path: str) -> None:
    """Write the manifest as the content of a KFP output artifact."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(manifest.model_dump_json(indent=1))


def read_manifest(store: ObjectStore, prefix: str) -> Manifest | None:
    """The committed manifest at `prefix`, or None where nothing was committed."""
    key = f"{prefix}/{MANIFEST}"
    if store.stat(key) is None:
        return None
    return parse_manifest(store.get(key), origin=store.uri(key))


def commit_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest at its URI; from here on the artifact exists."""
    store.put(f"{key_of(store, manifest.uri)}/{MANIFEST}", manifest.model_dump_json(indent=1).encode())


def check_files(store: ObjectStore, manifest: Manifest) -> list[str]:
    """What is wrong with the artifact's objects: one line each, empty when every byte is as promised."""
    prefix = key_of(store, manifest.uri)
    problems = []
    for file in manifest.files:
        entry = store.stat(f"{prefix}/{file.name}")
        if entry is None:
            problems.append(f"{manifest.uri}/{file.name} is missing")
        elif entry.size != file.size:
            problems.append(f"{manifest.uri}/{file.name} has {entry.size} bytes, not {file.size}")
        elif hash_object(store, entry.key, entry.size) != file.sha256:
            problems.append(f"{manifest.uri}/{file.name} was changed: its SHA-256 is not the one recorded")
    return problems


def hash_object(store: ObjectStore, key: str, size: int, *, block: int = 1 << 24) -> str:
    """Hex SHA-256 of an object, read in blocks of `block` bytes."""
    if size <= block:
        return sha256_bytes(store.get(key))
    digest = hashlib.sha256()
    for start in range(0, size, block):
        digest.update(store.get_range(key, start, block))
    return digest.hexdigest()


def describe_files(store: ObjectStore, prefix: str) -> tuple[File, ...]:
    """Every object under `prefix` with its hash, the manifest itself left out."""

    def describe(entry_key: str, size: int) -> File:
        return File(name=entry_key.removeprefix(prefix + "/"), size=size, sha256=hash_object(store, entry_key, size))

    entries = [entry for entry in store.list(prefix) if entry.key != f"{prefix}/{MANIFEST}"]
    return tuple(concurrently(lambda entry: describe(entry.key, entry.size), entries))


def code_version() -> str:
    """Git commit of the code: from the image (MANTIS_CODE_VERSION), else from the checkout, else `unknown`."""
    baked = os.environ.get("MANTIS_CODE_VERSION")
    if baked:
        return baked
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def image_digest() -> str:
    """Digest of the container image this runs in (MANTIS_IMAGE), `none` outside of one."""
    return os.environ.get("MANTIS_IMAGE") or "none"
