"""The contracts of .importlinter hold, and each of them finds a forbidden import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PACKAGES = ("mantis", "components", "pipelines")

# The module that gets a forbidden import, the import, and a contract that breaks.
FORBIDDEN = [
    ("mantis/hashing.py", "import components.data.step", "pipelines, components, mantis"),
    ("components/reporting/collect/verdict.py", "import components.data.step", "No component imports another"),
    ("mantis/store/base.py", "import mantis.runs.arms", "Layers of mantis"),
    ("mantis/store/base.py", "import mantis.store.opening", "No circle of imports in any package"),
    ("mantis/anything.py", "", "Layers of mantis"),  # a module without a layer
]


def broken_contracts(folder: Path) -> set[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert any(line.startswith("Contracts: ") for line in lines), done.stdout + done.stderr
    broken = {line.removesuffix(" BROKEN") for line in lines if line.endswith(" BROKEN")}
    assert bool(broken) == bool(done.returncode)
    return broken


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_the_contracts_hold(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(("module", "line", "contract"), FORBIDDEN)
def test_a_forbidden_import_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        assert contract in broken_contracts(copy)
    finally:
        path.write_text(before) if before is not None else path.unlink()
