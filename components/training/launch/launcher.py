"""Choose a launcher, and start the ranks of one node."""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol

from components.training.monitoring.failures import FAILURES, describe_failure
from mantis import progress
from mantis.config.recipe import Recipe
from mantis.config.training_settings import TrainingSettings
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.models.registry import family_spec
from mantis.processes import die_with_parent, one_at_a_time, sigterm_raises
from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60  # between the request to stop and the kill of the ranks; long enough for a save
LINES_KEPT = 400
NOISE = re.compile(r"torch/distributed/run\.py|^\*{10,}$|OMP_NUM_THREADS environment variable|^W\d{4} .*run\.py")


class Launcher(Protocol):
    """Runs `python -m components.training` on every rank of a run and waits for the end."""

    def launch(self, run: Run, prefix: str) -> None:
        """Train the checkpoint under `prefix` of the store, and return after every rank has ended.

        Raises:
            TrainingError: a rank failed; the message names the rank and the reason.
        """
        ...


def launcher(settings: TrainingSettings) -> Launcher:
    """Return the launcher that the recipe names.

    Raises:
        ConfigError: the launcher cannot start the ranks that the recipe asks for.
    """
    if settings.launcher == "trainjob":
        from components.training.launch.trainjob import (
            TrainJobLauncher,
        )  # importing the Kubernetes client takes a second

        return TrainJobLauncher()
    if settings.nodes != 1:
        raise ConfigError(
            f"training.nodes = {settings.nodes}: the local launcher starts the ranks of one node alone.",
            remedy="Set training.nodes = 1 or training.launcher = trainjob, or start torchrun on each node yourself: "
            "torchrun ... -m components.training --help.",
        )
    return LocalLauncher()


class LocalLauncher:
    """Starts torchrun as a subprocess on this machine."""

    def launch(self, run: Run, prefix: str) -> None:
        with _turn(run), tempfile.TemporaryDirectory(prefix="mantis-train-") as scratch:
            folder = Path(scratch)
            recipe = folder / "recipe.yaml"
            recipe.write_text(run.recipe.to_yaml())
            # The imports of the ranks take seconds, and the ranks publish nothing before their first step.
            ranks = run.recipe.training.gpus_per_node
            progress.publish(state="running", label="starting", done=0, total=ranks, unit="ranks", note="")
            process = _start(_command(run, recipe), folder)
            lines: deque[str] = deque(maxlen=LINES_KEPT)
            reader = threading.Thread(target=_stream, args=(process.stdout, lines), daemon=True)
            reader.start()
            with sigterm_raises():
                try:
                    status = process.wait()
                except BaseException:  # Ctrl-C or SIGTERM: the ranks save first
                    _stop(process)
                    raise
            reader.join(5)
            if status != 0:
                raise describe_failure(status, folder, list(lines))


def _turn(run: Run) -> AbstractContextManager[None]:
    """Let arms of an ablation train one after the other, because they share this machine's devices."""
    if not run.parent:
        return nullcontext()
    name = f"{fingerprint([run.store.url, run.parent])}.turn"
    return one_at_a_time(name, lambda: logger.info("This arm waits until another one has trained on this machine"))


def _command(run: Run, recipe: Path) -> list[str]:
    options = ["--recipe", str(recipe), "--store", run.store.url, "--run-id", run.id]
    ranks = run.recipe.training.gpus_per_node
    return by_fork(ranks, "components.training", options, imports=shared_imports(run.recipe))


def by_fork(ranks: int, module: str, arguments: Sequence[str], *, imports: Sequence[str]) -> list[str]:
    """The command that runs `module` on the ranks of this machine, which share `imports` where there is no CUDA."""
    options = ["--ranks", str(ranks), *(f"--import={name}" for name in imports)]
    return [sys.executable, "-m", "components.training.launch.torchrun_by_fork", *options, module, *arguments]


def shared_imports(recipe: Recipe) -> list[str]:
    """The modules of a training that take seconds to import. Lance must not be imported before a fork."""
    model = f"{family_spec(recipe.model.family).package}.model"
    names = ["components.training.trainer_setup", "pyarrow.dataset", *([model] if find_spec(model) else [])]
    return names + (["peft"] if recipe.training.adapter else [])


def _start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        FAILURES: str(folder),
        "MANTIS_LAUNCHED_AT": str(time.time()),
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS - 2),  # torchrun's default is 30 s
    }
    # The ranks share the cores, so each has one thread unless the user sets another number.
    environment.setdefault("OMP_NUM_THREADS", "1")
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches the launcher alone, which then asks the ranks to save
        # KILL, not TERM: after the launcher's death a rerun may start at once, and only one may write the checkpoint.
        preexec_fn=partial(die_with_parent, signal.SIGKILL),
    )


def _stream(source: IO[str] | None, lines: deque[str]) -> None:
    for line in source or ():
        if not NOISE.search(line.rstrip()):
            lines.append(line.rstrip())
            sys.stderr.write(line)
            sys.stderr.flush()


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the ranks to save and exit. Kill them after the grace period or at a second Ctrl-C."""
    process.send_signal(signal.SIGTERM)  # torchrun forwards it to the ranks
    try:
        process.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
