"""The layout keeps its rules: one name for one thing, small packages, addresses in one place."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from mantis.artifacts.layout import TOP_FOLDERS

ROOT = Path(__file__).parents[2]
LAYERS = ("mantis", "components", "pipelines")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
# Files that have the same name in every package, by design: a family's folder, a step, an entry point.
REPEATED = {"__init__", "__main__", "component", "step"}
FAMILY_FOLDERS = ROOT / "mantis" / "models" / "families"
MOST_MODULES = 12  # of one package
LAYOUT = ROOT / "mantis" / "artifacts" / "layout.py"
# Strings that look like an address: a path of the hub's URLs, and a placeholder that KFP's UI shows.
NO_ADDRESSES = {"datasets/", "models/FINGERPRINT"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_module_name_occurs_twice() -> None:
    places = defaultdict(list)
    for path in MODULES:
        if path.stem not in REPEATED and FAMILY_FOLDERS not in path.parents:
            places[path.stem].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_class_name_occurs_twice() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_package_holds_at_most_a_dozen_modules() -> None:
    folders = {path.parent for path in MODULES}
    counts = {relative(folder): sum(1 for path in folder.glob("*.py") if path.stem != "__init__") for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_every_package_says_what_it_holds() -> None:
    silent = [relative(path) for path in MODULES if path.name == "__init__.py" and not docstring(path)]
    assert silent == []


def docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text()))


def test_addresses_are_built_in_the_layout_alone() -> None:
    assert [place for path in MODULES if path != LAYOUT for place in addresses_in(path.read_text(), path)] == []


def test_an_address_outside_of_the_layout_is_found() -> None:
    source = 'key = f"models/{made}"\nfolder = "sources/identities"\nremedy = "models/<fingerprint> is a key"\n'
    assert addresses_in(source, ROOT / "x.py") == ["x.py:1", "x.py:2"]


def addresses_in(source: str, path: Path) -> list[str]:
    """The places of strings that begin with a folder of a store and hold nothing that an address cannot hold."""
    address = re.compile(rf"(?:{'|'.join(sorted(TOP_FOLDERS))})/[\w./-]*")
    found = []
    for node in ast.walk(ast.parse(source)):
        first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and address.fullmatch(first.value):
            if first.value in NO_ADDRESSES:
                continue
            found.append(f"{relative(path)}:{first.lineno}")
    return sorted(set(found))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_there(layer: str) -> None:
    assert any(path.is_relative_to(ROOT / layer) for path in MODULES)
