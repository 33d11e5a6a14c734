"""Every tracked text file: no path of one machine, no trailing blanks, a last line that ends."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|root|home/\w+|Users/\w+)/\S*|\.\./shared\S*|[A-Z]:\\Users\S*")
# A path inside of the image, and the two neighbours of a checkout that may bring data and a cluster.
EXPECTED = {"docker/Dockerfile": r"/root[/]\.cache/pip\b", ".ci/run": r"\.\./shared/(?:data|cluster/cluster)\b"}


def tracked() -> dict[str, str]:
    """The text of each tracked file that is UTF-8, by name."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: the tracked files are unknown")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {}
    for name in names.strip("\0").split("\0"):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data:
            found[name] = data.decode()
    return found


def machine_paths(name: str, text: str) -> list[str]:
    expected = EXPECTED.get(name)
    return [found for found in MACHINE_PATH.findall(text) if not (expected and re.match(expected, found))]


def test_no_file_names_a_path_of_a_machine() -> None:
    texts = tracked()
    assert len(texts) > 100
    assert {name: found for name, text in texts.items() if (found := machine_paths(name, text))} == {}


@pytest.mark.parametrize(
    "path", ["/wor" + "k/main/x.py", "/home" + "/ann/data", "../share" + "d/data", "/User" + "s/ann/x"]
)
def test_a_path_of_a_machine_is_found(path: str) -> None:
    assert machine_paths("README.md", f"see {path}, please") != []
    assert machine_paths("README.md", "see mantis/home/x and /tmp/x and framework/main") == []


def test_every_file_ends_with_one_newline_and_no_line_with_a_blank() -> None:
    for name, text in tracked().items():
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), name


def test_the_citation_has_the_version_and_licence_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["preferred-citation"]["title"] == "MANTIS: Interleaved Multi-Image Instruction Tuning"


def test_an_installed_package_has_every_file_that_it_reads() -> None:
    """setuptools leaves out a file that is neither Python nor named."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    data = [name for name in tracked() if re.match("(mantis|components|pipelines)/", name) and not name.endswith(".py")]
    assert len(data) > 100
    assert [name for name in data if not any(fnmatch(name.rpartition("/")[2], each) for each in patterns)] == []
    assert [each for each in patterns if not any(fnmatch(name.rpartition("/")[2], each) for name in data)] == []
