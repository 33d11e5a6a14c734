"""Ranks by fork: they share imports, and end as those of torchrun do."""

import json
import os
import subprocess

import pytest

from components.training.launch.launcher import by_fork
from components.training.monitoring.failures import killed_rank
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

KILLED = "Rank 1 was killed by SIGKILL."


def start(end: str, *imports: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    command = by_fork(2, "tests.helpers.show_rank", [end], imports=imports)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)


@pytest.mark.new_interpreter  # a fork of the tests' own process has MLflow already
def test_ranks_share_imports_and_import_nothing_in_vain() -> None:
    """Neither MLflow, which DeepSpeed's autotuner would import, nor the compiler, which its Muon would."""
    done = start("well", "components.training.engine.deepspeed_engine")
    assert done.returncode == 0, done.stderr
    first, second = sorted(map(json.loads, done.stdout.splitlines()), key=lambda found: int(found["rank"]))
    assert first["imported"] == ["components", "deepspeed"]
    assert not first["compiler"]
    assert first["knows_adamw"]
    assert first["sigterm"]
    assert first["ranks"] == 2
    assert second == first | {"rank": 1}


@pytest.mark.parametrize(("end", "said"), [("killed", KILLED), ("both", KILLED), ("3", "")])
def test_a_rank_that_ends_early_ends_the_others(end: str, said: str) -> None:
    """The report has the form that `describe_failure` reads. With `both`, the agent finds two ended ranks."""
    done = start(end)
    assert done.returncode == 1
    assert killed_rank(done.stderr.splitlines()) == said, done.stderr
    if not said:
        assert "exitcode  : 3" in done.stderr
