"""Checkpoints: copied in memory, stored by a thread, committed last; verified before anything is unpickled.

    <prefix>/step-00000100/<files of every rank>, state.json, COMMIT

Every rank uploads its files and then a list of them (`uploaded-<attempt>-<rank>.json`). The first rank writes COMMIT
after it has found every rank's list. A folder without COMMIT is no checkpoint; the next attempt deletes it.
"""

import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field

from components.training.checkpointing.snapshot import Snapshot
from components.training.engine.parameter_groups import ParameterGroup
from mantis.artifacts.checkpoint import METRICS, Commit, committed
from mantis.artifacts.layout import COMMIT, commit_key, step_folder, step_of
from mantis.artifacts.manifest import File
from mantis.errors import IntegrityError, StoreError, TrainingError
from mantis.hashing import sha256_bytes, sha256_file
from mantis.schema_versions import FIELD, Form, Versioned, check_version, origin
from mantis.store.base import ObjectStore, concurrently, delete_tree

logger = logging.getLogger(__name__)

STATE = "state.json"
OUTAGE_SECONDS = 120.0  # how long a store may be away before a save gives up
COMMIT_SECONDS = 1800.0  # how long the first rank waits for the uploads of the other ranks
POLL_SECONDS = 0.1

T = TypeVar("T")


class TrainingState(Versioned):
    """`state.json`: what a resumed training needs beside weights and optimizer. The seed gives the order of samples."""

    # Losses and norms may be NaN, which plain JSON would store as null.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    form = Form.TRAINING_STATE
    schema_version: int = 3

    step: int  # optimizer steps that are done
    seed: int
    samples: int = 0  # trained so far, over all ranks
    tokens: int = 0  # trained so far, over all ranks
    groups: tuple[ParameterGroup, ...] | None = None  # of the optimizer, in its order; None: saved before version 3
    callbacks: dict[str, dict[str, Any]] = Field(default_factory=dict)  # each callback's memory, by its name


def read_state(folder: Path, where: str) -> TrainingState:
    """The training state in a fetched checkpoint's folder; `where`: the address it was fetched from, for errors.

    Raises:
        VersionError: a later version of this program wrote it.
    """
    stored = json.loads((folder / STATE).read_text())
    check_version(Form.TRAINING_STATE, stored, where)
    if stored.get(FIELD, 1) == 1:
        rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
        stored = from_schema_1(stored, rows)
    return TrainingState.model_validate(stored, context=origin(where))


