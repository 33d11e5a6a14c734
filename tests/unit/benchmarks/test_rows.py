import importlib

import pytest

from benchmarks.__main__ import main
from benchmarks.rows import ROWS, Row, meets


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(ROWS)


def test_every_row_has_its_function() -> None:
    for module, function in ROWS.values():
        assert callable(getattr(importlib.import_module(module), function))


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no.such"]) == 2
    assert "conversion.zero" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "goal", "met"), [(3.0, ">=3", True), (2.9, ">=3", False), (1.02, "<=1.03", True)])
def test_a_goal_compares_the_ratio(value: float, goal: str, met: bool) -> None:
    row = Row(name="a", peer=None, ours=value, ratio=value, unit="s", goal=goal)
    assert row.met is met
    assert row.to_json()["met"] is met


def test_a_goal_that_is_no_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="fast"):
        meets(1.0, "fast")
