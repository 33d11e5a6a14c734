"""The committed step of a training checkpoint: which one, and whether its files are as they were committed."""

import re
from collections.abc import Mapping

from pydantic import ConfigDict, ValidationError

from components.conversion.zero.byte_sources import TRUNCATED, ByteSource, store_sources
from components.conversion.zero.zero_checkpoint import Checkpoint, read_checkpoint
from mantis import schema_versions
from mantis.artifacts.manifest import File, Manifest
from mantis.errors import ConversionError
from mantis.hashing import sha256_bytes
from mantis.schema_versions import Form, Versioned
from mantis.store.base import ObjectStore

COMMIT = re.compile(r"(step-(\d+))/COMMIT")


class CommittedStep(Versioned):
    """`step-XXXXXXXX/COMMIT`: what training wrote last, once every rank's files were there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    form = Form.COMMIT

    step: int
    world_size: int
    files: tuple[File, ...]


def read_last_step(store: ObjectStore, manifest: Manifest) -> Checkpoint:
    """The index of the checkpoint's last committed step.

    Raises:
        ConversionError: no step was committed, or its files are not those that were.
    """
    steps = {int(match[2]): match[1] for file in manifest.files if (match := COMMIT.fullmatch(file.name))}
    if not steps:
        raise ConversionError(f"{manifest.key} holds no committed step.", remedy="Run the step `train`.")
    prefix = f"{manifest.key}/{steps[max(steps)]}"
    origin = store.uri(prefix)
    commit = _read_commit(store.get(f"{prefix}/COMMIT"), origin)
    sources = store_sources(store, prefix)
    _check_sizes(commit, sources, origin)
    checkpoint = read_checkpoint({file.name: sources[file.name] for file in commit.files}, origin=origin)
    for what, promised, found in (
        ("step", commit.step, checkpoint.step),
        ("world_size", commit.world_size, checkpoint.world_size),
    ):
        if promised != found:
            raise ConversionError(
                f"{origin}/COMMIT says {what} {promised}; the shards say {found}.",
                remedy="Two checkpoints were mixed: convert another step, or train again.",
            )
    return checkpoint


def read_file(store: ObjectStore, checkpoint: Manifest, name: str) -> bytes:
    """One small file of the checkpoint.

    Raises:
        ConversionError: it is not there, or not as the manifest says.
    """
    promised = {file.name: file.sha256 for file in checkpoint.files}.get(name)
    if promised is None:
        raise ConversionError(f"{checkpoint.key} holds no {name}.", remedy="Run the step `train` again.")
    data = store.get(f"{checkpoint.key}/{name}")
    if sha256_bytes(data) != promised:
        raise ConversionError(f"{checkpoint.key}/{name} was changed since.", remedy="Run the step `train` again.")
    return data


def _read_commit(text: bytes, origin: str) -> CommittedStep:
    try:
        return CommittedStep.model_validate_json(text, context=schema_versions.origin(f"{origin}/COMMIT"))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConversionError(
            f"{origin}/COMMIT: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}.", remedy=TRUNCATED
        ) from None


def _check_sizes(commit: CommittedStep, sources: Mapping[str, ByteSource], origin: str) -> None:
    for file in commit.files:
        found = sources.get(file.name)
        if found is None:
            raise ConversionError(f"{origin}/{file.name} is missing; COMMIT promises it.", remedy=TRUNCATED)
        if found.size != file.size:
            raise ConversionError(
                f"{origin}/{file.name} has {found.size} bytes; COMMIT promises {file.size}.", remedy=TRUNCATED
            )
