"""Ranks as forks of one process that has imported everything: an import of DeepSpeed for each rank takes a minute."""

import os
import sys
import traceback
from collections.abc import Callable

from tests.helpers.loopback import free_port


def fork_ranks(world: int, work: Callable[[], object]) -> None:
    """Call `work` on `world` ranks, which find each other as those of torchrun do.

    Raises:
        SystemExit: a rank failed. Its traceback is on stderr.
    """
    port = free_port()
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _run_rank(rank, world, port, work)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        sys.exit("a rank failed")


def _run_rank(rank: int, world: int, port: int, work: Callable[[], object]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
