"""Imports point one way: pipelines -> parts -> models -> core."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "core": {"core"},
    "models": {"core", "models"},
    "data": {"core", "models", "data"},
    "training": {"core", "models", "training"},
    "conversion": {"core", "models", "conversion"},
    "evaluation": {"core", "models", "evaluation"},
    "reporting": {"core", "reporting"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_it_may(part):
    found = set()
    files = list((ROOT / "components" / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            assert not name.startswith("pipelines"), f"{path} imports {name}"
            if name.startswith("components."):
                found.add(name.split(".")[1])
    assert found <= ALLOWED[part]


def test_every_part_is_known():
    parts = {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")}
    assert parts == set(ALLOWED)
