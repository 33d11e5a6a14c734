"""Every overlay as checkov sees it: each of its findings stands in manifests/checkov.toml, with the reason.

`make checkov` installs checkov and runs this file.
"""

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.kustomize import built
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

MANIFESTS = ROOT / "manifests"
# Each overlay alone, and with every component that fits beside the others.
OVERLAYS: dict[str, tuple[str, ...]] = {
    "local": (),
    "local-kfp": ("steps/kfp-network", "job-reports"),
    "a100": ("kueue", "job-reports", "backup", "postgresql", "monitoring", "tls", "steps/kfp"),
    "a100 with services of your own": ("backup", "own/s3", "own/postgresql", "own/roce", "own/coscheduling"),
}
Finding = tuple[str, str]  # check and object


def listed() -> list[dict[str, Any]]:
    """The accepted findings: `check`, `objects` (patterns) and `reason`."""
    found: list[dict[str, Any]] = tomllib.loads((MANIFESTS / "checkov.toml").read_text())["accepted"]
    return found


def jobs_of_runtime(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The Jobs that JobSet makes of a runtime: checkov does not know its kind."""
    for each in objects:
        if each["kind"] == "ClusterTrainingRuntime":
            for job in each["spec"]["template"]["spec"]["replicatedJobs"]:
                named = {"name": f"{each['metadata']['name']}-{job['name']}", "namespace": "mantis"}
                yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": named, "spec": job["template"]["spec"]}


def findings(folder: Path) -> dict[str, set[Finding]]:
    """What checkov finds in each file of a folder, by the stem of its name."""
    command = ["checkov", "--directory", str(folder), "--framework", "kubernetes", "--output", "json", "--quiet"]
    more = ["--compact", "--soft-fail", "--skip-download"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["summary"]["parsing_errors"] == 0
    assert said["summary"]["passed"] > 1500
    results: dict[str, set[Finding]] = {file.stem: set() for file in folder.iterdir()}
    for each in said["results"]["failed_checks"]:
        results[Path(each["file_path"]).stem].add((each["check_id"], each["resource"]))
    return results


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Finding]]:
    if shutil.which("checkov") is None:
        pytest.skip("no `checkov` on PATH: the manifests are not checked (`make checkov` installs it)")
    rendered = tmp_path_factory.mktemp("rendered")
    for overlay, components in OVERLAYS.items():
        folder = tmp_path_factory.mktemp("overlay")
        objects = built(folder, resources=[f"overlays/{overlay.split()[0]}"], components=components)
        (rendered / f"{overlay}.yaml").write_text(yaml.safe_dump_all([*objects, *jobs_of_runtime(objects)]))
    return findings(rendered)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_finding_is_listed(found: dict[str, set[Finding]], overlay: str) -> None:
    accepted = [(each["check"], pattern) for each in listed() for pattern in each["objects"]]
    new = {
        (check, name)
        for check, name in found[overlay]
        if not any(check == known and fnmatchcase(name, pattern) for known, pattern in accepted)
    }
    assert new == set()


@pytest.mark.slow
def test_nothing_is_listed_that_checkov_no_longer_finds(found: dict[str, set[Finding]]) -> None:
    everything = set().union(*found.values())
    for each in listed():
        assert len(each["reason"].split()) > 4
        for pattern in each["objects"]:
            assert any(check == each["check"] and fnmatchcase(name, pattern) for check, name in everything), each


def test_every_overlay_and_component_is_rendered() -> None:
    overlays = {path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml")}
    assert overlays == {name.split()[0] for name in OVERLAYS}
    components = {
        path.parent.relative_to(MANIFESTS).as_posix()
        for path in MANIFESTS.rglob("kustomization.yaml")
        if yaml.safe_load(path.read_text())["kind"] == "Component"
    }
    used = {name for names in OVERLAYS.values() for name in names}
    assert components - used == {"own/postgresql/users"}  # a part of two others
