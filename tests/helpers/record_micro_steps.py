"""Train a stored run, and write down the samples of every micro-step that a rank trained.

Arguments: store, run. Each rank stores `micro-steps-<rank>.json` in the run's folder: a list of steps. A step is a list
of micro-steps, and a micro-step is a list of samples, each with its tokens.
"""

import json
import sys
import time
from itertools import pairwise
from typing import Any

from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
from components.training.step import mixture_of, training_task
from components.training.trainer_setup import build_trainer
from mantis.runs.step_runner import open_run


class RecordingStep:
    """Takes the trainer's own steps, and keeps what they were given."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.steps: list[list[list[list[int]]]] = []

    def take(self, work: Any, *, waited: float) -> Any:
        self.steps.append([samples_of(batch) for batch in work.batches])
        return self.inner.take(work, waited=waited)


def samples_of(batch: Any) -> list[list[int]]:
    tokens, ends = batch.input_ids[0].tolist(), batch.cu_seqlens.tolist()
    return [tokens[start:end] for start, end in pairwise(ends)]


def main(store_url: str, run_id: str) -> None:
    run, ranks = open_run(run_id, store_url), join_ranks()
    mixture = mixture_of(run)
    assert mixture is not None
    prefix = training_task(run, mixture).address()
    trainer = build_trainer(run, mixture, ranks, prefix=prefix, began=time.monotonic(), queued=0.0)
    recording: Any = RecordingStep(trainer.train_step)
    trainer.train_step = recording
    trainer.train()
    run.store.put(run.key(f"micro-steps-{ranks.rank}.json"), json.dumps(recording.steps).encode())
    leave_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
