"""Convert ZeRO-3 shards to bf16 safetensors, with DeepSpeed's zero_to_fp32 as peer."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, meets

logger = logging.getLogger(__name__)

REPEATS = 5
TAG = "step-00000001"
WARM_GOAL, COLD_GOAL, MEMORY_GOAL = ">=2.5", ">=1.5", "<=0.5"
QUICK = {"width": 1024, "layers": 12, "mlp": 2816}  # 0.22 billion parameters
FULL = {"width": 1536, "layers": 20, "mlp": 4096}  # 0.66 billion
RANKS = {False: (8,), True: (8, 16)}

Figures = dict[str, float]


def zero(full: bool) -> Row:
    """Measure seconds per conversion with a warm and a cold page cache, peak anonymous memory, and bytes from disk."""
    from benchmarks.zero_checkpoint import llama_shapes

    shapes = llama_shapes(**(FULL if full else QUICK))
    results = {ranks: _compare(shapes, ranks) for ranks in RANKS[full]}
    worst = min(results.values(), key=lambda result: result["warm"]["ratio"])
    return Row(
        name="conversion.zero",
        peer=worst["warm"]["peer"],
        ours=worst["warm"]["ours"],
        ratio=worst["warm"]["ratio"],
        unit="s",
        goal=WARM_GOAL,
        details={
            "parameters": sum(shape.numel() for shape in shapes.values()),
            "peer": "deepspeed 0.19.8 zero_to_fp32, bf16 safetensors",
            "ranks": results,
        },
    )


def _compare(shapes: Any, ranks: int) -> dict[str, Any]:
    from benchmarks.zero_checkpoint import write_zero3

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logger.info("Writing a checkpoint of %d ranks", ranks)
        masters = write_zero3(folder / TAG, [shapes], world_size=ranks, seed=0)
        with worker(convert_peer, folder) as peer, worker(convert_ours, folder) as ours:
            figures = {
                state: alternate(peer, ours, folder, cold=state == "cold", label=f"{ranks} ranks, {state}")
                for state in ("warm", "cold")
            }
        same_bits(folder)
    return {
        state: summary(*pair, goal) | {"master_gb": masters / 1e9}
        for (state, pair), goal in zip(figures.items(), (WARM_GOAL, COLD_GOAL), strict=True)
    }


def alternate(
    peer: Connection, ours: Connection, folder: Path, *, cold: bool, label: str
) -> tuple[list[Figures], list[Figures]]:
    """Measure each side REPEATS times in turn, after one warm-up of each."""
    found: tuple[list[Figures], list[Figures]] = ([], [])
    for repeat in range(REPEATS + 1):
        logger.info("%s: %d of %d", label, repeat, REPEATS)
        for name, connection, figures in zip(("peer", "ours"), (peer, ours), found, strict=True):
            shutil.rmtree(folder / name, ignore_errors=True)
            _settle(folder / TAG, cold=cold)
            connection.send("go")
            answer = connection.recv()
            if repeat:
                figures.append(answer)
    return found


def _settle(checkpoint: Path, *, cold: bool) -> None:
    """Write all dirty pages of the previous run, and load the checkpoint into the page cache or evict it."""
    os.sync()
    for path in checkpoint.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        if cold:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while os.read(descriptor, 1 << 24):
                pass
        os.close(descriptor)


def summary(peer: list[Figures], ours: list[Figures], goal: str) -> dict[str, Any]:
    """Summarize: median seconds, largest memories, and the ratio that `goal` compares."""

    def middle(figures: list[Figures], name: str) -> float:
        return statistics.median(figure[name] for figure in figures)

    ratio = middle(peer, "seconds") / middle(ours, "seconds")
    memory = max(figure["anonymous_gb"] for figure in ours)
    return {
        "peer": middle(peer, "seconds"),
        "ours": middle(ours, "seconds"),
        "ratio": ratio,
        "goal": goal,
        "met": meets(ratio, goal),
        "ours_with_proof": middle(ours, "seconds") + middle(ours, "check_seconds"),
        "peer_anonymous_gb": max(figure["anonymous_gb"] for figure in peer),
        "ours_anonymous_gb": memory,
        "ours_anonymous_met": meets(memory, MEMORY_GOAL),
        "peer_read_gb": middle(peer, "read_gb"),
        "ours_read_gb": middle(ours, "read_gb"),
    }


def same_bits(folder: Path) -> None:
    """Check that both conversions give the same bits.

    Raises:
        RuntimeError: a tensor differs.
    """
    from safetensors import safe_open

    found: list[dict[str, Any]] = []
    for name in ("peer", "ours"):
        tensors: dict[str, Any] = {}
        for path in (folder / name).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found.append(tensors)
    peer, ours = found
    different = [
        name for name in peer | ours if name not in peer or name not in ours or not peer[name].equal(ours[name])
    ]
    if different:
        raise RuntimeError(f"peer and ours differ in {different[0]}")


@contextlib.contextmanager
def worker(convert: Callable[[Path], float], folder: Path) -> Iterator[Connection]:
    """Start a process for one side, so that its memory can be measured separately."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(convert, folder, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join()


def _serve(convert: Callable[[Path], float], folder: Path, connection: Connection) -> None:
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        while True:
            try:
                connection.recv()
            except EOFError:
                return
            connection.send(_measure(convert, folder))


def _measure(convert: Callable[[Path], float], folder: Path) -> Figures:
    """Return the seconds of one conversion, minus the seconds that `convert` reports for checking its result."""
    before = _read_bytes()
    with _peak_anonymous() as peak:
        start = time.perf_counter()
        check = convert(folder)
        seconds = time.perf_counter() - start - check
    return {
        "seconds": seconds,
        "check_seconds": check,
        "anonymous_gb": peak() / 1e9,
        "read_gb": (_read_bytes() - before) / 1e9,
    }


def convert_peer(folder: Path) -> float:
    """Convert with DeepSpeed, which checks nothing; return 0 seconds of checking."""
    import torch
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_state_dict

    convert_zero_checkpoint_to_state_dict(
        str(folder), str(folder / "peer"), dtype=torch.bfloat16, safe_serialization=True, tag=TAG
    )
    return 0.0


def convert_ours(folder: Path) -> float:
    """Convert with this project, which hashes every tensor; return the seconds of reading the result back."""
    import torch

    from components.conversion.shard_writer import hash_written, plan_shards, write_shards
    from components.conversion.zero.byte_sources import folder_sources
    from components.conversion.zero.zero_checkpoint import read_checkpoint

    torch.set_num_threads(1)
    (folder / "ours").mkdir(exist_ok=True)
    checkpoint = read_checkpoint(folder_sources(folder / TAG), origin=TAG)
    shards = plan_shards(checkpoint.tensors.values(), torch.bfloat16)
    digests = write_shards(shards, folder / "ours")
    start = time.perf_counter()
    if hash_written(shards, folder / "ours") != digests:
        raise RuntimeError("the written tensors differ from the read ones")
    return time.perf_counter() - start


def _read_bytes() -> int:
    """Return the number of bytes that this process has read from disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


@contextlib.contextmanager
def _peak_anonymous() -> Iterator[Callable[[], int]]:
    """Sample the largest anonymous memory of this process every 5 ms, while the block runs."""
    stop, peak = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], _anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stop.set()
        thread.join()


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon, so this row needs Linux")
