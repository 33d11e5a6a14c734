"""A run that another process watches in MLflow: it is there before its first step, and closed in every kind of end."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mantis.runs.records import State, read_record, runs
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_database import DATABASE
from mantis.tracking.mlflow_runs import mlflow_client
from tests.fixtures.data import RawFolder
from tests.helpers.little_run import LITTLE
from tests.helpers.process_groups import kill_groups
from tests.helpers.waiting import HANG_SECONDS

WATCHED = (*LITTLE, "--set=training.seed=7")
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, mantis_environment: dict[str, str]) -> Iterator[Start]:
    """Start `mantis run demo` in a process group of its own."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(*given: str, ignored: bool = False) -> "subprocess.Popen[bytes]":
        def interrupts() -> None:  # a shell ignores them for its background processes
            signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

        command = [sys.executable, "-m", "pipelines.cli", "run", "demo", *WATCHED, *given]
        with (tmp_path / "said").open("wb") as said:
            children.append(
                subprocess.Popen(
                    command,
                    cwd=tmp_path,
                    env=mantis_environment,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                    preexec_fn=interrupts,
                )
            )
        return children[-1]

    yield begin
    kill_groups(children)


class Watcher:
    """What another process sees of the only run of a store."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / ".mantis")
        self._said = folder / "said"

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + HANG_SECONDS
        while not reached():
            assert time.monotonic() < end, self._said.read_text()
            time.sleep(0.1)

    def run(self) -> Any:
        """The run in MLflow; None before it is opened."""
        if not (self.store.root / DATABASE).exists():
            return None
        client = mlflow_client(self.store)
        found = client.search_runs([each.experiment_id for each in client.search_experiments()])
        return found[0] if found else None

    def sees_it_open(self) -> None:
        """Wait for the run, with all that is known of it before training."""
        self.until(lambda: (run := self.run()) is not None and bool(run.inputs.dataset_inputs))
        run, (name,) = self.run(), runs(self.store)
        assert read_record(self.store, name, "train") is None, "the run was opened too late"
        assert run.info.status == "RUNNING"
        assert (run.data.params["training.seed"], run.data.params["model.family"]) == ("7", "llava-clip")
        assert "training.seed = 7" in run.data.tags["changed"]
        assert {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit", "mlflow.note.content"} <= set(
            run.data.tags
        )

    def training(self) -> bool:
        """Whether the training has a checkpoint."""
        return any(self.store.root.glob("checkpoints/*/*/COMMIT"))

    def sees_it_end(self, status: str) -> Any:
        self.until(lambda: self.run().info.status != "RUNNING")
        run = self.run()
        assert run.info.status == status
        assert run.info.end_time > run.info.start_time
        return run


@pytest.mark.slow
def test_a_run_that_ends_by_itself(start: Start, tmp_path: Path) -> None:
    child, watcher = start(), Watcher(tmp_path)
    watcher.sees_it_open()
    run = watcher.sees_it_end("FINISHED")
    assert child.wait(HANG_SECONDS) == 0
    assert "score.demo-single" in run.data.metrics
    assert "[Report](#/experiments/" in run.data.tags["mlflow.note.content"]
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert last == f"runs    mantis ui --open --store {watcher.store.url}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_that_is_stopped_or_whose_launcher_is_killed(
    start: Start, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """The training saves a checkpoint first, and the run is closed by a process that is left."""
    child, watcher = start(ignored=sent == signal.SIGTERM), Watcher(tmp_path)
    watcher.sees_it_open()
    watcher.until(watcher.training)
    child.send_signal(sent)
    assert child.wait(HANG_SECONDS) == code
    watcher.sees_it_end("KILLED")
    (name,) = runs(watcher.store)
    record = read_record(watcher.store, name, "train")
    assert record is not None
    assert (record.state, record.reason[:7]) == (State.FAILED, "Stopped")


@pytest.mark.slow
def test_a_run_that_fails(start: Start, tmp_path: Path, raw_folder: RawFolder) -> None:
    raw_folder.write([raw_folder.row("away", "away.jpg")])
    child, watcher = start(f"--source={raw_folder.folder}", "--set=data.skills=[]"), Watcher(tmp_path)
    watcher.sees_it_open()
    run = watcher.sees_it_end("FAILED")
    assert child.wait(HANG_SECONDS) == 1
    assert any(name.startswith("failed.prepare-") for name in run.data.tags)
    assert "failed.**" in run.data.tags["mlflow.note.content"]
