"""Save a checkpoint, and measure how long the step loop stops; the peer is a synchronous save and upload.

The loop stops in `save`, and once more before the update if the copy in the thread is not done by then.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row
from mantis.logging import configure
from mantis.store.base import ObjectStore

RANKS, REPEATS = 2, 5
GOAL = "<=0.05"
WIDTH = {False: 1024, True: 2048}  # layers of width x width
LAYERS = 12
ROWS = 64  # of a step


def save(full: bool) -> Row:
    """Measure median seconds that the loop of the slowest rank waits; local store, ZeRO-3, fp32 with AdamW."""
    with tempfile.TemporaryDirectory() as folder:
        on_ranks(RANKS, "training_save", WIDTH[full], folder)
        ranks = [json.loads((Path(folder) / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]
    slowest = {name: [max(pair) for pair in zip(*(rank[name] for rank in ranks), strict=True)] for name in ranks[0]}
    middle = {name: statistics.median(values) for name, values in slowest.items()}
    return Row(
        name="training.save",
        peer=middle["synchronous"],
        ours=middle["stall"],
        ratio=middle["stall"] / middle["synchronous"],
        unit="s",
        goal=GOAL,
        details={
            "peer": "DeepSpeed's save_checkpoint to a folder, then its upload and hashes, in the loop",
            "gigabytes_per_rank": middle["bytes"] / 1e9,
            "in_save_seconds": middle["saving"],
            "before_update_seconds": middle["waiting"],
            "background_seconds": middle["background"],
            "copy_seconds": middle["copy"],
            "limit": "one copy of the rank's state in memory",
        },
    )


def measure(width: int, folder: Path) -> None:
    """Run one rank, with both ways in turn after one warm-up of each."""
    import torch

    from components.training.checkpointing.saver import Saver, TrainingState
    from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
    from mantis.store.local import LocalStore

    ranks = join_ranks()
    engine = _engine(width)
    store = LocalStore(folder / "store")
    saver = Saver(store, "ours", rank=ranks.rank, world_size=RANKS, zero_stage=3, attempt="benchmark", keep=1)
    names = ("synchronous", "stall", "saving", "waiting", "background", "copy", "bytes")
    figures: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(REPEATS + 1):
        torch.distributed.barrier()
        synchronous = _seconds(partial(_synchronous, engine, store, folder, ranks.rank, repeat))
        torch.distributed.barrier()
        saving = _seconds(partial(saver.save, engine, TrainingState(step=repeat, seed=0)))
        _forward_and_backward(engine, width)
        waiting = _seconds(saver.wait_until_copied)
        engine.step()
        background = _seconds(saver.wait)
        state = torch.cat([flat.detach() for flat in engine.optimizer.fp32_partitioned_groups_flat])
        held = 3 * state.nbytes  # masters and two moments
        target = torch.empty_like(state)
        copy = 3 * min(_seconds(partial(target.copy_, state)) for _ in range(3))
        if repeat:
            measured = (synchronous, saving + waiting, saving, waiting, background, copy, held)
            for name, value in zip(figures, measured, strict=True):
                figures[name].append(value)
    (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(figures))
    leave_ranks()


def _engine(width: int) -> Any:
    import deepspeed
    import torch

    model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "steps_per_print": None,
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 10_000_000, "stage3_prefetch_bucket_size": 10_000_000},
    }
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    _forward_and_backward(engine, width)
    engine.step()
    return engine


def _forward_and_backward(engine: Any, width: int) -> None:
    import torch

    engine.backward(engine(torch.randn(ROWS, width)).square().mean())


def _synchronous(engine: Any, store: ObjectStore, folder: Path, rank: int, step: int) -> None:
    from mantis.hashing import sha256_file

    scratch, tag = folder / "scratch", f"step-{step}"
    engine.save_checkpoint(str(scratch), tag=tag, save_latest=False)
    for path in sorted((scratch / tag).glob(f"*_rank_{rank}_*")):
        sha256_file(path)
        store.put_file(f"peer/{path.name}", path)
        path.unlink()


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    configure()
    measure(int(sys.argv[1]), Path(sys.argv[2]))
