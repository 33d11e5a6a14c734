"""A back-up of bucket and MLflow, and what it is worth: a cluster is lost, and a run goes on in another one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from components.data.step import assemble, prepare
from components.training.step import train, training_task
from mantis.artifacts.checkpoint import committed
from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import Status, find_tracked_run, open_tracked_run
from pipelines.execution.finalize import record_end
from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY, running_minio
from tests.fixtures.training import RECIPE
from tests.helpers.backup import Secrets, run_job
from tests.helpers.bootstrap import READER, WRITER, make_users
from tests.helpers.paths import ROOT
from tests.helpers.tracking_server import patiently, tracking_server
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

STEPS = 42  # 250 rows in batches of 6


def client(url: str) -> Minio:
    return Minio(url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


def keys_of(url: str, keys: tuple[str, str]) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
    }


def secrets(store: str, copy: str) -> Secrets:
    kept = {"ENDPOINT": copy, "REGION": "us-east-1", "BUCKET": "copy"}
    return {
        "mantis-store": keys_of(store, WRITER),
        "mantis-store-read": keys_of(store, READER),
        "mantis-backup": kept | {"ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY},
    }


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[str]:
    """The service that keeps the back-up, with an empty bucket."""
    with running_minio(tmp_path / "copy") as url:
        client(url).make_bucket("copy")
        yield url


@contextmanager
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch, *, before: str = "", copy: str = "") -> Iterator[str]:
    """MinIO and MLflow as the manifests set them up; yields the address of the store.

    `before` is a Job that runs while MLflow is down.
    """
    (folder / "mlflow").mkdir(parents=True)
    with running_minio(folder / "minio") as url:
        make_users(folder / "secrets", url)
        if before:
            run_job(before, secrets(url, copy), folder / "mlflow")
        with tracking_server(folder / "mlflow") as tracking:
            for name, value in (keys_of(url, WRITER) | tracking.environment()).items():
                monkeypatch.setenv(name, value)
            yield url


def run_in_bucket(raw_source: Path) -> Run:
    recipe = parse_recipe(RECIPE, origin="the test's recipe", overrides={"data.source": str(raw_source)})
    return Run(id="colours", store=open_store("s3://mantis"), recipe=recipe)


def train_until_a_checkpoint_and_die(run: Run, prefix: str, log: Path) -> None:
    """Kill a training as soon as it has a checkpoint."""
    command = [sys.executable, "-m", "tests.helpers.train_stored_run", run.store.url, run.id]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stdout=output, stderr=output
        )
    try:
        end = time.monotonic() + HANG_SECONDS
        while not committed(run.store, prefix):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def steps_in_mlflow(run: Run) -> list[int]:
    """The steps of the curve, once the end of the run is recorded as `finish` records it."""
    end = time.monotonic() + HANG_SECONDS
    while True:
        record_end(run, Status.FINISHED)
        tracked = patiently(lambda: find_tracked_run(run))
        steps = [metric.step for metric in tracked.client.get_metric_history(tracked.id, "train/loss")]
        if (steps and steps[-1] == STEPS) or time.monotonic() > end:
            return steps


def test_a_run_goes_on_in_an_empty_cluster_that_is_restored(
    raw_source: Path, tmp_path: Path, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path / "lost", monkeypatch) as url:
        run = run_in_bucket(raw_source)
        run.store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
        mixture = assemble(run, [prepare(run, "colours")])
        prefix = training_task(run, mixture).address()
        tracked = patiently(lambda: open_tracked_run(run))  # as `preflight` does
        train_until_a_checkpoint_and_die(run, prefix, tmp_path / "training.log")
        saved = committed(run.store, prefix)
        run_job("back-up", secrets(url, copy), tmp_path / "lost/mlflow")
    assert saved[0] < STEPS

    with cluster(tmp_path / "new", monkeypatch, before="restore", copy=copy):
        run = run_in_bucket(raw_source)
        assert committed(run.store, prefix) == saved
        assert patiently(lambda: find_tracked_run(run)).id == tracked.id
        manifest = train(run, mixture)
        assert manifest.key == prefix
        steps = steps_in_mlflow(run)
        assert steps[0] == 1
        assert steps[-1] == STEPS
        assert len(steps) == len(set(steps))
        assert committed(run.store, prefix)[0] == STEPS


def test_what_a_later_back_up_replaces_or_deletes_is_kept_aside(tmp_path: Path, copy: str) -> None:
    with running_minio(tmp_path / "minio") as url:
        make_users(tmp_path / "secrets", url)
        store = client(url)
        for name in ("kept", "replaced", "deleted"):
            (tmp_path / name).write_text(name)
            store.fput_object("mantis", f"a/{name}", str(tmp_path / name))
        run_job("back-up", secrets(url, copy), tmp_path)
        assert objects(copy) == {f"bucket/a/{name}": name for name in ("kept", "replaced", "deleted")}
        time.sleep(1.1)  # S3 dates objects by the second
        (tmp_path / "replaced").write_text("REPLACED")  # of the same size
        store.fput_object("mantis", "a/replaced", str(tmp_path / "replaced"))
        store.remove_object("mantis", "a/deleted")
        run_job("back-up", secrets(url, copy), tmp_path)
    found = objects(copy)
    now = {name: text for name, text in found.items() if name.startswith("bucket/")}
    assert now == {"bucket/a/kept": "kept", "bucket/a/replaced": "REPLACED"}
    old = {name.split("/", 2)[2]: text for name, text in found.items() if name.startswith("old/")}
    assert old == {"bucket/a/replaced": "replaced", "bucket/a/deleted": "deleted"}


def objects(url: str) -> dict[str, str]:
    found = client(url).list_objects("copy", recursive=True)
    return {
        str(each.object_name): client(url).get_object("copy", str(each.object_name)).read().decode() for each in found
    }
