"""docs/how-to/add-a-family.md, followed: its package is built, found by its entry point, and passes its tests."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mantis.models.registry import family_names
from mantis.models.verification.family_checks import CHECKS
from tests.helpers.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "how-to" / "add-a-family.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_package(folder: Path) -> None:
    """The files of the page, with the metadata that an installer makes of its pyproject.toml."""
    for name, text in BLOCK.findall(PAGE.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n{name} = {value}" for group, of in project["entry-points"].items() for name, value in of.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    write_package(folder)
    return folder


def run(package: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], cwd=package, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS
    )


def output(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_has_every_file_that_its_table_lists(package: Path) -> None:
    table = re.findall(r"^\| `([\w/]+\.\w+)` \|", PAGE.read_text(), re.MULTILINE)
    written = {path.name for path in (package / "mantis_example").iterdir()}
    assert set(table) - {"golden/NAME.json"} == written


def test_the_pages_commands_make_the_golden_file_and_pass(package: Path) -> None:
    commands = [line.split() for text in COMMANDS.findall(PAGE.read_text()) for line in text.splitlines()]
    assert [command[:2] for command in commands] == [["python", "-m"]] * 2
    golden, tests = (command[1:] for command in commands)
    output(run(package, *golden))
    assert (package / "mantis_example" / "golden" / "example.json").stat().st_size > 10_000
    passed = output(run(package, *tests, "-q", "-p", "no:cacheprovider"))
    assert f"{len(CHECKS)} passed" in passed


def test_the_family_is_listed_with_its_weights_and_sizes(package: Path) -> None:
    code = (
        "from mantis.models.registry import family_names; print(*family_names());"
        "from components.training.sizing.estimate import shape; print(shape('example-1b').parameters)"
    )
    names, parameters = output(run(package, "-c", code)).splitlines()
    assert names.split() == sorted([*family_names(), "example"])
    assert float(parameters) == 1e9
    store = (package / "store").as_uri()
    assert "example-1b" in output(run(package, "-m", "pipelines.cli", "model", "list", "--store", store))


@pytest.mark.slow
def test_a_slip_in_the_pages_family_fails_its_tests(package: Path, tmp_path: Path) -> None:
    """The page's tests can fail: they do where attention crosses samples."""
    write_package(tmp_path)
    model = tmp_path / "mantis_example" / "model.py"
    text = model.read_text()
    assert "(model, batch, row," in text
    one_sample = "(model, batch, replace(row, segments=[sum(row.segments)]),"
    text = text.replace("(model, batch, row,", one_sample).replace("import dataclass", "import dataclass, replace")
    model.write_text(text)
    done = run(
        tmp_path, "-m", "pytest", "tests/test_example.py", "-q", "-p", "no:cacheprovider", "-k", "packed or sees"
    )
    assert done.returncode == 1
    assert "2 failed" in done.stdout
