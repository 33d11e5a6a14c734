"""Find the places of a step that a tree of the project lacks. docs/how-to/add-a-step.md shows the messages."""

import ast
from pathlib import Path

from mantis.artifacts.layout import ArtifactKind

LAYOUT = "mantis/artifacts/layout.py"


def missing_places(root: Path) -> list[str]:
    """What the steps of the tree at `root` lack, a sentence each; read from the source, nothing is imported."""
    return [*_missing_files(root), *_missing_kinds(root), *_missing_lines(root)]


def _missing_files(root: Path) -> list[str]:
    found = []
    for package in sorted(path for path in (root / "components").iterdir() if path.is_dir()):
        place = f"components/{package.name}"
        step, component = (package / "step.py").is_file(), (package / "component.py").is_file()
        if component and not step:
            found.append(f"{place}/step.py is missing: component.py imports it.")
        if step and not component:
            found.append(f"{place}/component.py is missing: no pipeline can run step.py.")
        if (step or component) and not (package / "__init__.py").is_file():
            found.append(f"{place}/__init__.py is missing: an installation would lack the package.")
    return found


def _missing_kinds(root: Path) -> list[str]:
    layout = ast.parse((root / LAYOUT).read_text(encoding="utf-8"))
    (enum,) = [node for node in layout.body if isinstance(node, ast.ClassDef) and node.name == ArtifactKind.__name__]
    own = {node.id for node in ast.walk(enum) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found = []
    for path in sorted([*root.glob("components/**/*.py"), *root.glob("pipelines/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or ast.unparse(node.value) != ArtifactKind.__name__:
                continue
            if node.attr.isupper() and node.attr not in own:
                name = path.relative_to(root).as_posix()
                found.append(f"{name} uses ArtifactKind.{node.attr}. Add its line to {LAYOUT}.")
    return found


def _missing_lines(root: Path) -> list[str]:
    dags = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((root / "pipelines").glob("*.py"))]
    called = {node.func.id for dag in dags for node in ast.walk(dag)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    return [
        f"The component {name} of {path} is in no pipeline. Add a line to a DAG."
        for name, path in components(root).items()
        if name not in called
    ]


def components(root: Path) -> dict[str, str]:
    """The functions under `dsl.component`: the file of each, by name."""
    found = {}
    for path in [*sorted(root.glob("components/*/component.py")), root / "pipelines/component.py"]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any("component" in ast.dump(mark) for mark in node.decorator_list):
                found[node.name] = path.relative_to(root).as_posix()
    return found
