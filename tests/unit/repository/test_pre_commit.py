"""The hooks work without the project's virtual environment and check with the versions of constraints.txt."""

from pathlib import Path
from typing import Any

import yaml
from pre_commit.clientlib import load_config

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
CONFIG = ROOT / ".pre-commit-config.yaml"
REPOSITORIES: list[dict[str, Any]] = yaml.safe_load(CONFIG.read_text())["repos"]
PINS = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split())


def repository(ending: str) -> dict[str, Any]:
    return next(found for found in REPOSITORIES if found["repo"].endswith(ending))


def test_the_file_is_valid() -> None:
    assert load_config(CONFIG)["repos"]


def test_ruff_and_mypy_have_the_versions_of_the_constraints() -> None:
    assert repository("ruff-pre-commit")["rev"] == f"v{PINS['ruff']}"
    assert repository("mirrors-mypy")["rev"] == f"v{PINS['mypy']}"


def test_mypy_reads_types_from_the_versions_of_the_constraints() -> None:
    (hook,) = repository("mirrors-mypy")["hooks"]
    packages = [package.lower().split("==") for package in hook["additional_dependencies"]]
    assert packages
    for name, version in packages:
        assert version == PINS[name], name


def test_no_hook_needs_the_virtual_environment() -> None:
    assert ".venv/" not in CONFIG.read_text()
    local = repository("local")["hooks"]
    assert {hook["language"] for hook in local} == {"python", "system"}
    for hook in local:
        command, argument = hook["entry"].split()
        if hook["language"] == "system":
            assert command == "make"
        else:
            assert command == "python"
            assert (ROOT / argument).is_file()
