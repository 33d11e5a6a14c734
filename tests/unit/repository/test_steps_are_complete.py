"""Every step has its four places, and the page on adding a step can be followed as it stands there."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mantis.artifacts.layout import ArtifactKind
from tests.helpers.step_places import components, missing_places

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGE = ROOT / "docs/how-to/add-a-step.md"
LAYERS = ("mantis", "components", "pipelines")
PACKAGE = "components/inspection"
# "`FILE`:" or "`FILE`, ... after the line `START ...`:", then a fenced block.
INSTRUCTION = re.compile(
    r"^`(?P<file>[\w/]+\.py)`(?:,[^`]*(?:`ArtifactKind`,)? after the line `(?P<after>[^`]+?) ?\.\.\.`)?:\n\n"
    r"```python\n(?P<block>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
# The step of the page, with a model that has one file; then without the run, so that garbage collection finds it.
USE = """
from kfp import compiler
from components.inspection.step import inspect
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, MadeBy, Manifest
from mantis.config.recipe import Recipe
from mantis.runs.garbage_collection import garbage
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from pathlib import Path
import json, sys
from pipelines.kubeflow.compile import PIPELINES, known_steps
from pipelines.execution.platform import platform_of

folder = Path(sys.argv[1])
store = LocalStore(folder / "store")
run = Run(id="page", store=store, recipe=Recipe(name="page"))
made_by = MadeBy(run="", step="x", revision=1, config_hash="", code_version="", image_digest="")
files = (File(name="model.safetensors", size=7, sha256="0" * 64),)
model = Manifest(kind=ArtifactKind.MODEL, key="models/m", fingerprint="m", made_by=made_by, files=files)
made = inspect(run, model)
assert made.key == f"inspections/{made.fingerprint}", made.key
assert json.loads(store.get(f"{made.key}/sizes.json")) == {"model.safetensors": 7}
assert inspect(run, model) == made
assert garbage(store) == []
assert [each.key for each in garbage(store, without=frozenset({"page"}))] == [made.key]

(folder / "steps.yaml").write_text(sys.argv[2])
platform = platform_of("", folder / "steps.yaml", known_steps())
compiler.Compiler().compile(PIPELINES["instruction-tuning"](platform), str(folder / "page.yaml"))
text = (folder / "page.yaml").read_text()
assert "exec-inspect:" in text
assert "resourceCpuRequest: '1'" in text, text
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the three layers, to which every code block of the page was added where the page says."""
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__"))
    steps = list(INSTRUCTION.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(steps) == PAGE.read_text(encoding="utf-8").count("```python")
    for step in steps:
        add(tmp_path / step["file"], step["block"], step["after"])
    return tmp_path


def add(path: Path, block: str, after: str | None) -> None:
    """Write the block as the file, or below the one line that begins with `after`."""
    if after is None:
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
        return
    lines = path.read_text().splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if line.strip().startswith(after)]
    path.write_text("".join([*lines[: place + 1], block, *lines[place + 1 :]]))


def remove_lines(path: Path, *words: str) -> None:
    kept = [line for line in path.read_text().splitlines(keepends=True) if not any(word in line for word in words)]
    path.write_text("".join(kept))


def promised() -> Iterator[str]:
    """The messages in the first rows of the page's last table."""
    table = PAGE.read_text(encoding="utf-8").partition("| forgotten |")[2]
    for row in table.splitlines()[2:7]:
        yield row.split("|")[2].strip().strip("`")


def test_every_step_has_its_places() -> None:
    assert {"prepare", "train", "preflight"} <= components(ROOT).keys()
    assert missing_places(ROOT) == []


def test_the_step_of_the_page_works(tree: Path) -> None:
    assert missing_places(tree) == []
    (resources,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tree), resources],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": "", "MANTIS_CODE_VERSION": "test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_each_forgotten_place_is_named_as_the_page_says(tree: Path) -> None:
    layout, dag = tree / "mantis/artifacts/layout.py", tree / "pipelines/instruction_tuning.py"
    files = [tree / PACKAGE / name for name in ("step.py", "component.py", "__init__.py")]
    found = []
    for path in (layout, *files, dag):
        before = path.read_text()
        if path in (layout, dag):
            remove_lines(path, "INSPECTION", "inspect(")
        else:
            path.unlink()
        found += missing_places(tree)
        path.write_text(before)
    assert found == list(promised())


def test_each_kind_has_a_folder_of_its_own() -> None:
    folders = [kind.folder for kind in ArtifactKind]
    assert len(set(folders)) == len(folders)
