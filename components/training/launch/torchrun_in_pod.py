"""torchrun for a pod of a TrainJob: `python -m components.training.launch.torchrun_in_pod -m components.training ...`.

It takes torchrun's arguments, and starts the ranks as torchrun does. After a failure, its log ends with the cause and
the remedy, not with torchrun's report. Its exit status says whether another attempt can succeed: the runtime's
podFailurePolicy ends the job on FINAL (manifests/base/runtime.yaml).
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
# torch reads it at its import. Its agent warns of each connection that the end of node 0 closes.
os.environ.setdefault(LOG_LEVEL, "ERROR")

from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: E402
from torch.distributed.run import parse_args, run  # noqa: E402

from components.training.monitoring.failures import TERMINATION_LOG, Failure, parse_failure  # noqa: E402
from mantis.errors import MantisError  # noqa: E402
from mantis.logging import configure  # noqa: E402

logger = logging.getLogger(__name__)

FINAL = 78  # EX_CONFIG of sysexits.h; the same number is in manifests/base/runtime.yaml
AGENT = "torch.distributed.elastic.agent.server.api"
BARRIER = "Error waiting on exit barrier"  # of a node that ends after node 0: the training has succeeded
CAUSE_SECONDS = 20.0  # for the pod with the cause to end first; this pod only lost a connection


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ranks of this pod; the exit status of the pod."""
    configure()
    os.environ.pop(LOG_LEVEL, None)  # the ranks keep their warnings
    logging.getLogger(AGENT).addFilter(lambda record: not str(record.msg).startswith(BARRIER))
    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        return _failed(error)
    except SignalException as stopped:
        logger.warning("The pod was asked to stop by %s", stopped.sigval.name)
        return 128 + int(stopped.sigval)
    return 0


def _failed(error: ChildFailedError) -> int:
    """Say why the ranks failed; FINAL if every attempt would fail in the same way."""
    failure = _left_failure()
    if failure is None:
        logger.error("torchrun reports:\n%s", error)
        if all(each.exitcode > 0 for each in error.failures.values()):
            # A Job counts its first failed pod. Else JobSet would start again what cannot succeed.
            logger.error("Only the loss of other ranks was seen here. Look at the logs of the other pods.")
            time.sleep(CAUSE_SECONDS)
        return 1
    if not failure.expected:
        logger.error("torchrun reports:\n%s", error)
    remedy = failure.remedy or "JobSet starts all ranks again from the last committed checkpoint."
    logger.error("Rank %d ended the training: %s", failure.rank, MantisError(failure.problem, remedy=remedy))
    return FINAL if failure.final else 1


def _left_failure() -> Failure | None:
    """What the ranks of this pod left about the cause; None if they left nothing."""
    log = os.environ.get(TERMINATION_LOG, "")
    return parse_failure(Path(log).read_text()) if log and Path(log).exists() else None


if __name__ == "__main__":
    sys.exit(main())