def from_schema_1(stored: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """State of schema version 2 from one of version 1, which kept the metrics `rows` in a file of their own."""
    state = {name: stored[name] for name in ("step", "seed", "samples", "tokens")}
    callbacks = {
        "metric_rows": {"rows": list(rows), "window": stored["window"], "pending": {}},
        "loss_spikes": {"recent": stored["recent_losses"], "skipped": stored["skipped"]},
        "goodput": {"seconds": stored["seconds"]},
    }
    return state | {"callbacks": callbacks}


def superseded(steps: Sequence[int], *, keep: int, keep_every: int | None, best: int | None = None) -> list[int]:
    """The `steps` (newest first) to delete: all but the newest `keep`, the multiples of `keep_every`, and `best`."""
    return [step for step in steps[keep:] if step != best and (keep_every is None or step % keep_every)]


def delete_checkpoint(store: ObjectStore, prefix: str, folder: str) -> None:
    """Delete a checkpoint, COMMIT first: a half-deleted folder is no checkpoint."""
    store.delete(f"{prefix}/{folder}/{COMMIT}")
    delete_tree(store, f"{prefix}/{folder}")


def delete_uncommitted(store: ObjectStore, prefix: str) -> None:
    """Delete the unfinished uploads of killed attempts."""
    keep = committed(store, prefix)
    names = {entry.key.removeprefix(prefix + "/").partition("/")[0] for entry in store.list(prefix)}
    for folder in sorted(name for name in names if step_of(name) is not None and step_of(name) not in keep):
        logger.warning("%s was never committed: its upload was cut off. It is deleted.", folder)
        delete_tree(store, f"{prefix}/{folder}")


def fetch(store: ObjectStore, prefix: str, commit: Commit, *, rank: int | None, folder: Path) -> None:
    """Download files of a checkpoint and check every hash; nothing is unpickled here.

    Args:
        store: the object store.
        prefix: key of the training's folder.
        commit: the checkpoint's files.
        rank: download the files that this rank loads; None: those of all ranks.
        folder: where to put them.

    Raises:
        IntegrityError: a file is missing, or its size or hash differs from COMMIT.
    """
    step = step_folder(commit.step)

    def get(file: File) -> None:
        key, path = f"{prefix}/{step}/{file.name}", folder / file.name
        if store.stat(key) is None:
            raise IntegrityError(f"{store.uri(key)} is missing.", remedy="")
        store.get_file(key, path)
        size = path.stat().st_size
        if size != file.size:
            raise IntegrityError(f"{store.uri(key)} has {size} bytes, not {file.size}.", remedy="")
        if sha256_file(path) != file.sha256:
            raise IntegrityError(f"{store.uri(key)} was changed: its SHA-256 is not the one in COMMIT.", remedy="")

    folder.mkdir(parents=True, exist_ok=True)
    concurrently(get, [file for file in commit.files if _loads(file.name, rank)])


def _loads(name: str, rank: int | None) -> bool:
    """Whether this rank needs the file: its own shards, and all files that are no shards (by DeepSpeed's names)."""
    return rank is None or "zero_pp_rank_" not in name or f"zero_pp_rank_{rank}_mp_rank_" in name


class Saver:
    """Saves the checkpoints of one rank; a thread copies the optimizer's tensors, pickles, hashes and uploads.

    `save` returns before the optimizer's tensors are copied. Call `wait_until_copied` before the next update.

    Args:
        store: the object store.
        prefix: key of the training's folder.
        rank: this rank.
        world_size: number of ranks.
        zero_stage: DeepSpeed's ZeRO stage.
        attempt: a name of this attempt, the same on every rank.
        keep: number of newest checkpoints to keep.
        keep_every: keep the multiples of this step, too; None: no others.
        frozen: whether to save frozen parameters; if not, a resumed training builds them again.
        on_commit: learns the step of each committed checkpoint, from the thread; on the first rank.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        rank: int,
        world_size: int,
        zero_stage: int,
        attempt: str,
        keep: int,
        keep_every: int | None = None,
        frozen: bool = True,
        on_commit: Callable[[int], None] | None = None,
    ) -> None:
        self._store, self._prefix = store, prefix
        self._rank, self._world_size, self._zero_stage = rank, world_size, zero_stage
        self._attempt, self._keep, self._keep_every = attempt, keep, keep_every
        self._frozen = frozen
        self._on_commit = on_commit
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def save(
        self,
        engine: Any,
        state: TrainingState,
        *,
        best: int | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Save the DeepSpeed engine; collective. Waits for the save before: only one copy is in memory at a time.

        Args:
            engine: the DeepSpeed engine.
            state: steps done, and the memory of the callbacks.
            best: a step whose checkpoint is kept beside the newest ones.
            files: more files of this checkpoint by name; from the first rank.
        """
        self.wait()
        with self._snapshot.taking(engine):
            engine.save_checkpoint(
                "in-memory", tag=step_folder(state.step), save_latest=False, exclude_frozen_parameters=not self._frozen
            )
        written = {}
        if self._rank == 0:
            written = {STATE: state.model_dump_json().encode(), **(files or {})}
        arguments = (state.step, written, best)
        self._thread = threading.Thread(target=self._store_all, args=arguments, name="upload", daemon=True)
        self._thread.start()

    def wait_until_copied(self) -> None:
        """Wait until an update may change the model and the optimizer; returns at once without a save under way."""
        self._snapshot.wait_until_copied()

    def wait(self) -> None:
        """Wait until the last save is committed (first rank) or uploaded (other ranks); raises its error, if any."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of the thread, if there was one."""
        if self._failed is not None:
            raise self._failed

    def _store_all(self, step: int, written: dict[str, bytes], best: int | None) -> None:
        try:
            self._snapshot.copy()
            self._store_own(step, written)
            if self._rank == 0:
                self._commit(step, best)
        except BaseException as error:  # `check` raises it in the main thread
            self._failed = error

    def _store_own(self, step: int, written: dict[str, bytes]) -> None:
        base = f"{self._prefix}/{step_folder(step)}"
        with tempfile.TemporaryDirectory(prefix="mantis-checkpoint-") as scratch:
            files = self._write(step, Path(scratch), written)

            def put(file: File) -> None:
                through_outages(partial(self._store.put_file, f"{base}/{file.name}", Path(scratch) / file.name))

            concurrently(put, files)
        listed = json.dumps([file.model_dump() for file in files]).encode()
        through_outages(partial(self._store.put, f"{base}/{self._list_name(self._rank)}", listed))

    def _write(self, step: int, scratch: Path, written: dict[str, bytes]) -> list[File]:
        try:
            files = self._snapshot.write(scratch)
            for name, data in written.items():
                (scratch / name).write_bytes(data)
                files.append(File(name=name, size=len(data), sha256=sha256_bytes(data)))
        except (OSError, RuntimeError) as error:  # torch wraps some of what the file raises
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise TrainingError(
                f"The checkpoint of step {step} cannot be written to {scratch}: {reason}.",
                remedy="Free space there, or set TMPDIR to a larger disk; the same command goes on from the last one.",
            ) from None
        return files

    def _commit(self, step: int, best: int | None) -> None:
        base = f"{self._prefix}/{step_folder(step)}"
        lists = [f"{base}/{self._list_name(rank)}" for rank in range(self._world_size)]
        until = time.monotonic() + COMMIT_SECONDS
        files: list[File] = []
        for rank, key in enumerate(lists):
            while through_outages(partial(self._store.stat, key)) is None:
                if time.monotonic() > until:
                    raise TrainingError(
                        f"Rank {rank} did not upload its part of step {step} within {COMMIT_SECONDS:.0f} s.",
                        remedy="See its log; the same command goes on from the last committed checkpoint.",
                    )
                time.sleep(POLL_SECONDS)
            listed = json.loads(through_outages(partial(self._store.get, key)))
            files += [File.model_validate(item) for item in listed]
        commit = Commit(step=step, world_size=self._world_size, zero_stage=self._zero_stage, files=tuple(files))
        text, keys = commit.model_dump_json(indent=1).encode(), [f"{base}/{file.name}" for file in files]
        through_outages(partial(self._store.commit, commit_key(self._prefix, step), text, after=keys))
        if self._on_commit:
            self._on_commit(step)
        for key in lists:
            through_outages(partial(self._store.delete, key))
        steps = committed(self._store, self._prefix)
        for old in superseded(steps, keep=self._keep, keep_every=self._keep_every, best=best):
            delete_checkpoint(self._store, self._prefix, step_folder(old))

    def _list_name(self, rank: int) -> str:
        # The name holds the attempt, so that a killed attempt's list does not count for the files of this one.
        return f"uploaded-{self._attempt}-{rank:05d}.json"


def through_outages(action: Callable[[], T]) -> T:
    """Repeat `action` while the store is away, for OUTAGE_SECONDS at most.

    Raises:
        StoreError: the store stayed away.
    """
    until, pause = time.monotonic() + OUTAGE_SECONDS, 1.0
    while True:
        try:
            return action()
        except StoreError as error:
            if time.monotonic() + pause > until:
                raise
            logger.warning("The store does not take the checkpoint, next try in %.0f s: %s", pause, error.problem)
            time.sleep(pause)
            pause = min(2 * pause, 15.0)
