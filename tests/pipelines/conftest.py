import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from components.training.launch.trainjob_spec import RUN_LABEL

Mantis = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def mantis_environment() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MANTIS_"))}
    return environment | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def mantis(mantis_environment: dict[str, str]) -> Mantis:
    """The command line as a person has it: a process, its exit code, its two streams."""

    def call(*arguments: object, cwd: Path, timeout: float = 900, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            cwd=cwd,
            env=mantis_environment | more,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call


@dataclass
class ApiServer:
    """An API server as far as TrainJobs are listed and deleted; without `trainer` it has no such resource."""

    jobs: list[tuple[str, str, str]] = field(default_factory=list)  # name, run, store
    deleted: list[str] = field(default_factory=list)
    trainer: bool = True

    def has(self, name: str, run: str, store: str) -> None:
        self.jobs.append((name, run, store))

    def answer(self, method: str, address: str) -> tuple[int, object]:
        parsed = urlparse(address)
        if not self.trainer:
            return 404, {"message": "the server could not find the requested resource"}
        if method == "DELETE":
            self.deleted.append(parsed.path.rsplit("/", 1)[-1])
            return 200, {}
        asked = parse_qs(parsed.query)["labelSelector"][0]
        found = [
            {
                "metadata": {"name": name, "uid": f"uid-{name}"},
                "spec": {"trainer": {"command": ["torchrun", "-m", "components.training", "--store", store]}},
            }
            for name, run, store in self.jobs
            if asked == f"{RUN_LABEL}={run}"
        ]
        return 200, {"items": found}


@pytest.fixture
def api_server(kubeconfig, json_server) -> ApiServer:
    """The server that KUBECONFIG names."""
    state = ApiServer()
    kubeconfig(json_server(state.answer))
    return state
