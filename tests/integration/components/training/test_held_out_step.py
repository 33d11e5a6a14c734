"""Two ranks: evaluations between optimizer steps equal plain PyTorch, and disturb no gradient.

test_family_steps.py asks it of every other family.
"""

import json
from pathlib import Path

from tests.fixtures.training import MakeRun, Torchrun
from tests.helpers.step_checks import check_held_out, held_out_of

VARIANTS = ("zero-3", "zero-2", "zero-3 module by module")


def test_the_held_out_loss_equals_plain_torch(make_run: MakeRun, torchrun: Torchrun, tmp_path: Path) -> None:
    run, _ = make_run("held-out-llava-clip", {"model.family": "llava-clip", "data.holdout": "13"})
    out = tmp_path / "figures"
    done = torchrun("compare_held_out", 2, run.store.url, out, run.id)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads(out.with_name(f"figures.{rank}").read_text())[run.id] for rank in (0, 1)]
    assert len(ranks[0]) == len(VARIANTS)
    for rows in ranks[0]:
        check_held_out(rows)
    assert [held_out_of(rank) for rank in ranks] == [held_out_of(ranks[0])] * 2
