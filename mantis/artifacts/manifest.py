"""Manifests: the few KB that stand for an artifact, and whose presence commits it."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mantis.artifacts.layout import ArtifactKind, possible_keys
from mantis.errors import IntegrityError
from mantis.hashing import fingerprint, sha256_bytes
from mantis.store.base import ObjectStore, concurrently

MANIFEST = "manifest.json"
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = bool | int | float | str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _relative(key: str) -> str:
    if "://" in key or key.startswith("/"):
        raise ValueError("a key is relative to its store")
    return key


Key = Annotated[str, AfterValidator(_relative)]


class Reference(_Frozen):
    """Another artifact of the same store: its key, and its fingerprint when it was used."""

    key: Key
    fingerprint: str


class File(_Frozen):
    """One object of an artifact; `name` is relative to the artifact's key, `size` in bytes."""

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


def provenance(step: str, revision: int, config: Mapping[str, object], *, run: str = "") -> MadeBy:
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
    """The content of every KFP artifact of this project, and of `<key>/manifest.json` in the store.

    It holds keys, no addresses: a store can be copied, moved or renamed.
    """

    schema_version: Literal[2] = 2
    kind: ArtifactKind
    key: Key
    fingerprint: str
    inputs: dict[str, Reference] = Field(default_factory=dict)
    made_by: MadeBy
    files: tuple[File, ...] = ()
    summary: dict[str, Number] = Field(default_factory=dict)

    def reference(self) -> Reference:
        """How another manifest names this one."""
        return Reference(key=self.key, fingerprint=self.fingerprint)


def parse_manifest(text: str | bytes, *, origin: str, key: str = "") -> Manifest:
    """Manifest from JSON; `key`: where it was read in a store, empty if that is not known.

    Raises:
        IntegrityError: not a manifest of a known schema version.
    """
    try:
        raw = json.loads(text)
        return Manifest.model_validate_json(json.dumps(_upgraded(raw, key)))
    except ValidationError as error:
        first = error.errors()[0]
        field, problem = ".".join(str(part) for part in first["loc"]) or "the whole", first["msg"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        field, problem = "the whole", str(error)
    raise IntegrityError(
        f"{origin} is no manifest of schema version 1 or 2: {field}: {problem}.",
        remedy="Delete the artifact's folder; the step that makes it will make it again.",
    )


def _upgraded(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """A manifest of version 1, which held absolute URIs, as one of version 2; any other as it is.

    The inputs lie in the same store, so the URI of the artifact gives the address that this store had.
    """
    if raw.get("schema_version") != 1:
        return raw
    rest = {name: value for name, value in raw.items() if name not in ("schema_version", "uri", "inputs")}
    own: str = raw["uri"]
    if not key or not own.endswith(f"/{key}"):
        folders = {pattern.folder for pattern in ArtifactKind(raw["kind"]).patterns}
        key = [found for found in possible_keys(own) if found.partition("/")[0] in folders][-1]
    root = own.removesuffix(key)
    inputs = {
        name: {"key": _without(root, reference["uri"]), "fingerprint": reference["fingerprint"]}
        for name, reference in raw["inputs"].items()
    }
    return {"schema_version": 2, "key": key, "inputs": inputs, **rest}


def _without(root: str, uri: str) -> str:
    return uri.removeprefix(root) if uri.startswith(root) else possible_keys(uri)[-1]


def former_key(store: ObjectStore, uri: str) -> str:
    """The key of an artifact of `store` that something of version 1 names by an absolute URI.

    The store may have had another address then. Where the URI can be read in two ways, the artifact that is there
    decides.

    Raises:
        IntegrityError: the URI holds no key.
    """
    root = f"{store.url}/"
    if uri.startswith(root):
        return uri.removeprefix(root)
    keys = possible_keys(uri)
    if not keys:
        raise IntegrityError(f"{uri} is no address in a store.", remedy="Start the step that wrote it again.")
    there = [key for key in keys if store.stat(f"{key}/{MANIFEST}") is not None] if len(keys) > 1 else []
    return there[0] if there else keys[-1]


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
    return parse_manifest(store.get(key), origin=store.uri(key), key=prefix)


def commit_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest at its key; from here on the artifact exists, and survives a power cut."""
    files = [f"{manifest.key}/{file.name}" for file in manifest.files]
    store.commit(f"{manifest.key}/{MANIFEST}", manifest.model_dump_json(indent=1).encode(), after=files)


def check_files(store: ObjectStore, manifest: Manifest) -> list[str]:
    """The faults of the artifact's objects, one line each; empty if every byte is as recorded."""
    prefix = manifest.key
    problems = []
    for file in manifest.files:
        entry = store.stat(f"{prefix}/{file.name}")
        if entry is None:
            problems.append(f"{manifest.key}/{file.name} is missing")
        elif entry.size != file.size:
            problems.append(f"{manifest.key}/{file.name} has {entry.size} bytes, not {file.size}")
        elif hash_object(store, entry.key, entry.size) != file.sha256:
            problems.append(f"{manifest.key}/{file.name} was changed: its SHA-256 is not the one recorded")
    return problems


def hash_object(store: ObjectStore, key: str, size: int, *, block: int = 1 << 24) -> str:
    """Hex SHA-256 of an object, read in blocks of `block` bytes."""
    if size <= block:
        return sha256_bytes(store.get(key))
    digest = hashlib.sha256()
    for start in range(0, size, block):
        digest.update(store.get_range(key, start, block))
    return digest.hexdigest()


def describe_files(
    store: ObjectStore, prefix: str, *, without: Callable[[str], bool] = lambda _: False
) -> tuple[File, ...]:
    """Every object under `prefix` with its hash. The manifest and the keys that `without` accepts are left out."""

    def describe(entry_key: str, size: int) -> File:
        return File(name=entry_key.removeprefix(prefix + "/"), size=size, sha256=hash_object(store, entry_key, size))

    manifest = f"{prefix}/{MANIFEST}"
    entries = [entry for entry in store.list(prefix) if entry.key != manifest and not without(entry.key)]
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
