"""Find the last committed step of a training checkpoint, and check that its files are unchanged."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from components.conversion.zero.byte_sources import TRUNCATED, ByteSource, store_sources
from components.conversion.zero.zero_checkpoint import Checkpoint, read_checkpoint
from mantis.artifacts.checkpoint import Commit, read_commit
from mantis.artifacts.layout import COMMIT, step_folder, step_of
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConversionError, IntegrityError
from mantis.hashing import sha256_bytes
from mantis.store.base import ObjectStore


def read_last_step(store: ObjectStore, manifest: Manifest) -> Checkpoint:
    """Index the last committed step of the checkpoint.

    Raises:
        ConversionError: the checkpoint has no committed step, or a file differs from the commit.
    """
    folders = [PurePosixPath(file.name).parent.name for file in manifest.files if file.name.endswith(f"/{COMMIT}")]
    steps = [step for folder in folders if (step := step_of(folder)) is not None]
    if not steps:
        raise ConversionError(f"{manifest.key} holds no committed step.", remedy="Run the step `train`.")
    prefix = f"{manifest.key}/{step_folder(max(steps))}"
    origin = store.uri(prefix)
    commit = _read_commit(store, manifest, max(steps))
    sources = store_sources(store, prefix)
    _check_sizes(commit, sources, origin)
    checkpoint = read_checkpoint({file.name: sources[file.name] for file in commit.files}, origin=origin)
    for what, promised, found in (
        ("step", commit.step, checkpoint.step),
        ("world_size", commit.world_size, checkpoint.world_size),
    ):
        if promised != found:
            raise ConversionError(
                f"{origin}/COMMIT has {what} {promised}, but the shards have {found}.",
                remedy="Convert another step, or train again: the files of two checkpoints were mixed.",
            )
    return checkpoint


def read_file(store: ObjectStore, checkpoint: Manifest, name: str) -> bytes:
    """Read one small file of the checkpoint.

    Raises:
        ConversionError: the manifest does not name the file, or its hash differs.
    """
    promised = {file.name: file.sha256 for file in checkpoint.files}.get(name)
    if promised is None:
        raise ConversionError(f"{checkpoint.key} holds no {name}.", remedy="Run the step `train` again.")
    data = store.get(f"{checkpoint.key}/{name}")
    if sha256_bytes(data) != promised:
        raise ConversionError(
            f"{checkpoint.key}/{name} was changed after training.", remedy="Run the step `train` again."
        )
    return data


def _read_commit(store: ObjectStore, manifest: Manifest, step: int) -> Commit:
    try:
        return read_commit(store, manifest.key, step)
    except IntegrityError as error:
        raise ConversionError(error.problem, remedy=TRUNCATED) from None


def _check_sizes(commit: Commit, sources: Mapping[str, ByteSource], origin: str) -> None:
    for file in commit.files:
        found = sources.get(file.name)
        if found is None:
            raise ConversionError(f"{origin}/{file.name} is missing, but COMMIT lists it.", remedy=TRUNCATED)
        if found.size != file.size:
            raise ConversionError(
                f"{origin}/{file.name} has {found.size} bytes, but COMMIT lists {file.size}.", remedy=TRUNCATED
            )
