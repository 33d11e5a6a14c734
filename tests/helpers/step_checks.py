"""What the figures of compare_zero_step.py and its like have to be."""

from typing import Any

import pytest


def check_steps(rows: list[dict[str, Any]]) -> None:
    """To 1e-5 before the first update; behind it AdamW has made whole steps of rounding where a true gradient is zero.

    How much that is differs from one processor to the next: 1e-4 was seen.
    """
    first, *later = rows
    assert first["loss"] == pytest.approx(first["expected_loss"], rel=1e-5)
    assert first["gradient_error"] < 1e-5
    assert first["norm"] == pytest.approx(first["expected_norm"], rel=1e-5)
    for row in later:
        assert row["loss"] == pytest.approx(row["expected_loss"], rel=1e-4)
        assert row["gradient_error"] < 1e-3


def check_held_out(rows: list[dict[str, Any]]) -> None:
    """To 1e-5 of the gradients before the first evaluation; behind it AdamW has rounded in its own way."""
    first, second = rows
    assert first["gradient_error"] < 1e-5
    assert second["gradient_error"] < 1e-3
    for row in rows:
        assert row["held_out"] == pytest.approx(row["expected"], rel=1e-4)
        assert row["loss"] == pytest.approx(row["expected_loss"], rel=1e-4)
        assert row["again"] == row["held_out"]  # from memory, through the same kernels
        assert row["training"]
        assert row["random_is_untouched"]
    assert second["held_out"] != first["held_out"]


def held_out_of(rank: list[list[dict[str, Any]]]) -> list[list[tuple[float, int]]]:
    """The losses, which all ranks agree on, and the micro-steps, which all ranks take together."""
    return [[(row["held_out"], row["micro_steps"]) for row in variant] for variant in rank]
