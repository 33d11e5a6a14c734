import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from components.data.step import assemble, prepare
from mantis.artifacts.manifest import Manifest
from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
RECIPE = """
name: tiny
model:
  prompt: compact
  from_scratch: {vision_width: 32, vision_layers: 1, vision_heads: 2, text_width: 32, text_layers: 1, text_heads: 2}
data: {context_length: 512}
training:
  epochs: 1
  global_batch_size: 6
  learning_rate: 2.0e-3
  schedule: {kind: linear, warmup_ratio: 0.1, flat_ratio: 0.5}
  precision: fp32
  gradient_checkpointing: false
  train: [vision, projector, text]
  token_budget: 120
  checkpoint_every: 8
  log_every: 5
"""


def write_raw(folder: Path, count: int) -> None:
    """Questions about the colours of one to three plain images, and every fifth one without an image."""
    generator = random.Random(0)
    (folder / "images").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (48, 48), colour).save(folder / "images" / f"{name}.jpg", quality=90)
    rows = []
    for index in range(count):
        names = [] if index % 5 == 4 else generator.choices(list(COLOURS), k=generator.randint(1, 3))
        question = " ".join(["<image>"] * len(names) + ["Which colours?" if names else f"What is {index} plus one?"])
        answer = ", then ".join(names) if names else str(index + 1)
        conversation = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        images = [f"images/{name}.jpg" for name in names]
        rows.append({"id": f"colours-{index}", "images": images, "conversation": conversation})
    (folder / "train.json").write_text(json.dumps(rows))


@pytest.fixture(scope="session")
def raw_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("raw")
    write_raw(source / "colours", 250)
    return source


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def make_run(raw_source: Path, shared_store: LocalStore) -> Callable[..., tuple[Run, Manifest]]:
    """A run with its mixture, made by the data steps themselves the first time and found there afterwards."""

    def make(name: str, **overrides: str) -> tuple[Run, Manifest]:
        changes = {"data.source": str(raw_source)} | {key.replace("__", "."): value for key, value in overrides.items()}
        run = Run(
            id=name, store=shared_store, recipe=parse_recipe(RECIPE, origin="the test's recipe", overrides=changes)
        )
        run.store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
        return run, assemble(run, [prepare(run, "colours")])

    return make


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a script of this folder on `ranks` ranks."""

    def start(script: str, ranks: int, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command += [str(Path(__file__).parent / script), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    return start


class MlflowServer:
    """A real server on SQLite that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--workers", "1"]
        command += ["--default-artifact-root", str(self._folder / "artifacts")]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def until_ready(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("no MLflow within two minutes")

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path)
    yield server
    server.kill()
