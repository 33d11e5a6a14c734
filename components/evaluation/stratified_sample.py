"""Draws a stratified sample of a benchmark, so that a look at a model takes minutes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.hashing import fingerprint

Units = list[list[BenchmarkSample]]


def stratified(
    samples: Sequence[BenchmarkSample], benchmark: Benchmark, *, limit: int | None, seed: int
) -> list[BenchmarkSample]:
    """Draw about `limit` samples, in their order; all of them if `limit` is None or not smaller.

    - Every skill is a stratum. It has at least one unit, so a small limit may be exceeded.
    - Samples of one unit stay together, since they are scored together.
    - For an average over samples (`micro`) the skills keep their shares. Any other benchmark weighs skills alike, so
      they get equal numbers.
    - A larger limit adds samples of a skill to those of a smaller one.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    strata = {skill: _shuffled(units, seed) for skill, units in _units(samples).items()}
    sizes = {skill: sum(map(len, units)) for skill, units in strata.items()}
    shares = _proportional(sizes, limit) if benchmark.aggregation == "micro" else _equal(sizes, limit)
    drawn = {id(sample) for skill, units in strata.items() for sample in _first(units, shares[skill])}
    return [sample for sample in samples if id(sample) in drawn]


def population(samples: Sequence[BenchmarkSample]) -> Mapping[str, int]:
    """The number of samples of each skill."""
    return Counter(sample.skill for sample in samples)


def _units(samples: Sequence[BenchmarkSample]) -> dict[str, Units]:
    grouped: dict[str, dict[str, list[BenchmarkSample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        grouped[sample.skill][sample.unit].append(sample)
    return {skill: list(units.values()) for skill, units in grouped.items()}


def _shuffled(units: Units, seed: int) -> Units:
    """Sort by a hash, which depends neither on the order of the file nor on the other samples."""
    return sorted(units, key=lambda unit: fingerprint([seed, unit[0].unit]))


def _first(units: Units, number: int) -> list[BenchmarkSample]:
    """The first units that hold `number` samples, at least one unit."""
    taken: list[BenchmarkSample] = []
    for unit in units:
        if taken and len(taken) + len(unit) > number:
            break
        taken += unit
    return taken


def _proportional(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` in proportion to the sizes, by largest remainders."""
    total = sum(sizes.values())
    exact = {skill: limit * size / total for skill, size in sizes.items()}
    shares = {skill: int(share) for skill, share in exact.items()}
    by_remainder = sorted(exact, key=lambda skill: shares[skill] - exact[skill])
    for skill in by_remainder[: limit - sum(shares.values())]:
        shares[skill] += 1
    return shares


def _equal(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` equally. What a small skill cannot use goes to the others."""
    shares: dict[str, int] = {}
    left = limit
    for number, skill in enumerate(sorted(sizes, key=lambda skill: sizes[skill])):
        shares[skill] = min(sizes[skill], left // (len(sizes) - number))
        left -= shares[skill]
    return shares
