"""Published weights: what there is (bases.yaml), mirrored into the store once, and which bytes a name means."""

import fnmatch
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from components.core.artifacts import Manifest, read_manifest
from components.core.errors import ConfigError, InputError
from components.core.fetching import commit_fetched, fetch_files, pinned_commit
from components.core.hashing import fingerprint
from components.core.hub import Remote, Repository, hub_errors, remote_files
from components.core.identity import Memory, hash_files
from components.core.progress import say
from components.core.settings import ModelSettings
from components.core.store import Entry, ObjectStore, open_store

FILE = Path(__file__).with_name("bases.yaml")
MIRRORS = "sources/models"
TINY = "tiny"
FIELDS = ("base", "vision", "projector")
# Weights in one form, and what transformers reads beside them; code and other frameworks' weights stay where they are.
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
PICKLED = "*.bin"


class Base(BaseModel):
    """One entry of bases.yaml, which explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    revision: str = "main"
    gated: bool = False
    license: str
    terms: str
    asks: tuple[str, ...]
    forbids: tuple[Literal["commercial"], ...]
    origin: str


@cache
def bases() -> dict[str, Base]:
    """Every published model by its name, in the order of the file."""
    raw: Mapping[str, object] = yaml.safe_load(FILE.read_text())
    return {name: Base.model_validate(entry) for name, entry in raw.items()}


def mirror_prefix(name: str) -> str:
    """Where the store has the weights of this name."""
    return f"{MIRRORS}/{name}"


def fetch_model(store: ObjectStore, name: str, *, revision: str = "") -> Manifest:
    """Mirror a published model into the store; what is there already is not fetched again.

    Without a `revision` it is the one that was begun with, else the newest, which is then kept to.

    Raises:
        ConfigError: no such model.
        InputError: the hub is away, does not let us, or has no weights that are read without running code.
        StoreError: too little disk.
        IntegrityError: other bytes came than the hub promised.
    """
    if name not in bases():
        raise ConfigError(f"{name!r} is no published model that is known.", remedy=f"Known: {', '.join(bases())}.")
    base, prefix = bases()[name], mirror_prefix(name)
    say(f"{name}: {base.repository}, {base.terms}")
    for asked in base.asks:
        say(f"  of a model derived from it: {asked}")
    there = read_manifest(store, prefix)
    if there and revision in ("", there.summary["revision"]):
        say(f"{name} is there already, at revision {there.summary['revision']}")
        return there
    repository = Repository(name=base.repository, kind="model", revision=base.revision)
    with hub_errors(repository):
        commit = pinned_commit(store, prefix, repository, revision)
        found = remote_files(repository, commit)
    wanted = _wanted(base, commit, found)
    fetch_files(store, prefix, repository, commit, wanted, label=name)
    return commit_fetched(store, prefix, wanted, {"repository": base.repository, "revision": commit})


def _wanted(base: Base, commit: str, found: list[Remote]) -> list[Remote]:
    wanted = [remote for remote in found if any(fnmatch.fnmatch(remote.name, pattern) for pattern in WANTED)]
    if not any(remote.name.endswith(".safetensors") for remote in wanted):
        pickled = any(fnmatch.fnmatch(remote.name, PICKLED) for remote in found)
        raise InputError(
            f"{base.repository} at {commit} holds no safetensors{', only pickled weights' if pickled else ''}.",
            remedy="Name a --revision that has them (the hub's bot offers one as a pull request: refs/pr/N), or "
            "convert the weights on a machine without secrets and name their folder in the recipe.",
        )
    return wanted


def located(settings: ModelSettings, store: ObjectStore) -> ModelSettings:
    """`settings` with the addresses of mirrors in place of published names."""
    return settings.model_copy(
        update={
            field: store.uri(mirror_prefix(name)) for field in FIELDS if (name := getattr(settings, field)) in bases()
        }
    )


def mirrors(settings: ModelSettings, store: ObjectStore) -> dict[str, Manifest]:
    """The mirrors that the settings name, by field.

    Raises:
        InputError: one of them was not fetched.
    """
    found = {}
    for field in FIELDS:
        name = getattr(settings, field)
        if name in bases():
            manifest = read_manifest(store, mirror_prefix(name))
            if manifest is None:
                raise InputError(
                    f"model.{field} = {name!r} is not in {store.url}.", remedy=f"Bring it: mantis fetch-model {name}."
                )
            found[field] = manifest
    return found


def weights_identity(settings: ModelSettings, store: ObjectStore) -> dict[str, str]:
    """What the bytes behind base, vision and projector are, by field: another revision is another result.

    Raises:
        InputError: a published model was not fetched.
    """
    identity = {field: manifest.fingerprint for field, manifest in mirrors(settings, store).items()}
    for field in FIELDS:
        address = getattr(settings, field)
        if address and address != TINY and field not in identity:
            folder = open_store(address if "://" in address else f"file://{Path(address).absolute()}")
            files = sorted(folder.list(""), key=lambda entry: entry.key)
            identity[field] = Memory(store=store).recall("model", folder, files, partial(_content, folder, files))
    return identity


def _content(folder: ObjectStore, files: Sequence[Entry]) -> str:
    return fingerprint([[file.key for file in files], hash_files(folder, files)])


def warnings(settings: ModelSettings, train: Sequence[str]) -> list[str]:
    """What a person should know of these weights before the parts `train` are trained; a line each."""
    lines = []
    if settings.vision and not settings.projector and "text" in train:
        lines.append("model.projector is empty: the projector starts from random numbers, as if there were no stage 1")
    for name in dict.fromkeys(getattr(settings, field) for field in FIELDS):
        base = bases().get(name)
        if base is not None and base.forbids:
            lines.append(f"the terms of {name} forbid {', '.join(base.forbids)} use: {base.terms}")
        elif base is not None and base.license == "unknown":
            lines.append(f"no licence is known for {name}: {base.terms}")
    return lines
