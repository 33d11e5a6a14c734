import json

import pytest


@pytest.fixture(scope="module")
def figures(make_run, torchrun, tmp_path_factory):
    """What zero_step.py found: for each rank and variant, a row per step."""
    run, _ = make_run("zero-step")
    out = tmp_path_factory.mktemp("zero-step") / "figures"
    done = torchrun("zero_step.py", 2, run.store.url, run.id, out)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(out.with_name(f"figures.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("variant", [0, 1, 2], ids=["zero-3", "zero-2", "zero-3 frozen tower, checkpointing"])
def test_step_equals_official_accumulation(figures, variant):
    for row in figures[0][variant]:
        assert row["loss"] == pytest.approx(row["expected_loss"], rel=1e-5)
        assert row["gradient_error"] < 1e-5
        assert row["norm"] == pytest.approx(row["expected_norm"], rel=1e-5)


def test_ranks_take_the_same_number_of_micro_steps_and_one_was_empty(figures):
    first, second = (rank[0] for rank in figures)
    assert [row["micro_steps"] for row in first] == [row["micro_steps"] for row in second]
    assert max(row["micro_steps"] for row in first) > 1
    assert any(row["empty"] for row in first + second)
