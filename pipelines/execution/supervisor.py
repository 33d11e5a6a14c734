"""Start the DAG of `mantis run` as a child process, draw its steps, and end all processes on Ctrl-C."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mantis.artifacts.layout import log_key
from mantis.errors import ConfigError, MantisError, StoreError
from mantis.hashing import fingerprint
from mantis.processes import one_at_a_time
from mantis.progress import PROGRESS_DIR, clock_text
from mantis.runs.arms import arms_of
from mantis.runs.records import STOPPED, State, StepRecord, read_records, was_stopped
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
GRACE_SECONDS = 60  # enough for training to save a checkpoint


class InterruptedRunError(MantisError):
    """The user pressed Ctrl-C, or the process received SIGTERM."""

    exit_code = 130  # the convention of shells


@dataclass
class View:
    """Shows one line per started step, with a progress bar if its length is known."""

    console: Console
    folder: Path
    tasks: dict[str, TaskID] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]:<30}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]:<13}"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self.progress = Progress(*columns, console=self.console, transient=False)

    def update(self) -> None:
        """Read the state that the steps have published since the last call."""
        for path in sorted(self.folder.glob("*.json"), key=lambda item: item.stat().st_ctime_ns):
            try:
                state = json.loads(path.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            self._show(path.stem, state)

    def _show(self, step: str, state: dict[str, Any]) -> None:
        if not self.console.is_terminal:
            self._line(step, state)
            return
        if step not in self.tasks:
            self.tasks[step] = self.progress.add_task(step, total=None, figures="", left="", note="")
        task = self.tasks[step]
        if state["state"] == "running":
            total = state["total"]
            figures = f"{state['done']:,}" + (f" of {total:,}" if total is not None else "") + f" {state['unit']}"
            note = f"{state['label']}  {state['note']}"
            self.progress.update(
                task, total=total, completed=state["done"], figures=figures, left=_left(state), note=note
            )
        elif state["state"] != State.STARTED:
            words = {State.DONE: "done", State.REUSED: "result was already there", State.FAILED: _failed(state)}
            self.progress.update(task, total=1, completed=1, figures=words[State(state["state"])], left="", note="")
            self.progress.stop_task(task)

    def _line(self, step: str, state: dict[str, Any]) -> None:
        word = state["state"]
        if word == "running":
            share = int(10 * state["done"] / state["total"]) if state["total"] else 0
            text = f"{state['label']}: {state['done']:,} of {state['total'] or '?'} {state['unit']}  {state['note']}"
            text = "  ".join(filter(None, [text.rstrip(), _left(state)]))
            word = f"running-{state['label']}-{share}"
        else:
            text = {"reused": "result was already there", "failed": _failed(state)}.get(word, word)
            if word == State.DONE:
                text += f" in {state['seconds']:.1f} s"
        if self.shown.get(step) != word:
            self.shown[step] = word
            self.console.print(f"{step:<22} {text}", highlight=False, markup=False)


def _left(state: dict[str, Any]) -> str:
    left = state.get("left")
    return "" if left is None else f"{clock_text(left)} left"


def _failed(state: dict[str, Any]) -> str:
    return "stopped" if state["reason"].startswith(STOPPED) else "failed"


def run_dag(run: Run, parameters: dict[str, Any], console: Console, pipeline: str = "instruction-tuning") -> None:
    """Run the DAG of `pipeline` to its end.

    Raises:
        MantisError: a step failed, with its own reason, or the same run is in progress already.
        InterruptedRunError: the user pressed Ctrl-C. Every process of the run has ended.
    """
    with only_one(run), tempfile.TemporaryDirectory(prefix="mantis-run-") as folder, _log(run) as log:
        view = View(console, Path(folder))
        environment = os.environ | {PROGRESS_DIR: folder, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "pipelines.kubeflow.run_dag", json.dumps(parameters), pipeline]
        before = {step: record.started for step, record in _records(run).items()}
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_heed_interrupts,
            )
        with _interruptible(), view.progress:
            try:
                while child.poll() is None:
                    time.sleep(REFRESH_SECONDS)
                    view.update()
            except KeyboardInterrupt:
                console.print("Stopping. Training saves a checkpoint first. Ctrl-C again ends it at once.")
                _end(child)
                raise InterruptedRunError("Stopped.", remedy="Repeat the command to continue from there.") from None
            finally:
                _end(child)
            view.update()
        if child.returncode != 0:
            raise MantisError(_why(run, before, log), remedy=f"Read the whole log in {log}.")


def _why(run: Run, before: dict[str, str], log: Path) -> str:
    now = _records(run)
    failed = {
        step: record.reason
        for step, record in now.items()
        if record.state is State.FAILED and before.get(step) != record.started
    }
    if failed:
        return "\n".join(f"{step} failed: {reason}" for step, reason in failed.items())
    started = [step for step, record in now.items() if record.state is State.STARTED]
    if started:
        return f"{started[-1]} was killed before it could report a reason."
    tail = log.read_text(errors="replace").splitlines()[-10:]
    return "The DAG stopped before any step began:\n" + "\n".join(tail)


def _records(run: Run) -> dict[str, StepRecord]:
    """Return the records of the run, and of its arms, by the names that users see."""
    each = [run, *(replace(run, id=arm, parent=run.id) for arm in arms_of(run.store, run.id))]
    return {one.shown(record.step): record for one in each for record in read_records(run.store, one.id)}


@contextmanager
def _log(run: Run) -> Iterator[Path]:
    """The file of the run's log. It lies with the run in a local store; a store elsewhere gets it at the end.

    MANTIS_LOG_DIR names another folder.
    """
    given, key = os.environ.get("MANTIS_LOG_DIR"), log_key(run.id)
    in_place = run.store.root / key if isinstance(run.store, LocalStore) and not given else None
    path = in_place or Path(given or Path.cwd() / ".mantis" / "logs") / f"{run.id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        if in_place is None and not given:
            try:
                run.store.put_file(key, path)
            except StoreError as error:  # the run has ended, and its log is on this machine
                logger.warning("The log stays in %s: %s", path, error)


def _heed_interrupts() -> None:
    """Let the DAG take SIGINT, by which `_end` stops it. A shell ignores SIGINT for its background processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Send Ctrl-C to the whole process group, then SIGKILL to processes that do not end in time."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGINT)
    try:
        child.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def only_one(run: Run) -> AbstractContextManager[None]:
    """Refuse a second process with the same run on this machine, because both would write the same checkpoints."""

    def refuse() -> None:
        raise ConfigError(
            f"run = {run.id!r} is in progress in another process.",
            remedy="Wait for its end, which `mantis status` shows, or change the recipe or --name.",
        )

    return one_at_a_time(f"{fingerprint([run.store.place, run.id])}.lock", refuse)


def explain(records: list[StepRecord]) -> str:
    """Summarize the state of a run in one word, from its records."""
    if any(record.state is State.FAILED and not was_stopped(record) for record in records):
        return "failed"
    if any(was_stopped(record) for record in records):
        return "stopped"
    if any(record.step == "report" and record.state in (State.DONE, State.REUSED) for record in records):
        return "done"
    return "unfinished"
