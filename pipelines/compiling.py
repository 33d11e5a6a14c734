"""Pipelines to the YAML of Kubeflow Pipelines; the files are kept in the repository and checked for staleness."""

import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.instruction_tuning import instruction_tuning

PIPELINES = {"instruction-tuning": instruction_tuning}


def compile_all(folder: Path) -> list[Path]:
    """Write one `<pipeline>.yaml` each into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = folder / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        paths.append(path)
    return paths


def stale(folder: Path) -> list[str]:
    """Names of the files in `folder` that are not what the code compiles to."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = compile_all(Path(scratch))
        return [
            path.name
            for path in fresh
            if not (folder / path.name).exists() or (folder / path.name).read_text() != path.read_text()
        ]
