import pytest

from components.training.monitoring.stragglers import LASTING, Suspect, compare


def test_the_slowest_is_compared_with_the_median() -> None:
    found = compare([1.0, 1.1, 3.0, 1.2], [0.0, 0.4, 0.1, 0.0], seconds=2.0)
    assert (found.slowest, found.slowdown) == (2, pytest.approx(3.0 / 1.1))
    assert (found.waiting, found.data_share) == (1, pytest.approx(0.2))


def test_of_two_ranks_the_faster_is_the_measure() -> None:
    assert compare([1.0, 2.0], [0.0, 0.0], seconds=1.0).slowdown == 2.0


def test_a_rank_is_told_of_once_and_only_when_it_lasts() -> None:
    suspect = Suspect()
    seen = [(1, True), (1, True), (0, True), (0, True), (0, True), (0, True), (0, False), (0, True), (0, True)]
    assert [suspect.lasting(rank, bad) for rank, bad in seen] == [place == LASTING + 1 for place in range(len(seen))]
