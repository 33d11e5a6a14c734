"""The scores that the demo must reach."""

from typing import Any

DEMO_SKILLS = {"compare", "coref", "temporal", "reason", "single"}
ABOVE_CHANCE = 0.25  # of the lower end of the interval, in the demo as it is shipped


def assert_above_chance(scores: list[dict[str, Any]]) -> None:
    """Check that every skill is clearly above chance; `scores` as summary.json has them."""
    assert {row["skill"] for row in scores} == DEMO_SKILLS
    for row in scores:
        assert row["low"] >= row["chance"] + ABOVE_CHANCE, row
