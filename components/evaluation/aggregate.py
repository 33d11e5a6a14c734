"""Aggregates responses into the rows of scores.json, with intervals, chance and controls.

A benchmark has a row per skill. If it sets `aggregation`, it also has an `overall` row, the headline.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

import numpy as np

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.controls import Condition
from components.evaluation.readers.benchmark_reader import Missing
from mantis.artifacts.manifest import Number
from mantis.artifacts.responses import Response
from mantis.artifacts.scores import PublishedScore, Score, skill_weights
from mantis.statistics import p_above_chance, stratified_interval

Value = Callable[[Response], float]
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
    **{name: name for control in CONTROLS for name in (control, f"{control}_p")},
}


def score_rows(benchmark: Benchmark, responses: Responses, missing: Sequence[Missing], *, seed: int) -> list[Score]:
    """Compute the rows of scores.json: the headline first, then the benchmark's skills that occur.

    Accuracies are shares from 0 to 1. A control is None if it was not asked. Its p-value is also None if the chance
    is 0, since nothing can be guessed.
    """
    groups = {
        skill: {condition: _of(given, skill) for condition, given in responses.items()} for skill in benchmark.skills
    }
    groups = {skill: group for skill, group in groups.items() if group["actual"]}
    rows = [_row(benchmark, skill, [group], missing, seed) for skill, group in groups.items()]
    if benchmark.aggregation is None:
        return rows
    strata = list(groups.values())
    if benchmark.aggregation == "micro":
        strata = [{condition: [each for group in strata for each in group[condition]] for condition in responses}]
    return [_row(benchmark, OVERALL, strata, missing, seed), *rows]


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
    strata: Sequence[Mapping[Condition, Sequence[Response]]],
    missing: Sequence[Missing],
    seed: int,
) -> Score:
    """Compute one row. Its accuracy is the mean of the strata's means. Only an average over skills has several."""
    overall = skill == OVERALL
    groups = _groups(benchmark)
    actual = [stratum["actual"] for stratum in strata]
    weights = _weights(actual, groups)
    low, high = stratified_interval([_units(stratum, SCORE) for stratum in actual], seed=seed, weights=weights)
    chance = float(np.dot(weights, [_chance(benchmark, stratum) for stratum in actual]))
    controls = {
        name: value for control in CONTROLS for name, value in _control(control, strata, chance, groups).items()
    }
    return Score(
        benchmark=benchmark.name,
        skill=skill,
        label=benchmark.title if overall else benchmark.skills[skill].label,
        metric=benchmark.metric,
        aggregation=benchmark.aggregation if overall else None,
        groups=groups if overall else {},
        samples=sum(len(stratum) for stratum in actual),
        missing=sum(overall or each.skill == skill for each in missing),
        accuracy=_mean(actual, SCORE, groups),
        low=low,
        high=high,
        official=_mean(actual, attrgetter("official"), groups),
        strict=_mean(actual, attrgetter("strict"), groups),
        chance=chance,
        unparsed=sum(not response.parsed for stratum in actual for response in stratum),
        cut=sum(response.cut for stratum in actual for response in stratum),
        variants=_variants(actual, groups),
        paper=_published(benchmark) if overall else (),
        **controls,
    )


def _control(
    control: Condition,
    strata: Sequence[Mapping[Condition, Sequence[Response]]],
    chance: float,
    groups: Mapping[str, str],
) -> dict[str, float | None]:
    """A control's accuracy, and its one-sided p against chance; None where it was not asked or cannot be guessed."""
    asked = [stratum[control] for stratum in strata if stratum.get(control)]
    given = [response for stratum in asked for response in stratum]
    right = sum(response.correct for response in given)
    return {
        control: _mean(asked, SCORE, groups) if asked else None,
        f"{control}_p": p_above_chance(right, len(given), chance) if given and chance > 0 else None,
    }


def _published(benchmark: Benchmark) -> tuple[PublishedScore, ...]:
    return tuple(
        PublishedScore(
            model=each.model, accuracy=each.accuracy, source=each.source, comparable=benchmark.comparable(each)
        )
        for each in benchmark.paper
    )


def _of(responses: Sequence[Response], skill: str) -> list[Response]:
    return [response for response in responses if response.skill == skill]


def _variants(strata: Sequence[Sequence[Response]], groups: Mapping[str, str]) -> dict[str, float]:
    """The accuracy of each variant of the metric. Responses of earlier versions have no variants."""
    names = {name for stratum in strata for response in stratum for name in response.variants}
    return {name: _mean(strata, partial(_variant, name), groups) for name in sorted(names)}


def _variant(name: str, response: Response) -> float:
    return response.variants.get(name, response.official)


def _units(responses: Sequence[Response], value: Value) -> list[float]:
    """The lowest value of each unit, since a unit is right only if all of its samples are."""
    units: dict[str, float] = defaultdict(lambda: 1.0)
    for response in responses:
        units[response.unit] = min(units[response.unit], value(response))
    return list(units.values())


def _chance(benchmark: Benchmark, responses: Sequence[Response]) -> float:
    """Expected accuracy of guessing: the mean over units of the product of their samples' chances.

    A sample's chance is that of its skill, else 1 / its number of options, else 0.
    """
    units: dict[str, float] = defaultdict(lambda: 1.0)
    for response in responses:
        told = benchmark.skills[response.skill].chance
        options = response.target["options"]
        units[response.unit] *= told if told is not None else 1 / len(options) if options else 0.0
    return float(np.mean(list(units.values())))


def _groups(benchmark: Benchmark) -> dict[str, str]:
    """The group of each skill in a grouped average; empty for the other ones."""
    if benchmark.aggregation != "grouped":
        return {}
    return {name: str(skill.group) for name, skill in benchmark.skills.items()}


def _weights(strata: Sequence[Sequence[Response]], groups: Mapping[str, str]) -> list[float]:
    return skill_weights([stratum[0].skill for stratum in strata], groups)


def _mean(strata: Sequence[Sequence[Response]], value: Value, groups: Mapping[str, str]) -> float:
    """The weighted mean of the strata's means over their units."""
    return float(np.dot(_weights(strata, groups), [np.mean(_units(stratum, value)) for stratum in strata]))
