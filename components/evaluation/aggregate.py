"""Aggregates responses into the rows of scores.json, with intervals, chance and controls.

A benchmark has a row per skill. If it sets `aggregation`, it also has an `overall` row, the headline.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import numpy as np

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.comparability import published
from components.evaluation.controls import Condition
from components.evaluation.readers.benchmark_reader import Missing
from components.evaluation.sample_units import SampleChances, Unit, cluster_of_each_unit, units_of
from mantis.artifacts.manifest import Number
from mantis.artifacts.responses import Response
from mantis.artifacts.scores import Score, skill_weights
from mantis.statistics import holm, p_above_chance, stratified_interval

Value = Callable[[Unit], float]
Skilled = tuple[str, Sequence[Unit]]  # a skill and its units
Responses = Mapping[Condition, Sequence[Response]]
CONTROLS: tuple[Condition, ...] = ("blind", "shuffled")
OVERALL = "overall"
SCORE: Value = attrgetter("score")
# Figures of the manifest's summary, by the fields of a row; those of a control only where it was asked.
SUMMARIZED = {
    "accuracy": "accuracy",
    "accuracy_low": "low",
    "accuracy_high": "high",
    **{name: name for name in ("official", "strict", "chance", "samples", "missing", "unparsed")},
    **{name: name for control in CONTROLS for name in (control, f"{control}_p", f"{control}_corrected_p")},
}


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """The responses and the units of one group by condition. An average over skills has a stratum for each skill."""

    skill: str
    responses: Sequence[Response]
    units: Mapping[Condition, Sequence[Unit]]

    @property
    def actual(self) -> Sequence[Unit]:
        """The units of the benchmark as it is."""
        return self.units["actual"]


def score_rows(
    benchmark: Benchmark,
    responses: Responses,
    missing: Sequence[Missing],
    *,
    seed: int,
    conditions: Mapping[str, str] | None = None,
) -> list[Score]:
    """Compute the rows of scores.json: the headline first, then the benchmark's skills that occur.

    Accuracies are shares from 0 to 1. A control is None if it was not asked. Its p is also None if nothing can be
    guessed. `conditions` say how the responses were made and scored: see `comparability`.
    """
    chances, clusters = SampleChances(benchmark), cluster_of_each_unit(responses["actual"])
    groups: dict[str, Stratum] = {}
    by_skill = {condition: _by_skill(given) for condition, given in responses.items()}
    for skill in benchmark.skills:
        own = {condition: given.get(skill, []) for condition, given in by_skill.items()}
        if own["actual"]:
            units = {condition: units_of(given, chances, clusters) for condition, given in own.items()}
            groups[skill] = Stratum(skill=skill, responses=own["actual"], units=units)
    told = dict(conditions or {})
    rows = _corrected([_row(benchmark, skill, [group], missing, seed, told) for skill, group in groups.items()], 1)
    if benchmark.aggregation is None:
        return rows
    strata = list(groups.values())
    if benchmark.aggregation == "micro":
        strata = [_joined(strata, list(responses))]
    # The headline is the first question, and the skills are one family. Each gets half of the level.
    headline = _corrected([_row(benchmark, OVERALL, strata, missing, seed, told)], 2)
    return [*headline, *_corrected(rows, 2)]


def marked_as_sample(row: Score, drawn_from: Mapping[str, int]) -> Score:
    """Mark a row of a random sample with the number of samples that it was drawn from, by skill.

    No published figure is comparable with it.
    """
    whole = sum(number for skill, number in drawn_from.items() if skill != OVERALL)
    published = tuple(each.model_copy(update={"comparable": False}) for each in row.paper)
    return row.model_copy(update={"drawn_from": whole if row.overall else drawn_from[row.skill], "paper": published})


def summarize(rows: Sequence[Score]) -> dict[str, Number]:
    """Flatten the rows into numbers for the manifest. `accuracy` is the headline's, else the mean over skills."""
    headline = [row for row in rows if row.overall]
    skills = [row for row in rows if not row.overall]
    summary: dict[str, Number] = {
        "samples": sum(row.samples for row in skills),
        "accuracy": float(np.mean([row.accuracy for row in headline or skills])),
    }
    for row in rows:
        for name, field in SUMMARIZED.items():
            value = getattr(row, field)
            if value is not None:
                summary[f"{row.skill}/{name}"] = value
    return summary


