"""What the local launcher says before its ranks work."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from components.training.launch import launcher
from mantis.errors import MantisError
from mantis.logging import STEP
from mantis.progress import PROGRESS_DIR
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from pipelines.execution.resolve import resolve_run
from pipelines.execution.supervisor import View


class NotStartedError(MantisError):
    """Nothing is started here."""


def test_the_bar_says_that_the_ranks_are_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The imports of the ranks take seconds, in which the bar of `mantis run` would stand without a word."""
    monkeypatch.setenv(PROGRESS_DIR, str(tmp_path))
    monkeypatch.setenv(STEP, "train")
    shown = io.StringIO()
    view = View(Console(file=shown, width=100), tmp_path)

    def start(command: list[str], folder: Path) -> None:
        view.update()
        raise NotStartedError("Nothing is started here.", remedy="None.")

    monkeypatch.setattr(launcher, "_start", start)
    run_id, recipe = resolve_run("demo", {}, "")
    with pytest.raises(NotStartedError):
        launcher.LocalLauncher().launch(Run(id=run_id, store=LocalStore(tmp_path / "store"), recipe=recipe), "prefix")
    assert "starting: 0 of 2 ranks" in shown.getvalue()
