"""Test the network of the ranks, and their store: `torchrun -m components.training.launch.all_reduce [STORE]`.

Rank 0 prints one line of JSON: the hosts, seconds and GB/s of an all-reduce, and the network that NCCL chose. A problem
of the store is in it, too.
"""

import json
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from components.training.engine.deepspeed_engine import DistributedContext, join_ranks, leave_ranks
from components.training.launch.nccl_log import network_of
from mantis.artifacts.store_addresses import check_store
from mantis.errors import MantisError
from mantis.store.opening import open_store

BYTES = {"cpu": 1 << 25, "cuda": 1 << 30}
TIMES = 5


def main() -> None:
    """Sum a tensor over all ranks, check the sum, and time it."""
    log = Path(tempfile.mkdtemp(prefix="mantis-nccl-")) / "log"
    os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "NCCL_DEBUG_FILE": str(log)}
    ranks = join_ranks()
    hosts: list[str | None] = [None] * ranks.world_size
    dist.all_gather_object(hosts, socket.gethostname())
    size = BYTES[ranks.device.type]
    seconds = statistics.median(_seconds(ranks, size) for _ in range(TIMES))
    if ranks.is_main:
        # In a ring, each byte crosses the network 2 (n - 1) / n times. NCCL's tests call the result bus bandwidth.
        moved = 2 * (ranks.world_size - 1) / ranks.world_size * size
        found = {"ranks": ranks.world_size, "hosts": sorted(set(map(str, hosts))), "device": ranks.device.type}
        found |= {"seconds": seconds, "gb_per_second": moved / seconds / 1e9}
        # Bytes of memory that RDMA may pin; -1 means unlimited.
        found |= {"memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]}
        found |= {"network": network_of(log.read_text(errors="replace") if log.exists() else "")}
        found |= {"store": "".join(map(_store_problem, sys.argv[1:]))}
        print(json.dumps(found), flush=True)
    leave_ranks()


def _store_problem(url: str) -> str:
    """Return the reason why this machine cannot write, read or delete in a store; empty if it can."""
    try:
        check_store(open_store(url))
    except MantisError as error:
        return str(error)
    return ""


def _seconds(ranks: DistributedContext, size: int) -> float:
    tensor = torch.full((size // 4,), float(ranks.rank + 1), device=ranks.device)
    dist.barrier()
    start = time.perf_counter()
    dist.all_reduce(tensor)
    total = float(tensor[0])  # synchronizes with the device
    seconds = time.perf_counter() - start
    expected = ranks.world_size * (ranks.world_size + 1) / 2
    if total != expected or float(tensor[-1]) != expected:
        raise SystemExit(f"the sum over {ranks.world_size} ranks is {total}, not {expected}: the network corrupts data")
    return seconds


if __name__ == "__main__":
    main()
