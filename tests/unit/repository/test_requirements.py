"""The locked packages of the images agree with constraints.txt and pyproject.toml; `make lock` writes them."""

import re
import tomllib
from typing import NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.paths import ROOT

FOLDER = ROOT / "docker/requirements"
MAKEFILE = (ROOT / "Makefile").read_text()
(LOCKED,) = (names.split() for names in re.findall(r"^LOCKED := (.+)$", MAKEFILE, re.MULTILINE))
IN_IMAGES = ("build", "train", "mlflow", "gpu", "flash-attn")
# Debian bookworm has Python 3.11, and CUDA's base on Ubuntu 24.04 has 3.12.
IMAGES = [
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
     "implementation_name": "cpython", "platform_python_implementation": "CPython",
     "python_version": version, "python_full_version": f"{version}.9"}
    for version in ("3.11", "3.12")
]  # fmt: skip


class Pin(NamedTuple):
    version: str
    hashes: int


def pins(file: str) -> dict[str, Pin]:
    """Each package that an image installs from a file, with its version and the number of its hashes."""
    found: dict[str, Pin] = {}
    for entry in re.split(r"\n(?=\S)", (FOLDER / f"{file}.txt").read_text()):
        line = entry.partition("\n")[0].rstrip("\\ ")
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line.partition(" --hash")[0])
        marker = requirement.marker or Marker("python_version > '0'")
        if any(marker.evaluate(image) for image in IMAGES):
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            name = canonicalize_name(requirement.name)
            assert name not in found
            found[name] = Pin(exact.version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
    return found


def constraints() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pairs = [line.partition("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version.strip() for name, _, version in pairs}


def roots(file: str) -> list[Requirement]:
    """The packages that a file is made for."""
    if file == "train":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return [Requirement(each) for each in project["dependencies"]]
    lines = (FOLDER / f"{file}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_file_is_locked_and_used() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(LOCKED)
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    for file in LOCKED:
        assert f"{file}.txt" in dockerfile
    installs = [line for line in re.split(r"&&|\n|;", dockerfile) if re.search(r"pip (install|wheel)\b", line)]
    assert len(installs) > 6
    for line in installs:
        ours = "--no-deps" in line and ("-e ." in line or '"$wheel"' in line)  # the project; wheels of the stage before
        assert ours or "--require-hashes" in line, line


@pytest.mark.parametrize("file", LOCKED)
def test_every_package_has_a_hash(file: str) -> None:
    locked = pins(file)
    assert locked
    assert [name for name, pin in locked.items() if not pin.hashes] == []


@pytest.mark.parametrize("file", IN_IMAGES)
def test_versions_are_those_that_were_tried_together(file: str) -> None:
    known = constraints()
    different = {
        name: (pin.version, known[name])
        for name, pin in pins(file).items()
        if known.get(name) not in (None, pin.version)
    }
    assert different == {}, "run `make lock`"
    assert len(pins(file).keys() - known.keys()) <= 6  # tools of the build, which `pip freeze` does not list


@pytest.mark.parametrize("file", LOCKED)
def test_what_the_project_asks_for_is_locked(file: str) -> None:
    locked = pins(file)
    for wanted in roots(file):
        pin = locked.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{wanted.name} is missing in {file}.txt: run `make lock`"
        assert wanted.specifier.contains(pin.version, prereleases=True), wanted


def test_files_of_one_image_agree() -> None:
    for pair in (("build", "train"), ("train", "gpu"), ("train", "flash-attn")):
        first, second = (pins(file) for file in pair)
        assert {name: first[name].version for name in first.keys() & second.keys()} == {
            name: second[name].version for name in first.keys() & second.keys()
        }
