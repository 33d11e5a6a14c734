"""A stratified sample: shares of skills, whole units, and the same samples for the same number."""

from collections import Counter

import pytest

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from components.evaluation.scoring.targets import Target
from components.evaluation.stratified_sample import stratified

MACRO = load_benchmark("blink")
MICRO = MACRO.model_copy(update={"aggregation": "micro"})


def samples(sizes: dict[str, int], rows_per_unit: int = 1) -> list[BenchmarkSample]:
    target = Target(kind="short", answers=("x",))
    return [
        BenchmarkSample(id=f"{skill}-{number}", skill=skill, unit=f"{skill}-{number // rows_per_unit}", question="",
                        prompt="", pictures=(), target=target)
        for skill, size in sizes.items() for number in range(size)
    ]  # fmt: skip


def drawn(sizes: dict[str, int], limit: int, *, micro: bool = False, seed: int = 0) -> list[str]:
    found = stratified(samples(sizes), MICRO if micro else MACRO, limit=limit, seed=seed)
    return [sample.id for sample in found]


def skills(ids: list[str]) -> dict[str, int]:
    return dict(Counter(each.partition("-")[0] for each in ids))


def test_skills_that_are_averaged_get_equal_numbers() -> None:
    assert skills(drawn({"a": 400, "b": 100, "c": 30}, 60)) == {"a": 20, "b": 20, "c": 20}
    assert skills(drawn({"a": 400, "b": 100, "c": 4}, 60)) == {"a": 28, "b": 28, "c": 4}


def test_an_average_over_samples_keeps_the_shares_of_skills() -> None:
    assert skills(drawn({"a": 400, "b": 100, "c": 30}, 53, micro=True)) == {"a": 40, "b": 10, "c": 3}
    assert sum(skills(drawn({"a": 333, "b": 333, "c": 334}, 100, micro=True)).values()) == 100
    assert skills(drawn({"a": 44, "b": 36, "c": 20}, 10, micro=True)) == {"a": 4, "b": 4, "c": 2}  # 4.4, 3.6 and 2.0


@pytest.mark.parametrize("micro", [True, False])
def test_every_skill_is_in_the_sample(micro: bool) -> None:
    assert set(skills(drawn({"a": 1000, "b": 3, "c": 3}, 2, micro=micro))) == {"a", "b", "c"}


def test_units_stay_whole() -> None:
    found = stratified(samples({"a": 400, "b": 400}, rows_per_unit=4), MACRO, limit=42, seed=0)
    assert set(Counter(sample.unit for sample in found).values()) == {4}
    assert len(found) == 40


def test_the_sample_keeps_its_order_and_depends_on_the_seed_alone() -> None:
    sizes = {"a": 50, "b": 50}
    first = drawn(sizes, 20)
    assert first == drawn(sizes, 20) == [each.id for each in samples(sizes) if each.id in first]
    assert first != drawn(sizes, 20, seed=1)
    assert first != [each.id for each in samples(sizes)][:20]
    assert set(first) < set(drawn(sizes, 40))


def test_without_a_smaller_limit_all_samples_are_asked() -> None:
    assert len(drawn({"a": 5, "b": 5}, 10)) == 10
    assert len(stratified(samples({"a": 5}), MACRO, limit=None, seed=0)) == 5
