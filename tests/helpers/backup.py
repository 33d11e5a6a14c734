"""The CronJobs of manifests/backup, run as processes of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS
from tests.helpers.yaml_files import documents

BACKUP = ROOT / "manifests/backup"
Secrets = Mapping[str, Mapping[str, str]]  # Secret -> key -> value


def environment(job: str, secrets: Secrets) -> dict[str, str]:
    """The environment of a CronJob's container, with the values of `secrets`; an optional key may be missing."""
    jobs = {each["metadata"]["name"]: each for each in documents((BACKUP / "jobs.yaml").read_text())}
    (container,) = jobs[job]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    found = {}
    for each in container["env"]:
        if "value" in each:
            found[each["name"]] = each["value"]
            continue
        wanted = each["valueFrom"]["secretKeyRef"]
        value = secrets.get(wanted["name"], {}).get(wanted["key"])
        assert value is not None or wanted.get("optional"), wanted
        if value is not None:
            found[each["name"]] = value
    return found


def run_job(job: str, secrets: Secrets, volume: Path) -> str:
    """Run the CronJob's script with `volume` for the volume of MLflow; returns its output."""
    if shutil.which("rclone") is None:
        pytest.skip("no `rclone` on PATH: the back-up is not tested (Debian's package rclone has it)")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    given = ours | environment(job, secrets) | {"DATA": str(volume), "RCLONE_CONFIG": os.devnull}
    command = [sys.executable, str(BACKUP / "back_up.py"), job]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