def _row(
    benchmark: Benchmark,
    skill: str,
    strata: Sequence[Stratum],
    missing: Sequence[Missing],
    seed: int,
    conditions: dict[str, str],
) -> Score:
    """Compute one row. Its accuracy is the mean of the strata's means. Only an average over skills has several."""
    overall = skill == OVERALL
    groups = _groups(benchmark)
    actual = [(stratum.skill, stratum.actual) for stratum in strata]
    scores = [[unit.score for unit in stratum.actual] for stratum in strata]
    clusters = [[unit.cluster for unit in stratum.actual] for stratum in strata]
    low, high = stratified_interval(scores, seed=seed, clusters=clusters, weights=_weights(actual, groups))
    responses = [response for stratum in strata for response in stratum.responses]
    row = Score(
        benchmark=benchmark.name,
        skill=skill,
        label=benchmark.title if overall else benchmark.skills[skill].label,
        metric=benchmark.metric,
        aggregation=benchmark.aggregation if overall else None,
        groups=groups if overall else {},
        samples=len(responses),
        missing=sum(overall or each.skill == skill for each in missing),
        units=sum(map(len, scores)),
        clusters=sum(len(set(labels)) for labels in clusters),
        accuracy=_mean(actual, SCORE, groups),
        low=low,
        high=high,
        official=_mean(actual, attrgetter("official"), groups),
        strict=_mean(actual, attrgetter("strict"), groups),
        chance=_mean(actual, attrgetter("chance"), groups),
        unparsed=sum(not response.parsed for response in responses),
        cut=sum(response.cut for response in responses),
        variants=_variants(actual, groups),
        conditions=conditions,
        **{name: value for control in CONTROLS for name, value in _control(control, strata, groups).items()},
    )
    return published(row, benchmark)


def _control(control: Condition, strata: Sequence[Stratum], groups: Mapping[str, str]) -> dict[str, float | None]:
    """A control's accuracy, and its one-sided p against chance; None where it was not asked or cannot be guessed.

    The test counts the units that are right, among those that can be guessed. Their number has the Poisson-binomial
    distribution of their chances.
    """
    asked = [(stratum.skill, units) for stratum in strata if (units := stratum.units.get(control))]
    guessed = [unit for _, units in asked for unit in units if unit.guessed > 0]
    right = sum(unit.correct for unit in guessed)
    return {
        control: _mean(asked, SCORE, groups) if asked else None,
        f"{control}_p": p_above_chance(right, [unit.guessed for unit in guessed]) if guessed else None,
    }


def _by_skill(responses: Iterable[Response]) -> dict[str, list[Response]]:
    skills: dict[str, list[Response]] = {}
    for response in responses:
        skills.setdefault(response.skill, []).append(response)
    return skills


def _corrected(rows: Sequence[Score], families: int) -> list[Score]:
    """Correct each control's p for the number of `rows`, and for the number of families that share the level."""
    result = list(rows)
    for control in CONTROLS:
        tested = [(place, p) for place, row in enumerate(result) if (p := getattr(row, f"{control}_p")) is not None]
        for (place, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            result[place] = result[place].model_copy(update={f"{control}_corrected_p": min(1.0, families * p)})
    return result


def _joined(strata: Sequence[Stratum], conditions: Sequence[Condition]) -> Stratum:
    return Stratum(
        skill=OVERALL,
        responses=[response for stratum in strata for response in stratum.responses],
        units={name: [unit for stratum in strata for unit in stratum.units[name]] for name in conditions},
    )


def _variants(strata: Sequence[Skilled], groups: Mapping[str, str]) -> dict[str, float]:
    """The accuracy of each variant of the metric. Responses of earlier versions have no variants."""
    names = {name for _, units in strata for unit in units for name in unit.variants}
    return {name: _mean(strata, partial(_variant, name), groups) for name in sorted(names)}


def _variant(name: str, unit: Unit) -> float:
    return unit.variants.get(name, unit.official)


def _groups(benchmark: Benchmark) -> dict[str, str]:
    """The group of each skill in a grouped average; empty for the other ones."""
    if benchmark.aggregation != "grouped":
        return {}
    return {name: str(skill.group) for name, skill in benchmark.skills.items()}


def _weights(strata: Sequence[Skilled], groups: Mapping[str, str]) -> list[float]:
    return skill_weights([skill for skill, _ in strata], groups)


def _mean(strata: Sequence[Skilled], value: Value, groups: Mapping[str, str]) -> float:
    """The weighted mean of the strata's means over their units."""
    means = [np.mean([value(unit) for unit in units]) for _, units in strata]
    return float(np.dot(_weights(strata, groups), means))
