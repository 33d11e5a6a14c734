"""Imports point one way: pipelines -> components -> mantis, and no component imports another."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPONENTS = ("conversion", "data", "evaluation", "reporting", "training")


def imported(folder: Path) -> set[str]:
    names: set[str] = set()
    files = list(folder.rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_library_imports_no_component_and_no_pipeline() -> None:
    assert not {name for name in imported(ROOT / "mantis") if name.startswith(("components.", "pipelines."))}


@pytest.mark.parametrize("part", COMPONENTS)
def test_a_component_imports_only_the_library(part: str) -> None:
    others = tuple(f"components.{other}" for other in COMPONENTS if other != part)
    assert not {name for name in imported(ROOT / "components" / part) if name.startswith(("pipelines", *others))}


def test_every_component_is_known() -> None:
    assert {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")} == set(COMPONENTS)
