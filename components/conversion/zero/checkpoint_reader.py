"""Find the step of a training checkpoint to convert, and check that its files are unchanged."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

from components.conversion.zero.byte_sources import TRUNCATED, ByteSource, store_sources
from components.conversion.zero.zero_checkpoint import Checkpoint, read_checkpoint
from mantis.artifacts.checkpoint import Commit, read_commit
from mantis.artifacts.layout import COMMIT, step_folder, step_of
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConversionError, IntegrityError
from mantis.hashing import sha256_bytes
from mantis.store.base import ObjectStore


def step_to_convert(manifest: Manifest, which: Literal["last", "best"]) -> int:
    """The last committed step of the checkpoint, or the one with the lowest held-out loss.

    Raises:
        ConversionError: the checkpoint has no such step.
    """
    folders = [PurePosixPath(file.name).parent.name for file in manifest.files if file.name.endswith(f"/{COMMIT}")]
    steps = [step for folder in folders if (step := step_of(folder)) is not None]
    if not steps:
        raise ConversionError(f"{manifest.key} holds no committed step.", remedy="Run the step `train`.")
    if which == "last":
        return max(steps)
    best = manifest.summary.get("best_step")
    if not isinstance(best, int) or best not in steps:
        raise ConversionError(
            f"{manifest.key} has no checkpoint of its best step{'' if best is None else f' {best}'}; it has those of "
            f"{', '.join(map(str, sorted(steps)))}.",
            remedy="Set conversion.checkpoint = last, or train with training.keep_best.",
        )
    return best


def read_step(store: ObjectStore, manifest: Manifest, step: int) -> Checkpoint:
    """Index the committed step `step` of the checkpoint.

    Raises:
        ConversionError: a file differs from the commit.
    """
    prefix = f"{manifest.key}/{step_folder(step)}"
    origin = store.uri(prefix)
    commit = _read_commit(store, manifest, step)
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
