"""Run a DAG locally with kfp.local: `python -m pipelines.kubeflow.run_dag PARAMETERS [PIPELINE]`.

`mantis run` starts it as a child process, so that it can draw progress and end all processes of the DAG.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path

from kfp import local

from mantis.logging import configure
from mantis.processes import die_with_parent
from mantis.runs.step_runner import DAG_PID

logger = logging.getLogger(__name__)


def main(parameters: str, pipeline: str = "instruction-tuning") -> int:
    """Run `pipeline` with `parameters` (JSON); 0 if every task succeeded."""
    signal.signal(signal.SIGTERM, _stop_tasks)
    die_with_parent()
    os.environ[DAG_PID] = str(os.getpid())
    configure()
    warnings.filterwarnings("ignore", message="You may be attemping to run a task")
    logging.getLogger().setLevel(logging.WARNING)
    from pipelines.execution.platform import Platform
    from pipelines.kubeflow.compile import PIPELINES

    with tempfile.TemporaryDirectory(prefix="mantis-kfp-") as folder:
        local.init(
            runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(Path(folder) / "root"), raise_on_error=True
        )
        try:
            PIPELINES[pipeline](Platform())(**json.loads(parameters))
        except RuntimeError as error:  # a task failed, and has logged why
            logger.error("The DAG stopped: %s", error)
            return 1
    return 0


def _stop_tasks(number: int, _: object) -> None:
    """Pass SIGTERM on to the tasks: `mantis run` was killed. The running step saves and fails, and `finish` runs.

    So MLflow shows the run as killed, and it does not stay running.
    """
    import psutil

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not psutil.Process().children():  # between two tasks
        raise SystemExit(128 + number)
    logger.warning("`mantis run` has ended. The running step is stopped, and the run is closed")
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
