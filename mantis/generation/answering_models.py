"""The kinds of models whose files are at hand. None of them imports torch before it is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, Number, hash_object, provenance
from mantis.config.model_settings import ModelSettings
from mantis.errors import InputError
from mantis.generation.answerer import OpenLiveModel
from mantis.generation.decoding import Decoding
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, concurrently
from mantis.store.local import LocalStore
from mantis.store.opening import local_copy, open_store

EXTERNAL_REVISION = 1  # raise when the same model outside of the store would get another fingerprint
# Files of a model folder that are read: weights, configuration, tokenizer, template. Neither code nor pickles.
READ = (".safetensors", ".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True, kw_only=True)
class FamilyModel:
    """A model of the store that belongs to one of our families, with the settings that write its prompts."""

    manifest: Manifest
    settings: ModelSettings
    restricts: bool = True
    revision: int = 2  # raise when the same question would get another response: then all are generated again

    @property
    def family(self) -> str:
        """The family of the settings."""
        return self.settings.family

    def identity(self) -> dict[str, object]:
        """What the prompt encoder reads, and the weights do not determine."""
        return {"encoder": self.settings.identity("family", "prompt", "image")}

    def open(self, store: ObjectStore, decoding: Decoding, temporary: Path) -> OpenLiveModel[Any]:
        """Load the tokenizer of the model. It raises the errors of `open_family_model`."""
        from mantis.generation.generator import open_family_model

        return open_family_model(local_copy(store, self.manifest.key, temporary), self.settings, decoding)


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A model that transformers loads as image-text-to-text. Its own chat template writes its prompts.

    `address` is the URL of the model's folder. If it is empty, the files lie in the store.
    """

    manifest: Manifest
    address: str = ""
    family: str = ""
    restricts: bool = True
    revision: int = 1  # as in FamilyModel

    def identity(self) -> dict[str, object]:
        """The fingerprint covers weights, template and processor. Only the way of asking is left."""
        return {"asked_by": "chat template"}

    def open(self, store: ObjectStore, decoding: Decoding, temporary: Path) -> OpenLiveModel[Any]:
        """Load the processor of the model. It raises the errors of `open_chat_model`."""
        from mantis.generation.chat_generator import open_chat_model

        if not self.address:
            return open_chat_model(local_copy(store, self.manifest.key, temporary), decoding)
        origin = open_store(self.address)
        if isinstance(origin, LocalStore):
            return open_chat_model(origin.root, decoding)
        names = [entry.key for entry in origin.children("")[0] if entry.key.endswith(READ)]
        concurrently(lambda name: origin.get_file(name, temporary / name), names)
        return open_chat_model(temporary, decoding)


def model_in_folder(address: str) -> ChatModel:
    """Describe a model folder outside of the store: a path, or a file:// or s3:// URL. Every file is hashed.

    Raises:
        InputError: the folder holds no config.json with safetensors.
    """
    origin = open_store(address) if "://" in address else LocalStore(Path(address).expanduser().resolve())
    entries = [entry for entry in origin.children("")[0] if entry.key.endswith(READ)]
    names = {entry.key for entry in entries}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"{address} holds no config.json with *.safetensors beside it.",
            remedy="Name a Hugging Face model folder. Weights in *.bin are pickles and are not read.",
        )
    hashes = concurrently(lambda entry: hash_object(origin, entry.key, entry.size), entries)
    identity = {"files": {entry.key: made for entry, made in zip(entries, hashes, strict=True)}}
    summary: dict[str, Number] = {"source": origin.url, "bytes": sum(entry.size for entry in entries)}
    return ChatModel(manifest=external_model(identity, summary), address=origin.url)


def external_model(identity: dict[str, Any], summary: dict[str, Number]) -> Manifest:
    """Describe a model outside of the store, so that evaluations and lineage can name it."""
    made = fingerprint(identity)
    return Manifest(
        kind=ArtifactKind.EXTERNAL_MODEL,
        key=ArtifactKind.EXTERNAL_MODEL.address(fingerprint=made),
        fingerprint=made,
        made_by=provenance(ArtifactKind.EXTERNAL_MODEL.value, EXTERNAL_REVISION, identity),
        summary=summary,
    )
