"""Convert a ZeRO-3 checkpoint in MinIO to bf16 safetensors on disk, with a copy of the same bytes as peer."""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.conversion import FULL, QUICK, RANKS, TAG, alternate, summary, worker
from benchmarks.rows import Row, meets

logger = logging.getLogger(__name__)

GOAL = "<=1.3"
BYTES_GOAL = "<=1.05"
MEMORY_GOAL = "<=0.5"
COPY_BLOCK = 1 << 23


def store(full: bool) -> Row:
    """Measure seconds to convert by range reads, and to copy the bytes of the master weights, from a local MinIO."""
    from benchmarks.zero_checkpoint import llama_shapes

    shapes = llama_shapes(**(FULL if full else QUICK))
    results = {ranks: _compare(shapes, ranks) for ranks in RANKS[full]}
    worst = max(results.values(), key=lambda result: result["ratio"])
    return Row(
        name="conversion.store",
        peer=worst["peer"],
        ours=worst["ours"],
        ratio=worst["ratio"],
        unit="s",
        goal=GOAL,
        details={
            "parameters": sum(shape.numel() for shape in shapes.values()),
            "peer": "the same number of bytes copied from MinIO to the same disk, 8 MiB a request, on as many threads",
            "ranks": results,
            "limit": "MinIO on the same cores: reading and checking 4 bytes per parameter there",
        },
    )


def _compare(shapes: Any, ranks: int) -> dict[str, Any]:
    from benchmarks.minio import serving
    from benchmarks.zero_checkpoint import write_zero3
    from mantis.store.base import upload_tree
    from mantis.store.opening import open_store

    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as served:
        folder = Path(name)
        with serving(Path(served)) as url:
            logger.info("Writing a checkpoint of %d ranks", ranks)
            masters = write_zero3(folder / TAG, [shapes], world_size=ranks, seed=0)
            upload_tree(open_store(url), TAG, folder / TAG)
            for path in (folder / TAG).iterdir():
                path.unlink()
            (folder / "url").write_text(url)
            (folder / "masters").write_text(str(masters))
            with worker(copy_masters, folder) as peer, worker(convert_from_store, folder) as ours:
                figures = alternate(peer, ours, folder, cold=False, label=f"{ranks} ranks")
            read = int((folder / "ours" / "read").read_text())
    found = summary(*figures, GOAL)
    ratio = found["ours"] / found["peer"]
    return found | {
        "ratio": ratio,
        "met": meets(ratio, GOAL),
        "bytes_read_per_master_byte": read / masters,
        "bytes_met": meets(read / masters, BYTES_GOAL),
        "ours_anonymous_met": meets(found["ours_anonymous_gb"], MEMORY_GOAL),
    }


def copy_masters(folder: Path) -> float:
    """Copy the number of bytes of the master weights, from the front of each rank's file."""
    from concurrent.futures import ThreadPoolExecutor

    from components.conversion.shard_writer import THREADS
    from mantis.store.opening import open_store

    opened = open_store((folder / "url").read_text())
    masters = int((folder / "masters").read_text())
    (folder / "peer").mkdir(exist_ok=True)
    entries = [entry for entry in opened.list(TAG) if entry.key.endswith("optim_states.pt")]
    share = masters // len(entries)

    def copy(item: tuple[str, int]) -> None:
        key, start = item
        data = opened.get_range(key, start, min(COPY_BLOCK, share - start))
        with (folder / "peer" / key.rpartition("/")[2]).open("r+b") as file:
            file.seek(start)
            file.write(data)

    for entry in entries:
        (folder / "peer" / entry.key.rpartition("/")[2]).touch()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, [(entry.key, start) for entry in entries for start in range(0, share, COPY_BLOCK)]))
    return 0.0


def convert_from_store(folder: Path) -> float:
    """Convert with this project by range reads; return the seconds of reading the result back."""
    import torch

    from components.conversion.shard_writer import hash_written, plan_shards, write_shards
    from components.conversion.zero.byte_sources import StoreSource
    from components.conversion.zero.read_ahead import reading_ahead
    from components.conversion.zero.zero_checkpoint import read_checkpoint
    from mantis.store.opening import open_store

    class Counted(StoreSource):
        """A source that counts the bytes requested from it."""

        total = 0

        def read(self, start: int, length: int) -> bytes:
            Counted.total += length
            return super().read(start, length)

    torch.set_num_threads(1)
    (folder / "ours").mkdir(exist_ok=True)
    opened = open_store((folder / "url").read_text())
    Counted.total = 0
    sources = {entry.key.removeprefix(f"{TAG}/"): Counted(opened, entry.key, entry.size) for entry in opened.list(TAG)}
    with reading_ahead(read_checkpoint(sources, origin=TAG).tensors.values()) as tensors:
        shards = plan_shards(tensors, torch.bfloat16)
        digests = write_shards(shards, folder / "ours")
    start = time.perf_counter()
    if hash_written(shards, folder / "ours") != digests:
        raise RuntimeError("the written tensors differ from the read ones")
    (folder / "ours" / "read").write_text(str(Counted.total))
    return time.perf_counter() - start
