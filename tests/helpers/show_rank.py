"""Run a rank of torchrun_by_fork: it shows what it finds as a line of JSON, or the second rank ends early."""

import json
import os
import signal
import sys
import time

import psutil
import torch

from tests.helpers.waiting import HANG_SECONDS

INTERESTING = {"components", "deepspeed", "mlflow", "torch._inductor.compile_fx"}


def show(before: list[str]) -> None:
    from deepspeed.runtime.zero.utils import is_zero_supported_optimizer

    from components.training.engine.deepspeed_engine import join_ranks, leave_ranks

    ranks = join_ranks()
    found = {
        "rank": ranks.rank,
        "ranks": ranks.world_size,
        "parent": os.getppid(),
        "imported": before,
        "knows_adamw": is_zero_supported_optimizer(torch.optim.AdamW([torch.zeros(1)])),
        "compiler": "torch._inductor.compile_fx" in sys.modules,
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    }
    os.write(1, f"{json.dumps(found)}\n".encode())  # in one piece, beside the other rank
    leave_ranks()


def end_early(how: str) -> None:
    torch.distributed.init_process_group("gloo")
    pids = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    torch.distributed.all_gather(pids, torch.tensor([os.getpid()]))
    if torch.distributed.get_rank() == 0:
        other = psutil.Process(int(pids[1]))
        until = time.monotonic() + HANG_SECONDS
        while time.monotonic() < until and not (how == "both" and _has_ended(other)):
            time.sleep(0.001)
        sys.exit(1)  # as a rank does that loses another one
    how = "killed" if how == "both" else how
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(how))


def _has_ended(process: psutil.Process) -> bool:
    """Whether its parent can read its status. The first thread may be a zombie before the others have ended."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:  # its parent has read it
        return True


if __name__ == "__main__":
    if sys.argv[1] == "well":
        show(sorted(INTERESTING & set(sys.modules)))
    else:
        end_early(sys.argv[1])
