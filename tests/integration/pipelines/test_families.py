"""Every family learns in the demo: `mantis run demo --set model.family=...`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mantis.models.registry import family_names

BETTER_THAN_CHANCE = 0.25  # the accuracy
SURELY_BETTER = 0.15  # the lower end of its interval


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", family_names())
def test_it_learns_to_compare(family: str, tmp_path: Path) -> None:
    """Same or different, at least 25 points above chance, and no better than chance on other or no pictures."""
    command = [sys.executable, "-m", "pipelines.cli", "run", "demo", "--json", "--store", f"file://{tmp_path}"]
    done = subprocess.run([*command, "--set", f"model.family={family}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    compare = next(row for row in summary["scores"] if row["skill"] == "compare")
    assert compare["accuracy"] >= compare["chance"] + BETTER_THAN_CHANCE
    assert compare["low"] > compare["chance"] + SURELY_BETTER
    for control in ("blind", "shuffled"):
        assert compare[control] < compare["chance"] + SURELY_BETTER / 2
