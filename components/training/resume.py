"""Going on from the newest checkpoint that is whole: agreed on by all ranks, verified before it is loaded."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from components.core.errors import IntegrityError, TrainingError
from components.core.progress import say
from components.core.store import ObjectStore
from components.training.checkpoint import (
    METRICS,
    STATE,
    Commit,
    LoopState,
    committed,
    delete_checkpoint,
    delete_uncommitted,
    fetch,
    folder_of,
    read_commit,
)
from components.training.engine import Ranks

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Where training goes on, and the metrics rows up to there."""

    state: LoopState
    rows: list[Row]


def restore(engine: Any, store: ObjectStore, prefix: str, ranks: Ranks, *, zero_stage: int) -> Resumed | None:
    """Load the newest whole checkpoint into the DeepSpeed engine; None where there is none. Collective.

    One with a missing or changed file is reported and the one before it is used.

    Raises:
        TrainingError: checkpoints are there and none is whole, or it was saved by another number of ranks.
    """
    steps = _agreed_steps(store, prefix, ranks)
    for step in steps:
        with tempfile.TemporaryDirectory(prefix="mantis-resume-") as scratch:
            folder = Path(scratch) / folder_of(step)
            commit = _fetch_whole(store, prefix, step, ranks, folder)
            if commit is None:
                continue
            _check_layout(commit, ranks, zero_stage)
            # Every hash was verified above: DeepSpeed unpickles these files, which runs whatever they hold.
            engine.load_checkpoint(scratch, tag=folder_of(step))
            if ranks.first:
                say(f"goes on after step {step} from {store.uri(f'{prefix}/{folder_of(step)}')}")
            rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
            if ranks.first:
                for damaged in steps[: steps.index(step)]:
                    delete_checkpoint(store, prefix, folder_of(damaged))  # it would count among those that are kept
            state = LoopState.model_validate_json((folder / STATE).read_text())
            # The other ranks' folders are their own, but DeepSpeed's load is collective: nobody leaves early.
            dist.barrier()
            return Resumed(state=state, rows=rows)
    if steps:
        raise TrainingError(
            f"None of the {len(steps)} checkpoints under {store.uri(prefix)} is whole.",
            remedy="Delete that folder to train from the start.",
        )
    return None


def _agreed_steps(store: ObjectStore, prefix: str, ranks: Ranks) -> list[int]:
    found: list[Any] = [None]
    if ranks.first:
        delete_uncommitted(store, prefix)
        found = [committed(store, prefix)]
    dist.broadcast_object_list(found, src=0, device=ranks.device)
    return list(found[0])


def _fetch_whole(store: ObjectStore, prefix: str, step: int, ranks: Ranks, folder: Path) -> Commit | None:
    """COMMIT, with this rank's files in `folder`, if every rank found its own as they should be."""
    commit, problem = None, ""
    try:
        commit = read_commit(store, prefix, step)
        fetch(store, prefix, commit, rank=ranks.rank, folder=folder)
    except IntegrityError as error:
        problem = error.problem
        say(f"CHECKPOINT DAMAGED, rank {ranks.rank}: {problem} The one before {folder_of(step)} is used.")
    bad = torch.tensor([1 if problem else 0], device=ranks.device)
    dist.all_reduce(bad)
    return None if bad.item() else commit


def _check_layout(commit: Commit, ranks: Ranks, zero_stage: int) -> None:
    if commit.world_size != ranks.world_size:
        raise TrainingError(
            f"The checkpoint of step {commit.step} was saved by {commit.world_size} ranks; these are "
            f"{ranks.world_size}.",
            remedy=f"Set training.nodes x training.processes_per_node to {commit.world_size}.",
        )
    if commit.zero_stage != zero_stage:
        raise TrainingError(
            f"The checkpoint of step {commit.step} was saved with ZeRO stage {commit.zero_stage}, not {zero_stage}.",
            remedy=f"Set training.zero_stage = {commit.zero_stage}.",
        )
