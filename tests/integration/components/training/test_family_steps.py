"""Two ranks: the steps of every family equal plain PyTorch. Other files ask more of the paper's families."""

import json
from typing import Any

import pytest

from mantis.models.registry import family_names
from tests.fixtures.training import MakeRun, Torchrun
from tests.helpers.step_checks import check_held_out, check_steps, held_out_of

pytestmark = pytest.mark.slow

Ranks = list[dict[str, list[list[dict[str, Any]]]]]


@pytest.fixture(scope="module", params=family_names())
def ranks(
    request: pytest.FixtureRequest, make_run: MakeRun, torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory
) -> Ranks:
    """What compare_family_steps.py found on each rank."""
    run, _ = make_run(f"steps-{request.param}", {"model.family": request.param, "data.holdout": "13"})
    out = tmp_path_factory.mktemp("steps") / "figures"
    done = torchrun("compare_family_steps", 2, run.store.url, out, run.id)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(out.with_name(f"figures.{rank}").read_text())[run.id] for rank in (0, 1)]


def test_zero_steps_equal_official_accumulation(ranks: Ranks) -> None:
    assert len(ranks[0]["zero"]) == 2
    for rows in ranks[0]["zero"]:
        check_steps(rows)


def test_a_qlora_step_equals_peft_alone(ranks: Ranks) -> None:
    [rows] = ranks[0]["adapter"]
    check_steps(rows)


def test_the_held_out_loss_equals_plain_torch(ranks: Ranks) -> None:
    for rows in ranks[0]["held out"]:
        check_held_out(rows)
    assert held_out_of(ranks[1]["held out"]) == held_out_of(ranks[0]["held out"])
