"""torchrun for one node whose ranks share their imports: it imports the libraries once, and forks the ranks.

    python -m components.training.launch.torchrun_by_fork --ranks 2 --import transformers MODULE ARGUMENT...

Each rank runs MODULE as `__main__`. torchrun's own agent watches the ranks. With CUDA, each rank is a fresh process as
under torchrun, because CUDA does not survive a fork.
"""

import gc
import importlib
import runpy
import signal
import sys
import uuid
from argparse import REMAINDER, ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch.distributed.elastic.multiprocessing.api import MultiprocessContext, RunProcsResult
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mantis.processes import end_process

POLL_RETURNS = MultiprocessContext._poll
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by torchrun's agent, until the fork


@record
def main(arguments: Sequence[str] | None = None) -> None:
    """Start the ranks, and wait for their end.

    Raises:
        ChildFailedError: a rank failed; its message is torchrun's report.
    """
    options = _parser().parse_args(arguments)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=options.ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
        local_addr="localhost",
    )
    if torch.cuda.is_available():
        elastic_launch(config, sys.executable)("-m", options.module, *options.arguments)
        return
    for name in options.imports:
        importlib.import_module(name)
    # The agent waits for what each rank returns. A rank that ends by itself, as leave_ranks does, returns nothing.
    MultiprocessContext._poll = _poll_statuses  # type: ignore[assignment, method-assign]
    gc.freeze()  # a rank's collector would copy every page that it looks at
    elastic_launch(config, _run)(options.module, options.arguments)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m components.training.launch.torchrun_by_fork")
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="NAME")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=REMAINDER)
    return parser


def _run(module: str, arguments: Sequence[str]) -> NoReturn:
    """Run `module` in a forked process, in which the agent has set the variables of a rank."""
    for number in HANDLED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
    end_process(0)


def _poll_statuses(context: MultiprocessContext) -> RunProcsResult | None:
    """The result of the ranks, once one has failed or all have ended with status 0; None before.

    The agent's own poll names one failed rank. A rank that lost a killed one may end before the next poll. So the
    result names every rank that had failed by then.
    """
    assert context._pc is not None
    processes = context._pc.processes
    statuses = [process.exitcode for process in processes]
    if all(status is None for status in statuses):
        return None  # the next poll sees those that end now, all of them
    found = POLL_RETURNS(context)
    if found is not None and found.is_failed():
        for rank, (process, status) in enumerate(zip(processes, statuses, strict=True)):
            if status and rank not in found.failures:
                found.failures[rank] = ProcessFailure(rank, process.pid, status, context.error_files[rank])
    if found is not None or context._pc is None or context._pc.sentinels:
        return found
    context.close()
    return RunProcsResult(
        return_values=dict.fromkeys(range(context.nprocs)), stdouts=context.stdouts, stderrs=context.stderrs
    )


if __name__ == "__main__":
    main()
