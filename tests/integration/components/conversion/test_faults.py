"""A kill and a full disk: nothing half-written is a model, and a rerun completes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.conversion.step import convert
from mantis.artifacts.manifest import check_files, read_manifest
from mantis.errors import ConversionError, MantisError
from mantis.store.base import ObjectStore
from tests.fixtures.conversion import MakeTrainedRun
from tests.helpers.paths import root_of
from tests.helpers.small_disk import small_disk_at


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB, less than the tiny model."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk_at(folder, "300k"):
        yield folder


def models(store: ObjectStore) -> list[str]:
    return [prefix for prefix in store.children("models")[1] if read_manifest(store, prefix) is not None]


def test_a_full_scratch_disk_is_said_and_a_rerun_completes(
    trained_run: MakeTrainedRun, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checkpoint = trained_run()
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(ConversionError, match=r"cannot take .* No space left.*TMPDIR"):
        convert(run, checkpoint)
    assert list(run.store.list("models")) == []
    monkeypatch.undo()
    assert check_files(run.store, convert(run, checkpoint)) == []


def test_a_full_store_is_said_and_a_rerun_completes(
    trained_run: MakeTrainedRun, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checkpoint = trained_run()
    (root_of(run.store) / "models").symlink_to(small_disk)
    with pytest.raises(MantisError, match="No space left"):
        convert(run, checkpoint)
    assert models(run.store) == []
    (root_of(run.store) / "models").unlink()
    assert check_files(run.store, convert(run, checkpoint)) == []


RUN = """
import pickle, sys, time
import components.conversion.convert_checkpoint
from components.conversion.step import convert
from mantis.runs.step_runner import Run
run, checkpoint = pickle.load(open(sys.argv[1], "rb"))
print("ready", flush=True)
convert(run, checkpoint)
"""


@pytest.mark.slow
def test_a_kill_at_any_time_leaves_no_model_and_a_rerun_completes(trained_run: MakeTrainedRun, tmp_path: Path) -> None:
    import pickle

    run, checkpoint = trained_run()
    (tmp_path / "arguments").write_bytes(pickle.dumps((run, checkpoint)))
    command = [sys.executable, "-c", RUN, str(tmp_path / "arguments")]
    clock = random.Random(11)
    seconds = 4.0
    for _ in range(4):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(clock.uniform(0.0, seconds))
        child.send_signal(signal.SIGKILL)
        child.wait()
        for prefix in models(run.store):
            found = read_manifest(run.store, prefix)
            assert found is not None
            assert check_files(run.store, found) == []  # it was quicker than the kill
            shutil.rmtree(root_of(run.store) / prefix)
    assert check_files(run.store, convert(run, checkpoint)) == []
