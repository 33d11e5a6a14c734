"""Who starts the ranks."""

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
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Protocol

from components.training.monitoring.failures import FAILURES, describe_failure
from mantis.config.training_settings import TrainingSettings
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.processes import die_with_parent, one_at_a_time, sigterm_raises
from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60  # from the request to stop until the ranks are killed; a save has to fit into it
LINES_KEPT = 400
NOISE = re.compile(r"torch/distributed/run\.py|^\*{10,}$|OMP_NUM_THREADS environment variable|^W\d{4} .*run\.py")


class Launcher(Protocol):
    """Runs `python -m components.training` on every rank of a run and waits for the end."""

    def launch(self, run: Run, prefix: str) -> None:
        """Train what belongs under `prefix`; returns when every rank is done.

        Raises:
            TrainingError: a rank failed; says which one and why.
        """
        ...


def launcher(settings: TrainingSettings) -> Launcher:
    """The launcher that the recipe names.

    Raises:
        ConfigError: it cannot do what the recipe asks for.
    """
    if settings.launcher == "trainjob":
        from components.training.launch.trainjob import TrainJobLauncher  # the cluster's client takes a second

        return TrainJobLauncher()
    if settings.nodes != 1:
        raise ConfigError(
            f"training.nodes = {settings.nodes}: the local launcher starts the ranks of one node.",
            remedy="Set training.nodes = 1, or training.launcher = trainjob, or start torchrun on each node yourself: "
            "torchrun ... -m components.training --help.",
        )
    return LocalLauncher()


class LocalLauncher:
    """torchrun as a subprocess on this machine."""

    def launch(self, run: Run, prefix: str) -> None:
        with _turn(run), tempfile.TemporaryDirectory(prefix="mantis-train-") as scratch:
            folder = Path(scratch)
            recipe = folder / "recipe.yaml"
            recipe.write_text(run.recipe.to_yaml())
            process = _start(_command(run, recipe), folder)
            lines: deque[str] = deque(maxlen=LINES_KEPT)
            reader = threading.Thread(target=_stream, args=(process.stdout, lines), daemon=True)
            reader.start()
            with sigterm_raises():
                try:
                    status = process.wait()
                except BaseException:  # Ctrl-C, SIGTERM: the ranks save before this goes on
                    _stop(process)
                    raise
            reader.join(5)
            if status != 0:
                raise describe_failure(status, folder, list(lines))


def _turn(run: Run) -> AbstractContextManager[None]:
    """Arms of an ablation train one after the other: they share this machine's devices."""
    if not run.parent:
        return nullcontext()
    name = f"{fingerprint([run.store.url, run.parent])}.turn"
    return one_at_a_time(name, lambda: logger.info("This arm waits until another one has trained on this machine"))


def _command(run: Run, recipe: Path) -> list[str]:
    processes = run.recipe.training.gpus_per_node
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    entry = ["-m", "components.training", "--recipe", str(recipe), "--store", run.store.url, "--run-id", run.id]
    return torchrun + entry


def _start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        FAILURES: str(folder),
        "MANTIS_LAUNCHED_AT": str(time.time()),
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS - 2),  # torchrun's own patience with its ranks is 30 s
    }
    # One thread per rank unless somebody chose otherwise: the ranks share the cores.
    environment.setdefault("OMP_NUM_THREADS", "1")
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches the launcher alone, which then asks the ranks to save
        # KILL, not TERM: with the launcher gone a rerun may start at once, and two must not write one address.
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),
    )


def _stream(source: IO[str] | None, lines: deque[str]) -> None:
    for line in source or ():
        if not NOISE.search(line.rstrip()):
            lines.append(line.rstrip())
            sys.stderr.write(line)
            sys.stderr.flush()


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the ranks to save and leave; kill them after the grace period or at a second Ctrl-C."""
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    try:
        process.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
