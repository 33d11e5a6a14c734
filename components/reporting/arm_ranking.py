"""Rank the arms of a sweep or an ablation: which is best over all benchmarks, and how sure that is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from components.reporting.compare_runs import Arm, Comparison, UnitPairs, paired_test, unit_pairs
from mantis.artifacts.held_out import BENCHMARK as HELD_OUT
from mantis.artifacts.scores import Score
from mantis.statistics import Paired, corrected

Changes = Mapping[str, str]  # of an arm: its value of each swept field


@dataclass(frozen=True, kw_only=True)
class RankedArm:
    """An arm, with its changes and its mean accuracy over the benchmarks, a share."""

    arm: Arm
    changes: Changes
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ArmPair:
    """A test of two arms. `paired` is the higher-ranked minus the lower one; None if they share no samples."""

    higher: str
    lower: str
    paired: Paired | None


@dataclass(frozen=True, kw_only=True)
class FieldEffect:
    """The effect of one value of a field rather than another, over pairs of arms that differ in this field alone.

    `paired` tests the mean over those pairs, and `each` has their differences, as shares.
    """

    field: str
    value: str
    rather_than: str
    paired: Paired
    each: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Arms by falling mean accuracy over `benchmarks`, a test of each pair, and the effects of the swept fields.

    The p values of the pairs are corrected together, and so are those of the effects.
    """

    benchmarks: tuple[str, ...]
    arms: tuple[RankedArm, ...]
    pairs: tuple[ArmPair, ...]
    effects: tuple[FieldEffect, ...]

    def test_against_best(self, run: str) -> Paired | None:
        """The test of the best arm against the arm `run`; None for the best itself, or without shared samples."""
        best = self.arms[0].arm.run
        return next((pair.paired for pair in self.pairs if (pair.higher, pair.lower) == (best, run)), None)


def rank_arms(comparison: Comparison, changes: Mapping[str, Changes]) -> Ranking | None:
    """Rank the arms of `comparison`; `changes` are by run. None if no benchmark has scores of all arms."""
    scores = {name: found for name in _common(comparison.arms) if (found := _headline(comparison.arms, name))}
    if not scores:
        return None
    headline = [(score, len(scores) * len(found)) for found in scores.values() for score in found]
    ranked = sorted(
        (
            RankedArm(
                arm=arm,
                changes=changes.get(arm.run, {}),
                accuracy=sum(arm.scores[score.benchmark, score.skill].accuracy / parts for score, parts in headline),
            )
            for arm in comparison.arms
        ),
        key=lambda each: -each.accuracy,
    )
    return Ranking(
        benchmarks=tuple(scores),
        arms=tuple(ranked),
        pairs=_pairs([each.arm for each in ranked], headline),
        effects=_effects(comparison.arms, changes, headline),
    )


def _common(arms: Sequence[Arm]) -> list[str]:
    """The benchmarks that every arm has scores of; held-out rows count only if there is no other."""
    names = dict.fromkeys(benchmark for arm in arms for benchmark, _ in arm.scores)
    found = [name for name in names if all(any(name == benchmark for benchmark, _ in arm.scores) for arm in arms)]
    return [name for name in found if name != HELD_OUT] or found


def _headline(arms: Sequence[Arm], benchmark: str) -> list[Score]:
    """The score that stands for a benchmark; those of the skills that all arms have if no score does."""
    rows = [
        score for key, score in arms[0].scores.items() if key[0] == benchmark and all(key in arm.scores for arm in arms)
    ]
    return [score for score in rows if score.overall] or rows


def _pairs(ranked: Sequence[Arm], headline: Sequence[tuple[Score, int]]) -> tuple[ArmPair, ...]:
    made = [
        ArmPair(higher=higher.run, lower=lower.run, paired=paired_test(_groups(lower, higher, headline)))
        for higher, lower in combinations(ranked, 2)
    ]
    tests = iter(corrected([pair.paired for pair in made if pair.paired is not None]))
    return tuple(pair if pair.paired is None else replace(pair, paired=next(tests)) for pair in made)


def _groups(first: Arm, second: Arm, headline: Sequence[tuple[Score, int]]) -> list[UnitPairs]:
    """All groups of the mean over the benchmarks; empty if the two arms share no sample of one of them."""
    found: list[UnitPairs] = []
    for score, parts in headline:
        groups = unit_pairs(first, second, score, [])
        if not groups:
            return []
        found += [replace(group, weight=group.weight / parts) for group in groups]
    return found


def _effects(
    arms: Sequence[Arm], changes: Mapping[str, Changes], headline: Sequence[tuple[Score, int]]
) -> tuple[FieldEffect, ...]:
    made = []
    for field, value, rather_than, matched in _matches(arms, changes):
        pairs = [_groups(first, second, headline) for first, second in matched]
        mean = paired_test(_mean_of(pairs)) if all(pairs) else None
        tests = [test for groups in pairs if (test := paired_test(groups)) is not None]
        if mean is not None:
            each = tuple(test.difference for test in tests)
            made.append(FieldEffect(field=field, value=value, rather_than=rather_than, paired=mean, each=each))
    tests = corrected([effect.paired for effect in made])
    return tuple(replace(effect, paired=test) for effect, test in zip(made, tests, strict=True))


def _matches(
    arms: Sequence[Arm], changes: Mapping[str, Changes]
) -> Iterator[tuple[str, str, str, list[tuple[Arm, Arm]]]]:
    """Two values of a field, and two or more pairs of arms with these values that agree in all other swept fields.

    A single pair is in the ranking already.
    """
    for field in dict.fromkeys(name for arm in arms for name in changes.get(arm.run, {})):
        found: dict[str, dict[frozenset[tuple[str, str]], Arm]] = {}
        for arm in arms:
            own = dict(changes.get(arm.run, {}))
            if (value := own.pop(field, None)) is not None:
                found.setdefault(value, {})[frozenset(own.items())] = arm
        for (value, those), (other, these) in combinations(found.items(), 2):
            matched = [(those[rest], these[rest]) for rest in those if rest in these]
            if len(matched) > 1:
                yield field, other, value, matched


def _mean_of(pairs: Sequence[Sequence[UnitPairs]]) -> list[UnitPairs]:
    """The mean over pairs of arms, unit by unit, of the units that all pairs have; empty if a group has none."""
    made = []
    for group in pairs[0]:
        alike = [other for groups in pairs for other in groups if other.name == group.name]
        units = [unit for unit in group.first if all(unit in other.first for other in alike)]
        if len(alike) < len(pairs) or not units:
            return []
        first, second = (
            {unit: sum(getattr(other, side)[unit] for other in alike) / len(alike) for unit in units}
            for side in ("first", "second")
        )
        made.append(replace(group, first=first, second=second))
    return made
