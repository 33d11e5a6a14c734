"""A store that was copied, renamed or put into a bucket works there, and the old place stays as it is."""

import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest

from mantis.store.base import upload_tree
from mantis.store.opening import open_store
from tests.helpers.loopback import free_port, until_healthy
from tests.helpers.waiting import HANG_SECONDS

SMALL = (
    "--set=data.generated_conversations=100",
    "--set=evaluation.samples_per_skill=4",
    "--set=training.max_steps=3",
)
RUNS = ("first", "second")
REUSED = ("prepare-demo-multi", "prepare-demo-single", "assemble", "contamination", "train", "convert")
TEXTS = {".json", ".jsonl", ".yaml", ".html", ".md", ".txt", ".jinja", ""}


@pytest.fixture(scope="module")
def made(mantis: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs of one recipe, the second of which took every result of the first."""
    folder = tmp_path_factory.mktemp("made")
    for name in RUNS:
        done = mantis("run", "demo", *SMALL, f"--name={name}", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / ".mantis"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def mlflow_runs(folder: Path) -> dict[str, str]:
    """MLflow's id of each run, by our id."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    ids = {run.data.tags["mantis.run"]: run.info.run_id for run in found}
    assert len(ids) == len(found), "a run is there twice"
    return ids


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The store at its new address, and how to call `mantis` on it."""

    url: str
    mantis: Any
    folder: Path  # where commands are started

    def call(self, *arguments: object) -> str:
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        done = self.mantis(*arguments, cwd=self.folder, MANTIS_STORE=self.url, **keys)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)


@pytest.fixture(
    params=[
        "minio",
        pytest.param("copied", marks=pytest.mark.slow),
        pytest.param("renamed", marks=pytest.mark.slow),
    ]
)
def moved(request: pytest.FixtureRequest, made: Path, mantis: Any, tmp_path: Path) -> Iterator[Moved]:
    """After the test, the old place has to be what it was: untouched, or not there."""
    if request.param == "minio":
        store = request.getfixturevalue("minio_store")
        upload_tree(open_store(f"s3://{store.bucket}"), store.prefix, made)
        before = listing(made)
        yield Moved(url=store.url, mantis=mantis, folder=tmp_path)
        assert listing(made) == before
        return
    new = tmp_path / "elsewhere"
    shutil.copytree(made, new)
    aside = made.rename(made.parent / "aside") if request.param == "renamed" else made
    before = listing(aside)
    try:
        yield Moved(url=new.as_uri(), mantis=mantis, folder=tmp_path)
        assert listing(aside) == before
        assert (aside == made) == made.exists()
    finally:
        aside.rename(made)


def test_everything_works_at_the_new_address(moved: Moved, made: Path) -> None:
    store, call = open_store(moved.url), moved.call
    known = mlflow_runs(made if made.exists() else made.parent / "aside")
    local = moved.folder / (".mantis" if moved.url.startswith("s3:") else "elsewhere")
    shutil.rmtree(local / "mlflow-artifacts", ignore_errors=True)
    output = call("run", "demo", *SMALL, "--name=first")
    for step in (*REUSED, "evaluate-demo-multi", "evaluate-demo-single", "report"):
        assert re.search(rf"^{step} +result was already there$", output, re.MULTILINE), output
    assert "demo-multi" in call("compare", *RUNS)
    page = store.get("reports/first/report.html").decode()
    commands = re.findall(r"mantis (lineage [^<\n]+)", page)
    assert any("#" in command for command in commands)
    for command in commands:
        assert "Every recorded byte is unchanged" in call(*shlex.split(html.unescape(command)))
    assert "0 results" in call("gc")
    assert call("report", "first", "--no-open")
    assert "models/" in call("status", "first")
    evaluation = commands[-1].split()[1]
    assert "accuracy" in call("rescore", evaluation)

    ids = mlflow_runs(local)
    if not moved.url.startswith("s3:"):  # the database moved with the store: no run is there twice
        assert ids == known
    kept = local / "mlflow-artifacts" / ids["first"] / "artifacts"
    assert {path.name for path in kept.iterdir()} == {"report.html", "report.md", "summary.json", "scores.json"}


def strings_of(path: Path) -> str:
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), default=str)
    return path.read_bytes().decode(errors="replace")


def test_nothing_that_is_stored_names_the_place_of_its_store(made: Path) -> None:
    texts = [path for path in made.rglob("*") if path.is_file() and path.suffix in TEXTS | {".parquet", ".db"}]
    assert {path.suffix for path in texts} >= {".json", ".jsonl", ".yaml", ".html", ".md", ".parquet", ".db"}
    assert [str(path.relative_to(made)) for path in texts if str(made) in strings_of(path)] == []


@pytest.fixture
def page(made: Path, tmp_path: Path, mantis_environment: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """`mantis ui` on a copy of the store: the address of its page, and the copy."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    port = free_port()
    command = [sys.executable, "-m", "pipelines.cli", "ui", "--port", str(port), "--store", copy.as_uri()]
    with (tmp_path / "ui.log").open("w") as log:
        child = subprocess.Popen(
            command, cwd=tmp_path, env=mantis_environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until_healthy(url, child, tmp_path / "ui.log")
        yield url, copy
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@pytest.mark.slow
def test_the_page_of_a_copy_shows_the_reports_of_the_copy(page: tuple[str, Path], made: Path) -> None:
    url, copy = page
    run = mlflow_runs(copy)["first"]
    report = copy / "mlflow-artifacts" / run / "artifacts" / "report.md"
    report.write_text("of the copy")
    before = listing(made)
    with urllib.request.urlopen(f"{url}/get-artifact?path=report.md&run_uuid={run}", timeout=HANG_SECONDS) as answer:
        assert answer.read() == b"of the copy"
    assert listing(made) == before
