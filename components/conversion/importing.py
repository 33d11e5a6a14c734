"""Import released weights as a model of the store, so that evaluation treats them like converted ones.

The source is a Hugging Face folder with safetensors, in a layout that a family's FamilySpec names. Layouts from the
time of transformers 4 have other tensor names than the classes of transformers 5. transformers renames them when it
loads them. The checks here use its renaming rules.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from components.conversion.merge.merge_plan import with_model_names
from components.conversion.proof import model_of_config
from components.conversion.zero.byte_sources import ByteSource, FileSource, StoreSource
from components.conversion.zero.safetensors_index import SUFFIX, read_safetensors
from components.conversion.zero.zero_checkpoint import MasterTensor
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import (
    MANIFEST,
    File,
    Manifest,
    commit_manifest,
    hash_object,
    provenance,
    read_manifest,
)
from mantis.errors import ConfigError, InputError
from mantis.hashing import fingerprint
from mantis.models.family_spec import ReleasedLayout
from mantis.models.registry import family_specs
from mantis.store.base import ObjectStore, StoredObject, concurrently, delete_tree
from mantis.store.local import LocalStore
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

REVISION = 1
STEP = "import-model"
KEPT = (
    SUFFIX,
    ".json",
    ".txt",
    ".model",
    ".jinja",
    ".md",
)  # weights, configuration, tokenizer, model card; neither code nor pickles


def import_model(store: ObjectStore, source: str, family: str) -> Manifest:
    """Copy a model folder to models/<fingerprint>/ of `store`, and write the manifest last.

    Args:
        store: the store that receives the model.
        source: a path, or an address that begins with file:// or s3://.
        family: the model family of the folder.

    Raises:
        ConfigError: the family has no released layout.
        InputError: the folder holds no complete model of this family. Nothing is stored then.
    """
    layout = _released_layout(family)
    origin = open_store(source) if "://" in source else LocalStore(Path(source).expanduser().resolve())
    entries = [entry for entry in origin.children("")[0] if entry.key.endswith(KEPT) and entry.key != MANIFEST]
    files = tuple(concurrently(lambda entry: _describe(origin, entry), entries))
    tensors = _check(origin, files, family, layout, source)
    made = fingerprint({"step": STEP, "revision": REVISION, "family": family, "files": [_identity(f) for f in files]})
    prefix = ArtifactKind.MODEL.address(fingerprint=made)
    existing = read_manifest(store, prefix)
    if existing is not None:
        logger.info("The store has this model already: %s", store.uri(prefix))
        return existing
    delete_tree(store, prefix)  # a killed attempt may have left files
    concurrently(lambda file: _copy(origin, store, file.name, f"{prefix}/{file.name}"), files)
    manifest = Manifest(
        kind=ArtifactKind.MODEL,
        key=prefix,
        fingerprint=made,
        made_by=provenance(STEP, REVISION, {"family": family}),
        files=files,
        summary={
            "family": family,
            "source": source.removeprefix(f"{store.url}/"),
            "parameters": sum(tensor.numel for tensor in tensors.values()),
            "bytes": sum(file.size for file in files),
        },
    )
    commit_manifest(store, manifest)
    return manifest


def _released_layout(family: str) -> ReleasedLayout:
    layouts = {spec.name: spec.released for spec in family_specs() if spec.released}
    if family not in layouts:
        raise ConfigError(f"--family {family!r} has no released layout.", remedy=f"Choose one of {', '.join(layouts)}.")
    return layouts[family]


def _describe(origin: ObjectStore, entry: StoredObject) -> File:
    return File(name=entry.key, size=entry.size, sha256=hash_object(origin, entry.key, entry.size))


def _identity(file: File) -> tuple[str, str]:
    return file.name, file.sha256


def _copy(origin: ObjectStore, store: ObjectStore, name: str, key: str) -> None:
    with tempfile.NamedTemporaryFile(prefix="mantis-import-") as scratch:
        origin.get_file(name, Path(scratch.name))
        store.put_file(key, Path(scratch.name))


def _check(
    origin: ObjectStore, files: tuple[File, ...], family: str, layout: ReleasedLayout, source: str
) -> dict[str, MasterTensor]:
    """Read the index of the model's tensors, and compare names and shapes with those that config.json implies."""
    names = {file.name for file in files}
    if "config.json" not in names or not any(name.endswith(SUFFIX) for name in names):
        raise InputError(
            f"{source} holds no config.json with *.safetensors beside it.",
            remedy="Name a Hugging Face model folder; weights in *.bin are pickles and are not read.",
        )
    _check_family(origin.get("config.json"), family, layout, source)
    stored = read_safetensors({file.name: _source(origin, file) for file in files}, origin=source)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "config.json").write_bytes(origin.get("config.json"))
        with torch.device("meta"):
            model = model_of_config(Path(scratch))
    _compare(model, with_model_names(stored, model), source)
    return stored


def _source(origin: ObjectStore, file: File) -> ByteSource:
    if isinstance(origin, LocalStore):
        return FileSource(origin.root / file.name)
    return StoreSource(origin, file.name, file.size)


def _check_family(text: bytes, family: str, layout: ReleasedLayout, source: str) -> None:
    try:
        config: Any = json.loads(text)
        fits = layout.names(config)
        parts = {part: config.get(part, {}).get("model_type") for part in ("vision_config", "text_config")}
    except (ValueError, AttributeError):
        raise InputError(f"{source}/config.json is not a model's configuration.", remedy="Copy it again.") from None
    if not fits:
        raise InputError(
            f"{source}/config.json has model_type {config.get('model_type')}, vision {parts['vision_config']} and text "
            f"{parts['text_config']}, but {family} is {layout}.",
            remedy="Set --family to the family of this model.",
        )


def _compare(model: Any, found: Mapping[str, MasterTensor], source: str) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = model.all_tied_weights_keys
    for name, shape in wanted.items():
        if name not in found and name not in tied and name not in tied.values():
            raise InputError(f"{source} has no {name}.", remedy="Copy the folder again: it is incomplete.")
        if name in found and found[name].shape != shape:
            raise InputError(
                f"{source}: {name} has the shape {list(found[name].shape)}, but config.json implies {list(shape)}.",
                remedy="Copy weights and configuration again: they belong to different models.",
            )
