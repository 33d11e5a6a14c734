"""Run one rank of `training.start`: `torchrun -m benchmarks.training_start_ranks STORE RUN FILE`."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.time()
MARKS: list[tuple[str, float]] = []  # phase, time.time() at its end


def main(store: str, run: str, out: str) -> None:
    """Train as components.training does, end after the first step, and write the marks of the first rank."""
    clock = sys.modules.get("benchmarks.training_start_clock")
    if clock:
        MARKS.append(("interpreter and torch", clock.IMPORTED_AT))
    MARKS.append(("shared imports and fork" if clock else "torchrun, and the interpreter of a rank", BEGAN))
    from components.training import __main__ as entry
    from components.training import trainer_setup
    from components.training.callbacks.callback_list import CallbackList
    from components.training.engine import deepspeed_engine
    from components.training.train_step import TrainStep

    MARKS.append(("imports of a rank", time.time()))
    mark_end(deepspeed_engine, "join_ranks", "meeting the other ranks")
    mark_end(trainer_setup, "MixtureReader", "store, record, mixture")
    mark_end(trainer_setup, "flops_of", "tokenizer, model")
    mark_end(trainer_setup, "build_engine", "plan, optimizer, DeepSpeed")
    mark_end(trainer_setup, "build_trainer", "callbacks, checkpoint, data loader")
    mark_end(CallbackList, "on_start", "start of callbacks")
    mark_end(TrainStep, "take", "first step", then=lambda: leave_marks(Path(out)))
    sys.argv = ["training", "--store", store, "--run-id", run]
    entry.app()


def leave_marks(path: Path) -> None:
    """Write the marks; on the first rank."""
    if os.environ["RANK"] == "0":
        path.write_text(json.dumps(MARKS))


def mark_end(owner: Any, name: str, phase: str, *, then: Callable[[], None] = lambda: None) -> None:
    """Let every call of `owner.name` note its end as the end of `phase`, and do `then`."""
    function: Callable[..., Any] = getattr(owner, name)

    def noting(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        finally:
            MARKS.append((phase, time.time()))
            then()

    setattr(owner, name, noting)


if __name__ == "__main__":
    main(*sys.argv[1:])
