"""Real faults on a real training, with MinIO behind a proxy and an MLflow server; it ends with the same bits."""

import io
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from components.data.step import assemble, prepare
from components.training.step import train, training_task
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.artifacts.manifest import Manifest
from mantis.hashing import sha256_bytes
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore, delete_tree
from mantis.tracking.mlflow_runs import RUN_TAG, curve_row, open_tracked_run, send_curve
from tests.fixtures.mlflow import MlflowServer
from tests.fixtures.training import MakeRun
from tests.helpers.committed_steps import until_committed
from tests.helpers.loopback import free_port
from tests.helpers.paths import ROOT
from tests.helpers.small_disk import small_disk_at
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow
STEPS = 42
OUTAGE_SECONDS = 60.0
SMALL_DISK = "400k"  # the launcher's files fit, a checkpoint does not


class Proxy:
    """A TCP proxy that can be taken away and brought back."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target, self._open = target, threading.Event()
        self._pairs: list[socket.socket] = []
        self.port = free_port()
        self._listen()

    def _listen(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._target)
            self._pairs += [client, upstream]
            threading.Thread(target=self._pump, args=(client, upstream), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, one, other:
            selector.register(one, selectors.EVENT_READ, other)
            selector.register(other, selectors.EVENT_READ, one)
            try:
                while True:
                    for key, _ in selector.select():
                        assert isinstance(key.fileobj, socket.socket)
                        data = key.fileobj.recv(1 << 16)
                        if not data:
                            return
                        key.data.sendall(data)
            except OSError:
                return

    def cut(self) -> None:
        """Refuse new connections and break those that are there."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._pairs:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was over already
        self._pairs.clear()

    def restore(self) -> None:
        """As before, at the same port."""
        self._listen()


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Digest of weights and moments, and rows, of a training that nothing disturbs."""

    digest: str
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def quiet(make_run: MakeRun) -> Quiet:
    """Digest of weights and moments, and rows, of a training that nothing disturbs."""
    run, mixture = make_run("quiet")
    manifest = train(run, mixture)
    prefix = manifest.key
    found = Quiet(digest=final_digest(run.store, prefix), rows=rows_of(run.store, prefix))
    delete_tree(run.store, prefix)
    return found


@dataclass(frozen=True, kw_only=True)
class Proxied:
    """A run whose store is MinIO, reached through the proxy."""

    run: Run
    mixture: Manifest
    proxy: Proxy


@pytest.fixture
def proxied(
    minio_store: ObjectStore, minio_url: str, monkeypatch: pytest.MonkeyPatch, raw_source: Path, make_run: MakeRun
) -> Iterator[Proxied]:
    """(run, mixture, proxy): the run's store is MinIO, reached through the proxy."""
    host, port = minio_url.removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    recipe = make_run("quiet")[0].recipe
    run = Run(id="faults", store=minio_store, recipe=recipe)
    run.store.put(run.key("recipe.yaml"), recipe.to_yaml().encode())
    mixture = assemble(run, [prepare(run, "colours")])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    yield Proxied(run=run, mixture=mixture, proxy=proxy)
    proxy.cut()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    """A file system that is too small for a checkpoint."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk_at(folder, SMALL_DISK):
        yield folder


def test_a_full_disk_ends_it_with_a_message_and_with_room_it_ends_bit_identical(
    quiet: Quiet, make_run: MakeRun, small_disk: Any
) -> None:
    run, mixture = make_run("full-disk")
    process = start(run, TMPDIR=str(small_disk))
    out = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 1, out
    assert "ERROR: The checkpoint of step 8 cannot be written" in out
    assert "Free space there" in out
    task = training_task(run, mixture)
    prefix = task.address()
    assert committed(run.store, prefix) == []

    assert train(run, mixture).key == prefix
    assert final_digest(run.store, prefix) == quiet.digest


def test_killed_then_cut_off_from_store_and_mlflow_it_ends_bit_identical(
    quiet: Quiet, proxied: Proxied, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    run, mixture, proxy = proxied.run, proxied.mixture, proxied.proxy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    task = training_task(run, mixture)
    prefix = task.address()
    mlflow_server.until_ready()

    killed = start(run)
    until_committed(run.store, prefix, step=8, process=killed)
    kill_all(killed)
    first = committed(run.store, prefix)[0]
    assert first < STEPS

    hurt = start(run)
    lines = follow(hurt, until=f"Training continues after step {first} ")
    # Behind the next checkpoint its tables are open, and the save after that has to wait.
    until_committed(run.store, prefix, step=first + 1, process=hurt)
    mlflow_server.kill()
    proxy.cut()
    time.sleep(OUTAGE_SECONDS)
    mlflow_server.start()
    mlflow_server.until_ready()  # it can take longer to start than the rest of the training
    proxy.restore()
    lines.append(hurt.communicate(timeout=HANG_SECONDS)[0])
    out = "".join(lines)
    assert "The store does not take the checkpoint, next try in" in out, "the save waits for the store"
    if hurt.returncode:  # an outage may cost an attempt, but with a message, and never what was saved
        assert "ERROR: " in out
        out = start(run).communicate(timeout=HANG_SECONDS)[0]
    assert "Traceback" not in out, out

    assert final_digest(run.store, prefix) == quiet.digest
    rows = rows_of(run.store, prefix)
    figures = ("step", "loss", "samples", "tokens", "learning_rate", "gradient_norm")
    assert [[row[name] for name in figures] for row in rows] == [[row[name] for name in figures] for row in quiet.rows]
    client = mlflow.MlflowClient(tracking_uri=mlflow_server.url)
    experiment = client.get_experiment_by_name("mantis").experiment_id
    (shown,) = client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{run.id}'")
    send_curve(open_tracked_run(run), map(curve_row, rows))  # as the run's last step: it may send what MLflow missed
    history = client.get_metric_history(shown.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == [row["step"] for row in rows]


def rows_of(store: Any, prefix: str) -> Any:
    return [json.loads(line) for line in store.get(f"{prefix}/metrics.jsonl").splitlines()]


def final_digest(store: Any, prefix: str) -> str:
    """SHA-256 over fp32 weights and both moments of every rank."""
    parts = []
    for entry in store.list(f"{prefix}/{step_folder(STEPS)}"):
        if entry.key.endswith("_optim_states.pt"):
            state = torch.load(io.BytesIO(store.get(entry.key)), weights_only=False)["optimizer_state_dict"]
            tensors = [*state["fp32_flat_groups"]]
            for moments in state["optimizer_state_dict"]["state"].values():
                tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
            parts += [tensor.detach().numpy().tobytes() for tensor in tensors]
    assert len(parts) >= 6
    return sha256_bytes(b"".join(parts))


def start(run: Run, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.helpers.train_stored_run", run.store.url, run.id]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )


def follow(process: "subprocess.Popen[str]", *, until: str) -> list[str]:
    """The lines up to the one with `until`."""
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if until in line:
            return lines
    raise AssertionError("".join(lines))


def kill_all(process: "subprocess.Popen[str]") -> None:
    """Launcher, torchrun and ranks at once."""
    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everybody:
        one.kill()
    psutil.wait_procs(everybody, timeout=HANG_SECONDS)
    process.wait()
    process.stdout.close()
