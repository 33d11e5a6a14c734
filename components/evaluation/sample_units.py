"""Joins scored samples into units, the things that a score counts, and finds units that share an image or a clip."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.guesses import Chance, chance_of
from components.evaluation.scoring.targets import parse_target
from mantis.artifacts.clusters import clusters_of, links_of
from mantis.artifacts.responses import Response


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit is right only if all of its samples are. So its scores are the lowest ones of its samples.

    `chance` and `guessed` are the expected score of a guess, and its probability to be right: products over the
    samples. `cluster` names the units that share an image or a clip.
    """

    score: float
    official: float
    strict: float
    variants: Mapping[str, float]
    correct: bool
    chance: float
    guessed: float
    cluster: str


class SampleChances:
    """The chance of each sample of a benchmark, computed once for all conditions."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._known: dict[str, Chance] = {}

    def __getitem__(self, response: Response) -> Chance:
        if response.id not in self._known:
            target = parse_target(response.target, origin=response.id)
            self._known[response.id] = chance_of(target, response.question, self._benchmark, response.skill)
        return self._known[response.id]


def units_of(responses: Sequence[Response], chances: SampleChances, clusters: Mapping[str, str]) -> list[Unit]:
    """Join the samples of each unit. `clusters` names the cluster of each unit."""
    samples: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        samples[response.unit].append(response)
    return [_unit(each, [chances[response] for response in each], clusters[name]) for name, each in samples.items()]


def cluster_of_each_unit(responses: Iterable[Response]) -> dict[str, str]:
    """Name the cluster of each unit: units that share an image or a clip have the same one."""
    return clusters_of((response.unit, links_of(response.images, response.cluster)) for response in responses)


def _unit(samples: Sequence[Response], chances: Sequence[Chance], cluster: str) -> Unit:
    if len(samples) == 1:  # nearly every unit of most benchmarks
        return _unit_of_one(samples[0], chances[0], cluster)
    chance = guessed = 1.0
    for each in chances:
        chance *= each.score
        guessed *= each.right
    return Unit(
        score=min(sample.score for sample in samples),
        official=min(sample.official for sample in samples),
        strict=min(sample.strict for sample in samples),
        variants={
            name: min(sample.variants.get(name, sample.official) for sample in samples)
            for name in {name for sample in samples for name in sample.variants}
        },
        correct=all(sample.correct for sample in samples),
        chance=chance,
        guessed=guessed,
        cluster=cluster,
    )


def _unit_of_one(sample: Response, chance: Chance, cluster: str) -> Unit:
    return Unit(
        score=sample.score,
        official=sample.official,
        strict=sample.strict,
        variants=sample.variants,
        correct=sample.correct,
        chance=chance.score,
        guessed=chance.right,
        cluster=cluster,
    )
