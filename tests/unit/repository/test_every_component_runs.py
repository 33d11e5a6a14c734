"""A component that no pipeline places would never run, and nothing would say so."""

import ast
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def components(root: Path) -> dict[str, Path]:
    """Functions under `dsl.component`, by name."""
    found = {}
    for path in [*root.glob("components/*/component.py"), root / "pipelines/component.py"]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any("component" in ast.dump(mark) for mark in node.decorator_list):
                found[node.name] = path
    return found


def placed(root: Path) -> set[str]:
    """Names of the components that the compiled pipelines run."""
    names = set()
    for path in (root / "pipelines/compiled").glob("*.yaml"):
        specification = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        names |= {label.removeprefix("exec-") for label in specification["deploymentSpec"]["executors"]}
    return names


def test_every_component_is_in_a_pipeline() -> None:
    written = components(ROOT)
    assert {"prepare", "train", "preflight"} <= written.keys()
    missing = {name: path for name, path in written.items() if name.replace("_", "-") not in placed(ROOT)}
    assert not missing, (
        f"These components are in no pipeline: {', '.join(missing)}. Add a line to a DAG (docs/how-to/add-a-step.md), "
        "and run `mantis pipeline compile`."
    )
