import json
import os

import pytest

from tests.fixtures.training import Torchrun


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need a core each to be told apart")
def test_a_rank_that_shares_its_core_is_named(torchrun: Torchrun) -> None:
    done = torchrun("measure_stragglers", 2)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sum(row["slowest_rank"] == 1 and row["slowdown"] > 1.3 for row in rows) >= 3, rows
    assert {(row["waiting_rank"], row["data_share_of_waiting_rank"]) for row in rows} == {(0, 0.25)}
    assert "STRAGGLER: rank 0 on " in done.stderr
    assert "waits for data 25% of the time" in done.stderr
