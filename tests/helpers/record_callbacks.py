"""Train with a callback of the test's own: stop after STOP_AFTER steps, and resume with a fresh trainer.

Arguments: store, run. The hooks of both attempts go to stdout as JSON lines.
"""

import json
import os
import signal
import sys
import time
from typing import Any

from components.training.callbacks.callback import Callback
from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
from components.training.monitoring.signals import StoppedError
from components.training.step import mixture_of, training_task
from components.training.trainer_setup import build_trainer
from mantis.runs.step_runner import open_run

STOP_AFTER = 7


class LossSum(Callback):
    """Adds up the losses of all steps; asks the training to stop after `stop_after` steps."""

    name = "loss_sum"

    def __init__(self, stop_after: Any = None) -> None:
        self.stop_after, self.sum = stop_after, 0.0

    def on_start(self, trainer: Any) -> None:
        print(json.dumps({"hook": "on_start", "step": trainer.state.step, "sum": self.sum}), flush=True)

    def after_step(self, finished: Any) -> Any:
        self.sum += finished.figures.loss
        if finished.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss_sum": self.sum}

    def on_row(self, row: Any) -> None:
        print(json.dumps({"hook": "on_row", "step": row["step"], "sum": row["loss_sum"]}), flush=True)

    def on_save(self, step: Any) -> None:
        print(json.dumps({"hook": "on_save", "step": step, "sum": self.sum}), flush=True)

    def on_commit(self, step: Any) -> None:
        print(json.dumps({"commit": step}), flush=True)

    def on_stop(self, step: Any) -> None:
        print(json.dumps({"hook": "on_stop", "step": step, "sum": self.sum}), flush=True)

    def on_end(self, trainer: Any) -> None:
        print(json.dumps({"hook": "on_end", "step": trainer.state.step, "sum": self.sum}), flush=True)

    def state_dict(self) -> Any:
        return {"sum": self.sum}

    def load_state_dict(self, state: Any) -> None:
        self.sum = state["sum"]


def main(store_url: str, run_id: str) -> None:
    run, ranks = open_run(run_id, store_url), join_ranks()
    mixture = mixture_of(run)
    assert mixture is not None
    task = training_task(run, mixture)
    prefix = task.address()
    for callback in (LossSum(stop_after=STOP_AFTER), LossSum()):
        trainer = build_trainer(run, mixture, ranks, prefix=prefix, began=time.monotonic(), queued=0.0)
        trainer.callbacks.add(callback)
        try:
            trainer.train()
        except StoppedError as error:
            print(error, file=sys.stderr)
    leave_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
