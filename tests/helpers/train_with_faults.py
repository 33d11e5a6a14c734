"""On two ranks: train a stored run with a poisoned row undisturbed, then stopped, damaged, and in another layout.

Arguments: store, run. Each rank stores `faults-<rank>.json` in the run's folder: what every attempt did.
"""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from components.training.checkpointing import resume
from components.training.checkpointing.reshard import Shards
from components.training.checkpointing.snapshot import Snapshot
from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
from components.training.monitoring.signals import StoppedError
from components.training.step import mixture_of
from components.training.trainer_setup import build_trainer
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.runs.step_runner import open_run
from tests.helpers.forked_ranks import fork_ranks

WHOLE, HURT = "checkpoints/undisturbed", "checkpoints/hurt"
SIGNALLED = 11  # the step after which one rank gets the signal: all ranks learn of it in the next one
COPY_SECONDS = 0.4  # by which a save copies too late, unless the update waits for it
BEHIND_SECONDS = 1.5  # by how much one rank of a node is late at the files that the ranks share


class Recorder:
    """Takes the trainer's own steps, and records what each one did to this rank's masters and moments."""

    def __init__(self, trainer: Any, *, signal_after: int | None) -> None:
        self.inner, self.engine = trainer.train_step, trainer.engine.deepspeed
        self.signal_after = signal_after
        self.start = digest(self.engine)
        self.steps: list[dict[str, Any]] = []

    def take(self, work: Any, *, waited: float) -> Any:
        figures, stopping = self.inner.take(work, waited=waited)
        samples = [self.inner.table.ids[position] for position in work.samples]
        row = {"step": work.step + 1, "samples": samples, "loss": figures.loss, "taken": figures.taken}
        self.steps.append(row | {"state": digest(self.engine)})
        if work.step + 1 == self.signal_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures, stopping


def digest(engine: Any) -> str:
    """Hash of this rank's part of the fp32 weights and of AdamW's state, its count of updates included."""
    optimizer, found = engine.optimizer, hashlib.sha256()
    for flat in optimizer.fp32_partitioned_groups_flat:
        found.update(flat.detach().numpy().tobytes())
        state = optimizer.optimizer.state[flat]
        found.update(b"".join(state[name].numpy().tobytes() for name in sorted(state)))
    return found.hexdigest()


def counters(engine: Any) -> list[int]:
    return [int(getattr(engine, name)) for name in ("global_steps", "global_samples", "skipped_steps")]


def attempt(build: Any, prefix: str, *, signal_after: int | None = None) -> dict[str, Any]:
    """Train below `prefix` until the end, or until the signal."""
    trainer = build(prefix=prefix)
    recorder = Recorder(trainer, signal_after=signal_after)
    begun = {"resumed": trainer.state.step, "there": committed(trainer.saver._store, prefix), "start": recorder.start}
    trainer.train_step, stopped = recorder, ""
    try:
        trainer.train()
    except StoppedError as error:
        stopped = error.problem
    return begun | {"steps": recorder.steps, "stopped": stopped, "counters": counters(recorder.engine)}


def copy_late(snapshot: Snapshot, copy: Any = Snapshot.copy) -> None:
    """Copy the optimizer's tensors so late that the next forward and backward are done before."""
    time.sleep(COPY_SECONDS)
    copy(snapshot)


def damage(run: Any, ranks: Any) -> None:
    """Cut off the end of one rank's file in the newest checkpoint."""
    if ranks.is_main:
        newest = committed(run.store, HURT)[0]
        folder = Path(run.store.lance_uri(f"{HURT}/{step_folder(newest)}"))
        file = next(folder.glob("*zero_pp_rank_1_mp_rank_00_optim_states.pt"))
        file.write_bytes(file.read_bytes()[:-100])
    ranks.all_reduce_sum(0.0)  # the other rank waits for the damage


def in_another_layout(run: Any, build: Any, ranks: Any) -> list[int]:
    """The engine's counters after a load into ZeRO-2, in which one rank of the node is behind the other."""

    def late(*arguments: Any, **options: Any) -> Any:
        time.sleep(BEHIND_SECONDS if ranks.rank else 0.0)
        return Shards(*arguments, **options)

    training = run.recipe.training.model_copy(update={"zero_stage": 2})
    other = replace(run, recipe=run.recipe.model_copy(update={"training": training}))
    with mock.patch.object(resume, Shards.__name__, late):
        return counters(build(other, prefix=WHOLE).engine.deepspeed)


def work(store_url: str, run_id: str) -> None:
    run, ranks = open_run(run_id, store_url), join_ranks()
    mixture = mixture_of(run)
    assert mixture is not None

    def build(of: Any = run, *, prefix: str) -> Any:
        return build_trainer(of, mixture, ranks, prefix=prefix, began=time.monotonic(), queued=0.0)

    found: dict[str, Any] = {"undisturbed": attempt(build, WHOLE)}
    with mock.patch.object(Snapshot, "copy", copy_late):
        found["stopped"] = attempt(build, HURT, signal_after=SIGNALLED if ranks.rank == 1 else None)
    damage(run, ranks)
    found["resumed"] = attempt(build, HURT)
    found["other layout"] = in_another_layout(run, build, ranks)
    run.store.put(run.key(f"faults-{ranks.rank}.json"), json.dumps(found).encode())
    leave_ranks()


if __name__ == "__main__":
    fork_ranks(2, partial(work, *sys.argv[1:]))
