"""Run modules of this folder on several ranks with torchrun."""

import os
import subprocess
import sys


def on_ranks(ranks: int, module: str, *arguments: object, **popen: object) -> "subprocess.CompletedProcess[str]":
    """Run `python -m benchmarks.MODULE ARGUMENTS` on `ranks` ranks with one thread each.

    Raises:
        CalledProcessError: a rank failed, unless `check=False`.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += ["-m", f"benchmarks.{module}", *map(str, arguments)]
    options = {"check": True, "text": True, "env": os.environ | {"OMP_NUM_THREADS": "1"}} | popen
    return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]
