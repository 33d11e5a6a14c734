"""Resumes from the newest whole checkpoint: all ranks agree on it and verify it before they load it."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from components.training.checkpointing.deepspeed_files import check_files, tensors_only
from components.training.checkpointing.reshard import Shards, load_resharded
from components.training.checkpointing.saver import (
    STATE,
    TrainingState,
    delete_checkpoint,
    delete_uncommitted,
    fetch,
    read_state,
)
from components.training.engine.deepspeed_engine import DistributedContext
from components.training.engine.parameter_groups import ParameterGroup, check_same
from mantis.artifacts.checkpoint import Commit, committed, read_commit
from mantis.artifacts.layout import step_folder
from mantis.errors import IntegrityError, TrainingError
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)


def restore(
    engine: Any,
    store: ObjectStore,
    prefix: str,
    ranks: DistributedContext,
    *,
    zero_stage: int,
    groups: Sequence[ParameterGroup],
    frozen: bool = True,
) -> TrainingState | None:
    """Load the newest whole checkpoint into the DeepSpeed engine; None if there is no checkpoint. Collective.

    A checkpoint with a missing or changed file is reported, and the one before it is used. A checkpoint of another
    number of ranks or another ZeRO stage is resharded. `groups` are the engine's parameter groups. `frozen` has the
    value that `Saver` had.

    Raises:
        TrainingError: there are checkpoints, but none is whole; or one was trained with other parameter groups.
        IntegrityError: the checkpoint belongs to another model, or a file of it wants to run code.
    """
    steps = _agreed_steps(store, prefix, ranks)
    for step in steps:
        with tempfile.TemporaryDirectory(prefix="mantis-resume-") as own:
            commit = _read_commit(store, prefix, step, ranks)
            if commit is None:
                continue
            same = (commit.world_size, commit.zero_stage) == (ranks.world_size, zero_stage)
            scratch = Path(own) if same else _node_folder(Path(own), ranks)
            folder = scratch / step_folder(step)
            # With another layout every rank reads the files of all ranks: one rank per node downloads them.
            fetches = same or ranks.local_rank == 0
            if not _fetched_whole(store, prefix, commit, ranks, folder, rank=ranks.rank if same else None, own=fetches):
                continue
            _refuse_code(folder, ranks, own=fetches)
            origin = store.uri(f"{prefix}/{step_folder(step)}")
            state = _checked_state(folder, groups, origin=origin)
            if same:
                with tensors_only(engine):
                    engine.load_checkpoint(str(scratch), tag=step_folder(step), load_module_strict=frozen)
            else:
                _repartition(engine, commit, folder, ranks, zero_stage=zero_stage, frozen=frozen)
            if ranks.is_main:
                logger.info("Training continues after step %d from %s", step, origin)
            if ranks.is_main:
                for damaged in steps[: steps.index(step)]:
                    # A damaged checkpoint would count as one of the newest that are kept.
                    delete_checkpoint(store, prefix, step_folder(damaged))
            # DeepSpeed's load is collective and ranks may share a folder: wait for all before it is deleted.
            dist.barrier()
            return state.model_copy(update={"groups": tuple(groups)})
    if steps:
        raise TrainingError(
            f"None of the {len(steps)} checkpoints under {store.uri(prefix)} is whole.",
            remedy="Delete that folder to train from the start.",
        )
    return None


def _agreed_steps(store: ObjectStore, prefix: str, ranks: DistributedContext) -> list[int]:
    found: list[Any] = [None]
    if ranks.is_main:
        delete_uncommitted(store, prefix)
        found = [committed(store, prefix)]
    dist.broadcast_object_list(found, src=0, device=ranks.device)
    return list(found[0])


def _read_commit(store: ObjectStore, prefix: str, step: int, ranks: DistributedContext) -> Commit | None:
    """COMMIT, or None if any rank could not read it."""
    commit, problem = None, ""
    try:
        commit = read_commit(store, prefix, step)
    except IntegrityError as error:
        problem = error.problem
    return commit if _agree(problem, step, ranks) else None


def _fetched_whole(
    store: ObjectStore,
    prefix: str,
    commit: Commit,
    ranks: DistributedContext,
    folder: Path,
    *,
    rank: int | None,
    own: bool,
) -> bool:
    """Download the files of `rank` to `folder` if `own` is set; returns whether all ranks found theirs unchanged."""
    problem = ""
    try:
        if own:
            fetch(store, prefix, commit, rank=rank, folder=folder)
    except IntegrityError as error:
        problem = error.problem
    return _agree(problem, commit.step, ranks)


def _refuse_code(folder: Path, ranks: DistributedContext, *, own: bool) -> None:
    """Raise the same IntegrityError on all ranks if a file that one rank fetched wants to run code. Collective."""
    problem, remedy = "", ""
    if own:
        try:
            check_files(folder)
        except IntegrityError as error:
            problem, remedy = error.problem, error.remedy
    found: list[tuple[str, str]] = [("", "")] * ranks.world_size
    dist.all_gather_object(found, (problem, remedy))
    for planted, what_to_do in found:
        if planted:
            raise IntegrityError(planted, remedy=what_to_do)


def _checked_state(folder: Path, groups: Sequence[ParameterGroup], *, origin: str) -> TrainingState:
    """The state in `folder`, saved with these parameter groups. Collective.

    Ranks may share the folder, and an error ends its life: all of them read it before one goes on.
    """
    try:
        state = read_state(folder, f"{origin}/{STATE}")
        check_same(state.groups, groups, origin=origin)
    finally:
        dist.barrier()
    return state


def _agree(problem: str, step: int, ranks: DistributedContext) -> bool:
    if problem:
        logger.warning("CHECKPOINT DAMAGED: %s Training uses the one before %s.", problem, step_folder(step))
    bad = torch.tensor([1 if problem else 0], device=ranks.device)
    dist.all_reduce(bad)
    return not bad.item()


def _node_folder(own: Path, ranks: DistributedContext) -> Path:
    """The folder of this node's first rank."""
    folders: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(folders, str(own))
    return Path(folders[ranks.rank - ranks.local_rank])


def _repartition(
    engine: Any, commit: Commit, folder: Path, ranks: DistributedContext, *, zero_stage: int, frozen: bool
) -> None:
    if ranks.is_main:
        logger.warning(
            "The layout changed. %d ranks with ZeRO-%d saved step %d: it is resharded for %d ranks with ZeRO-%d. The "
            "samples of every step stay the same. Sums are taken in another order, so the last bits may differ.",
            commit.world_size,
            commit.zero_stage,
            commit.step,
            ranks.world_size,
            zero_stage,
        )
    shards = Shards(folder, world_size=commit.world_size, zero_stage=commit.zero_stage)
    load_resharded(engine, shards, rank=ranks.rank, frozen=frozen)
