"""`.ci/run` and the GitHub workflow call the same make targets."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
MAKEFILE = (ROOT / "Makefile").read_text()
RUN = ROOT / ".ci" / "run"
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
SETUP = {"venv", "cluster", "images"}  # each of the two makes its cluster and its images in its own way
PYTEST = "$(PARALLEL) "


def rules(makefile: str) -> dict[str, tuple[list[str], bool]]:
    """(prerequisites and called targets, whether there are other commands) of every target with a name.

    A target is called by `$(MAKE)`, or by a run of pytest that joins the tests of several targets.
    """
    target_of = {
        tests: name for name, tests in re.findall(rf"^([a-z-]+):.*\n\t{re.escape(PYTEST)}(\S+)$", makefile, re.M)
    }
    found = {}
    for match in re.finditer(r"^([a-z][a-z-]*):(?!=)([^#\n]*).*((?:\n\t.*)*)", makefile, re.MULTILINE):
        called, does_more = match[2].split(), False
        for command in filter(None, map(str.strip, match[3].splitlines())):
            joined = command.removeprefix(PYTEST).split() if command.startswith(PYTEST) else []
            if command.startswith("$(MAKE) "):
                called += sorted(targets_of(command.replace("$(MAKE)", "make", 1)))
            elif len(joined) > 1:
                called += [target_of[tests] for tests in joined]
            else:
                does_more = True
        found[match[1]] = (called, does_more)
    return found


def work(targets: set[str]) -> set[str]:
    """The targets with commands that these lead to, without those that only set something up."""
    known = rules(MAKEFILE)
    reached, left = set[str](), set(targets)
    while left:
        name = left.pop()
        if name in known and name not in reached:
            reached.add(name)
            left |= set(known[name][0])
    return {name for name in reached if known[name][1]} - SETUP


def targets_of(script: str) -> set[str]:
    """The targets of every `make` command in a shell script."""
    found = set[str]()
    for line in script.splitlines():
        command = line.strip()
        if command.startswith("make "):
            found |= {word for word in command.split()[1:] if not word.startswith("-") and "=" not in word}
    return found


def commands_of(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def called_by_workflow() -> set[str]:
    return {target for job in WORKFLOW["jobs"].values() for run in commands_of(job) for target in targets_of(run)}


def test_both_do_the_same_work() -> None:
    here, there = work(targets_of(RUN.read_text())), work(called_by_workflow())
    assert here == there
    assert {"lint", "prose", "docs", "compile-check", "test-unit", "test-integration", "test-cluster", "minio"} <= here


def test_every_called_target_exists() -> None:
    called = targets_of(RUN.read_text()) | called_by_workflow()
    assert called
    assert called <= rules(MAKEFILE).keys()


def test_a_check_of_the_workflow_is_a_make_target() -> None:
    for name, job in WORKFLOW["jobs"].items():
        if name != "cluster":
            assert all(run.startswith("make ") and "\n" not in run for run in commands_of(job)), name


def test_the_cluster_joins_in_only_on_request() -> None:
    conditional = {name for name, job in WORKFLOW["jobs"].items() if "if" in job}
    assert conditional == {"cluster"}


def test_unit_tests_run_on_every_supported_python() -> None:
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = (int(minor) for minor in re.findall(r"3\.(\d+)", bounds))
    versions = WORKFLOW["jobs"]["unit"]["strategy"]["matrix"]["python-version"]
    assert versions == [f"3.{minor}" for minor in range(first, end)]


def test_the_script_stops_at_the_first_error() -> None:
    assert "\nset -euo pipefail\n" in RUN.read_text()
    subprocess.run(["bash", "-n", str(RUN)], check=True)


def test_every_target_is_phony_and_explained() -> None:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    named = set(phony[1].replace("\\", " ").split())
    explained = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    assert named == explained == rules(MAKEFILE).keys()
