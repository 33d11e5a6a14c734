"""A made-up benchmark from outside of the package, through the whole DAG on this machine."""

import json
import shutil
from pathlib import Path

import pytest

from tests.fixtures.cli import Mantis
from tests.fixtures.own_benchmark import write_pets

LITTLE = (
    "--set=data.generated_conversations=160",
    "--set=data.skills=[single]",
    "--set=data.holdout=12",
    "--set=training.epochs=1",
)


@pytest.mark.slow
def test_a_made_up_benchmark_and_held_out_rows_are_in_the_report(mantis: Mantis, tmp_path: Path) -> None:
    file = write_pets(tmp_path / "mine")
    given = (*LITTLE, "--json", f"--store=file://{tmp_path}/store")
    done = mantis("run", "demo", *given, "--set=evaluation.benchmarks=[mine/pets.yaml]", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    path = Path(done.stdout.splitlines()[-1])
    summary = json.loads(path.read_text())
    samples = {(row["benchmark"], row["skill"]): row["samples"] for row in summary["scores"]}
    assert samples[("pets", "compare")] == 4
    assert samples[("holdout", "demo-single")] == 12 == summary["held_out"][0]["samples"]
    assert "Held-out rows" in path.with_name("report.html").read_text()

    shutil.rmtree(file.parent)  # the store has it all
    recipe = tmp_path / "store/runs" / summary["run"] / "recipe.yaml"
    again = mantis("run", recipe, *given[-2:], "--set=evaluation.scoring=strict", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    rescored = json.loads(Path(again.stdout.splitlines()[-1]).read_text())
    assert {row["benchmark"] for row in rescored["scores"]} == {"pets", "holdout"}
