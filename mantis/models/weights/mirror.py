"""Published weights in the store, models/bases/<base>/<revision>/, and what decides the weights that a recipe names."""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mantis.artifacts.layout import TOP_FOLDERS, ArtifactKind, revisions_of_base
from mantis.artifacts.manifest import (
    MANIFEST,
    File,
    Manifest,
    commit_manifest,
    parse_manifest,
    provenance,
    read_manifest,
)
from mantis.config.model_settings import SCRATCH, ModelSettings
from mantis.errors import ConfigError, InputError
from mantis.hashing import fingerprint, sha256_bytes
from mantis.hub.client import HubFile, Repository, hub_errors, list_files
from mantis.hub.download import fetch_files, pinned_commit
from mantis.models.weights.catalog import FIELDS, PublishedWeights, named_bases, published_base, published_bases
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

REVISION = 1
REVISION_HASH = re.compile("[0-9a-f]{40}")
ASIDE = "bring the files another way and name their folder in model.base."
# What a model folder of transformers needs beside its weights, and the terms.
TEXTS = re.compile(r".*\.(json|txt|model|jinja|md)|LICENSE.*|NOTICE.*|USE_POLICY.*", re.IGNORECASE)
SAFETENSORS = re.compile(r"(?!consolidated).*\.safetensors")
PICKLED = re.compile(r"pytorch_model.*\.bin")
SAMPLE = 1 << 16  # bytes of the end of a weight file that enter the hash of a plain folder


def fetch_model(store: ObjectStore, name: str, *, revision: str = "") -> Manifest:
    """Fetch published weights from the hub into the store. Files that the store has are not fetched again.

    Raises:
        ConfigError: no such weights.
        InputError: the hub is away, does not let us, or has no weights there.
        StoreError: too little disk.
        IntegrityError: other bytes came than the hub promised.
    """
    base = published_base(name)
    repository = Repository(name=base.repository, kind="model", aside=ASIDE)
    asked = revision or (base.revision if REVISION_HASH.fullmatch(base.revision) else "")
    with hub_errors(repository):
        known = REVISION_HASH.fullmatch(asked)
        commit = asked if known else pinned_commit(store, revisions_of_base(name), repository, asked, base.revision)
        prefix = ArtifactKind.SOURCE.address(base=name, revision=commit)
        if there := read_manifest(store, prefix):
            logger.info("The store has %s already, at revision %s", name, commit)
            return there
        wanted = _files_of_a_model(list_files(repository, commit), repository, commit)
    files = fetch_files(store, prefix, repository, commit, {each.name: each for each in wanted}, label=name)
    manifest = _manifest(prefix, base, commit, files)
    commit_manifest(store, manifest)
    return manifest


def _files_of_a_model(listed: Iterable[HubFile], repository: Repository, commit: str) -> list[HubFile]:
    """Texts and safetensors; the pickled weights only where there are no safetensors."""
    found = list(listed)
    weights = [remote for remote in found if SAFETENSORS.fullmatch(remote.name)]
    weights = weights or [remote for remote in found if PICKLED.fullmatch(remote.name)]
    if not weights:
        raise InputError(
            f"{repository.name} at {commit} has neither safetensors nor pytorch_model.bin.",
            remedy="Name another --revision.",
        )
    dropped = "pytorch_model" if weights[0].name.endswith(".safetensors") else "model.safetensors"
    texts = [r for r in found if TEXTS.fullmatch(r.name) and not r.name.startswith(dropped)]
    return sorted([*texts, *weights], key=lambda remote: remote.name)


def _manifest(key: str, base: PublishedWeights, commit: str, files: tuple[File, ...]) -> Manifest:
    config = {"repository": base.repository, "revision": commit}
    licence = base.licence
    return Manifest(
        kind=ArtifactKind.SOURCE,
        key=key,
        fingerprint=fingerprint({**config, "files": {file.name: file.sha256 for file in files}}),
        made_by=provenance("fetch-model", REVISION, config),
        files=files,
        summary={
            "model": base.name,
            **config,
            "licence": licence.name,
            "forbids": " ".join(licence.forbids),
            "origin": licence.url,
            "terms": " ".join(licence.asks),
        },
    )


