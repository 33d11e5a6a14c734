import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
