"""A sweep over two learning rates on this machine: killed in its first arm, and started again."""

import json
from pathlib import Path

import pytest

from tests.fixtures.cli import Mantis

LITTLE = (
    "--set=data.generated_conversations=160",
    "--set=data.skills=[single]",
    "--set=evaluation.samples_per_skill=20",
    "--set=training.epochs=1",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_ends_with_a_comparison_and_repeats_nothing(mantis: Mantis, tmp_path: Path) -> None:
    given = ("sweep", "demo", *LITTLE, "--over=training.learning_rate=2e-4,4e-4", f"--store=file://{tmp_path}/store")
    done = mantis(*given, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = json.loads(done.stdout)
    assert compared["settings"]["training.learning_rate"] == ["0.0002", "0.0004"]
    assert len(compared["runs"]) == 2
    assert all(row["runs"][1]["difference"]["corrected_p"] is not None for row in compared["scores"])
    parent = compared["runs"][0].rpartition("-")[0]
    page = tmp_path / "store/reports" / parent / "report.html"
    assert all(run in page.read_text() for run in compared["runs"])

    records = sorted((tmp_path / "store/runs").glob("*/steps/train.json"))
    before = [path.read_bytes() for path in records]
    again = mantis(*given, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["scores"] == compared["scores"]
    assert [path.read_bytes() for path in records] == before