def mirrors(store: ObjectStore, name: str) -> dict[str, Manifest]:
    """Every revision of the weights that is whole in the store."""
    found = {key.rpartition("/")[2]: read_manifest(store, key) for key in store.children(revisions_of_base(name))[1]}
    return {revision: manifest for revision, manifest in found.items() if manifest is not None}


def mirror_of(store: ObjectStore, base: PublishedWeights) -> Manifest:
    """The weights in the store: of the revision that the catalog pins, else the only one there.

    Raises:
        InputError: the store has no mirror, or several revisions and none is pinned.
    """
    found = mirrors(store, base.name)
    if REVISION_HASH.fullmatch(base.revision):
        found = {revision: manifest for revision, manifest in found.items() if revision == base.revision}
    if len(found) > 1:
        raise InputError(
            f"{base.name} was fetched in {len(found)} revisions and none is pinned: {', '.join(found)}.",
            remedy=f"Name one by its address: {store.uri(revisions_of_base(base.name))}/<revision>.",
        )
    if not found:
        raise InputError(
            f"{store.url} has no copy of {base.name} ({base.repository}).",
            remedy=f"Bring it: mantis model fetch {base.name}.",
        )
    return next(iter(found.values()))


def resolved(store: ObjectStore, settings: ModelSettings) -> ModelSettings:
    """The settings with an address for every name of published weights, and for every key of a model in the store.

    Raises:
        InputError: they were not fetched.
    """
    named = named_bases(settings)
    addresses = {field: store.uri(mirror_of(store, base).key) for field, base in named.items()}
    others = {field: _address(store, getattr(settings, field)) for field in FIELDS if field not in named}
    return settings.model_copy(update=addresses | others)


def _address(store: ObjectStore, value: str) -> str:
    """The URI of a model that `value` names by its key in the store; any other folder or word stays as it is."""
    named = value.partition("/")[0] in TOP_FOLDERS and store.stat(f"{value}/config.json") is not None
    return store.uri(value) if named else value


def weights_of(store: ObjectStore, settings: ModelSettings) -> dict[str, Manifest]:
    """The manifests of the published weights that the settings name, by field. They are inputs of the training."""
    return {field: mirror_of(store, base) for field, base in named_bases(settings).items()}


def model_identity(store: ObjectStore, settings: ModelSettings, fields: Sequence[str] = FIELDS) -> dict[str, Any]:
    """What of the model decides a result: the settings, and the content of the models that `fields` name.

    The content of published weights, and of any model with a manifest, is the manifest's fingerprint: every byte. Of
    another folder it is the hash of its JSON files and of each weight file's name, size and last 64 KB.

    Raises:
        ConfigError: a name of nothing.
        InputError: weights were not fetched, or a folder holds no model.
    """
    named = named_bases(settings)
    content = {}
    for field in fields:
        value: str = getattr(settings, field)
        if field in named:
            content[field] = mirror_of(store, named[field]).fingerprint
        elif value not in ("", SCRATCH):
            content[field] = _content_of(field, _address(store, value))
    identity = settings.identity()
    return identity | {"content": content} if content else identity


def _content_of(field: str, address: str) -> str:
    folder = open_store(address)
    manifest = folder.stat(MANIFEST)
    if manifest is not None:
        return parse_manifest(folder.get(MANIFEST), origin=folder.uri(MANIFEST)).fingerprint
    entries = folder.children("")[0]
    if not any(entry.key == "config.json" for entry in entries):
        _refuse(field, address)
    state: list[list[str | int]] = []
    for entry in entries:
        if entry.key.endswith(".json"):
            state.append([entry.key, sha256_bytes(folder.get(entry.key))])
        elif entry.key.endswith((".safetensors", ".bin")):
            end = folder.get_range(entry.key, max(0, entry.size - SAMPLE), SAMPLE)
            state.append([entry.key, entry.size, sha256_bytes(end)])
    return fingerprint(state)


def _refuse(field: str, address: str) -> None:
    problem = "holds no config.json of a transformers model" if "/" in address else "is no published model"
    raise ConfigError(
        f"model.{field} = {address!r} {problem}.",
        remedy=f"Published: {', '.join(published_bases())}. Or name a folder that save_pretrained wrote."
        + (f" `{SCRATCH}` builds a model from nothing." if field == "base" else ""),
    )
