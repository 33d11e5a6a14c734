"""Compare runs, skill by skill, with paired tests on the samples that both answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.collect_training import loss_curves
from components.reporting.collect.collector import stored_answers, stored_scores
from components.reporting.collect.report_schema import Answer, Curve
from mantis.artifacts.clusters import clusters_of, links_of
from mantis.artifacts.held_out import BENCHMARK as HELD_OUT
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.scores import Score, skill_weights
from mantis.config.identity import runtime_only_fields
from mantis.config.overrides import flat
from mantis.errors import ConfigError
from mantis.runs.records import State, read_records
from mantis.runs.step_runner import Run
from mantis.statistics import Paired, compare, corrected

EVALUATE = "evaluate-"
SHOWN = 24  # number of shown answers on which the runs disagree
SEED = 0  # of the paired bootstrap, so that a repeated comparison gives the same numbers


class ComparisonLine(BaseModel):
    """The fields of a scored response that a comparison needs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question: str
    images: tuple[dict[str, str], ...]
    skill: str
    unit: str
    score: float
    response: str
    correct: bool
    cluster: str = ""

    def asks_the_same(self, other: "ComparisonLine") -> bool:
        """Compare questions and images: generated benchmarks reuse ids for other samples if the seed differs."""
        return (self.question, self._pictures()) == (other.question, other._pictures())

    @property
    def links(self) -> frozenset[str]:
        """What the sample may share with others: its images and its clip."""
        return links_of(self.images, self.cluster)

    def _pictures(self) -> list[str | None]:
        return [image.get("sha256") for image in self.images]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the compared runs. Its responses are by benchmark and sample."""

    run: str
    recipe: str
    settings: dict[str, Any]  # the resolved recipe, by dotted field name
    models: tuple[str, ...]  # fingerprints of the evaluated models
    scores: dict[tuple[str, str], Score]  # by benchmark and skill
    lines: dict[str, dict[str, ComparisonLine]]
    gallery: tuple[Answer, ...]
    summary: dict[str, Any]  # of the checkpoint's manifest
    losses: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class UnitPairs:
    """The scores of two runs on the same units, in one group of a mean; all dictionaries are by unit, in one order.

    Args:
        name: benchmark, skill and group, which tell groups apart.
        weight: of the group in the mean.
        first: scores of the first run.
        second: scores of the second run.
        clusters: names of the clusters that share an image or a clip.
    """

    name: tuple[str, str, str]
    weight: float
    first: dict[str, float]
    second: dict[str, float]
    clusters: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ComparisonCell:
    """A run's score and its difference from the first run; `paired` is None for the first run or without a test."""

    score: Score
    paired: Paired | None


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One skill or benchmark over the runs; None for a run without a score."""

    benchmark: str
    skill: str
    title: str
    overall: bool
    cells: tuple[ComparisonCell | None, ...]


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A sample that some runs got right and others wrong, with each run's response; None if a run lacks it."""

    answer: Answer
    lines: tuple[ComparisonLine | None, ...]


Differing = tuple[tuple[str, tuple[str, ...]], ...]  # recipe fields whose values differ, with one value per run


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of `arms` with the first of them. `notes` name everything that could not be compared."""

    arms: tuple[Arm, ...]
    made: datetime
    rows: tuple[ComparisonRow, ...]
    settings: Differing  # fields that decide results
    disagreements: tuple[Disagreement, ...]
    notes: tuple[str, ...]
    runtime_settings: Differing = ()  # fields that decide no result, e.g. how often a checkpoint is saved

    @property
    def skills(self) -> list[ComparisonRow]:
        """The rows that are about a skill."""
        return [row for row in self.rows if not row.overall]

    @property
    def benchmarks(self) -> list[ComparisonRow]:
        """The rows that are about a whole benchmark."""
        return [row for row in self.rows if row.overall]

    def tally(self, arm: int) -> tuple[int, int, int]:
        """Count the skills on which the run is significantly better than the first run, not different, and worse.

        The p values are corrected for all tests of the skills.
        """
        found = [row.cells[arm] for row in self.skills]
        tested = [cell.paired for cell in found if cell is not None and cell.paired is not None]
        better = sum(paired.significant and paired.difference > 0 for paired in tested)
        worse = sum(paired.significant and paired.difference < 0 for paired in tested)
        return better, len(tested) - better - worse, worse


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare runs of one store or of several with the first of them.

    Raises:
        ConfigError: fewer than two runs, a run named twice, or a run without evaluations.
    """
    ids = [run.id for run in runs]
    if len(ids) < 2 or len(set(ids)) < len(ids):
        raise ConfigError(
            f"{len(set(ids))} different runs are named, but a comparison takes two or more.",
            remedy="Choose runs from the list that `mantis status` prints.",
        )
    notes: list[str] = []
    arms = tuple(_arm(run, notes) for run in runs)
    names = dict.fromkeys(name for arm in arms for name in arm.scores)
    rows = [_row(arms, name, notes) for name in names]
    runtime_only = {name for run in runs for name in runtime_only_fields(run.recipe)}
    settings, runtime_settings = _different_settings(arms, runtime_only)
    skills, benchmarks = ([row for row in rows if row.overall is overall] for overall in (False, True))
    return Comparison(
        arms=arms,
        made=datetime.now(UTC),
        rows=(*_corrected(benchmarks), *_corrected(skills)),
        settings=settings,
        runtime_settings=runtime_settings,
        disagreements=_disagreements(arms),
        notes=tuple(dict.fromkeys(notes)),
    )


def _arm(run: Run, notes: list[str]) -> Arm:
    reader = Reader(run.store)
    records = [record for record in read_records(run.store, run.id) if record.state in (State.DONE, State.REUSED)]
    evaluations = {
        record.step.removeprefix(EVALUATE): manifest
        for record in records
        if record.step.startswith(EVALUATE) and (manifest := read_manifest(run.store, record.key)) is not None
    }
    if not evaluations:
        raise ConfigError(
            f"run = {run.id!r} has evaluated nothing yet.", remedy=f"Look at its steps with `mantis status {run.id}`."
        )
    ordered = [evaluations[name] for name in (*run.recipe.evaluation.benchmarks, HELD_OUT) if name in evaluations]
    scores = [score for manifest in ordered for score in stored_scores(reader, manifest)]
    train = next((record for record in records if record.step == "train"), None)
    checkpoint = read_manifest(run.store, train.key) if train else None
    arm = Arm(
        run=run.id,
        recipe=run.recipe.name,
        settings=flat(run.recipe.model_dump(mode="json")),
        models=tuple(dict.fromkeys(manifest.inputs["model"].fingerprint for manifest in ordered)),
        scores={(score.benchmark, score.skill): score for score in scores},
        lines={name: _lines(reader, manifest) for name, manifest in evaluations.items()},
        gallery=tuple(row for each in ordered for row in stored_answers(reader, each)),
        summary=dict(train.summary) if train else {},
        losses=loss_curves(reader, checkpoint) if checkpoint else (),
    )
    notes += [f"{run.id}: {note}" for note in reader.notes]
    return arm


def _lines(reader: Reader, evaluation: Manifest) -> dict[str, ComparisonLine]:
    try:
        lines = [ComparisonLine.model_validate(row) for row in reader.responses(evaluation)]
    except ValidationError:
        reader.note(
            f"{evaluation.key} was written by an earlier version. Evaluate again to compare it sample by sample."
        )
        return {}
    return {line.id: line for line in lines}


def _row(arms: Sequence[Arm], name: tuple[str, str], notes: list[str]) -> ComparisonRow:
    scores = [arm.scores.get(name) for arm in arms]
    told = next(score for score in scores if score is not None)
    cells = [
        None
        if score is None
        else ComparisonCell(score=score, paired=_paired(arms[0], arm, score, notes) if number and scores[0] else None)
        for number, (arm, score) in enumerate(zip(arms, scores, strict=True))
    ]
    return ComparisonRow(
        benchmark=told.benchmark, skill=told.skill, title=told.title, overall=told.overall, cells=tuple(cells)
    )


def _corrected(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Correct the p of all tests of one table together."""
    tests = corrected([cell.paired for row in rows for cell in row.cells if cell is not None and cell.paired])
    following = iter(tests)

    def cell_of(cell: ComparisonCell | None) -> ComparisonCell | None:
        return cell if cell is None or cell.paired is None else replace(cell, paired=next(following))

    return [replace(row, cells=tuple(cell_of(cell) for cell in row.cells)) for row in rows]


def _paired(first: Arm, second: Arm, score: Score, notes: list[str]) -> Paired | None:
    """Test the difference on the samples that both runs answered; None if they share none."""
    return paired_test(unit_pairs(first, second, score, notes))


def unit_pairs(first: Arm, second: Arm, score: Score, notes: list[str]) -> list[UnitPairs]:
    """Return the groups of the mean that `score` is, on the samples that both runs answered; empty if they share none.

    The weights sum to 1. `notes` gets a sentence if a run has samples that the other lacks.
    """
    ours, theirs = second.lines.get(score.benchmark, {}), first.lines.get(score.benchmark, {})
    shared = [sample for sample, line in theirs.items() if sample in ours and line.asks_the_same(ours[sample])]
    if ours and theirs and len(shared) < max(len(ours), len(theirs)):
        notes.append(
            f"{score.benchmark}: {first.run} and {second.run} share {len(shared):,} samples. The test uses only those."
        )
    groups: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    for sample in shared:
        line = theirs[sample]
        if not score.overall and line.skill != score.skill:
            continue
        pair = groups.setdefault(line.skill if score.aggregation in ("macro", "grouped") else "", ({}, {}))
        for units, value in zip(pair, (line.score, ours[sample].score), strict=True):
            units[line.unit] = min(units.get(line.unit, 1.0), value)  # a unit is right if all of its samples are
    names = clusters_of((theirs[sample].unit, theirs[sample].links) for sample in shared)
    return [
        UnitPairs(
            name=(score.benchmark, score.skill, group),
            weight=weight,
            first=one,
            second=other,
            clusters={unit: names[unit] for unit in one},
        )
        for (group, (one, other)), weight in zip(groups.items(), skill_weights(list(groups), score.groups), strict=True)
    ]


def paired_test(groups: Sequence[UnitPairs]) -> Paired | None:
    """Test the mean of the groups, second run minus first; None without groups."""
    if not groups:
        return None
    return compare(
        [list(group.first.values()) for group in groups],
        [list(group.second.values()) for group in groups],
        seed=SEED,
        clusters=[[group.clusters[unit] for unit in group.first] for group in groups],
        weights=[group.weight for group in groups],
    )


def _disagreements(arms: Sequence[Arm]) -> tuple[Disagreement, ...]:
    """Select samples with images from the runs' galleries: a few of each skill before more of any."""
    seen: dict[tuple[str, str], Answer] = {}
    for answer in (answer for arm in arms for answer in arm.gallery):
        seen.setdefault((answer.benchmark, answer.id), answer)
    found: dict[tuple[str, str], list[Disagreement]] = {}
    for (benchmark, sample), answer in seen.items():
        lines = tuple(arm.lines.get(benchmark, {}).get(sample) for arm in arms)
        asked = [line for line in lines if line is not None]
        if len({line.correct for line in asked}) == 2 and all(line.asks_the_same(asked[0]) for line in asked):
            found.setdefault((benchmark, answer.skill), []).append(Disagreement(answer=answer, lines=lines))
    ranked = [(rank, place, each) for place, group in enumerate(found.values()) for rank, each in enumerate(group)]
    kept = sorted(sorted(ranked, key=lambda item: item[:2])[:SHOWN], key=lambda item: (item[1], item[0]))
    return tuple(each for _, _, each in kept)


def _different_settings(arms: Sequence[Arm], runtime_only: Iterable[str]) -> tuple[Differing, Differing]:
    """The fields that differ: those that decide results, and those that decide none.

    `runtime_only` has the names of fields and whole sections that decide none.
    """
    names = dict.fromkeys(name for arm in arms for name in arm.settings)
    rows = {name: tuple(str(arm.settings.get(name, "")) for arm in arms) for name in names}
    prefixes = tuple(f"{name}." for name in runtime_only)
    sides: dict[bool, list[tuple[str, tuple[str, ...]]]] = {False: [], True: []}  # by whether the field decides none
    for name, values in rows.items():
        if len(set(values)) > 1:
            sides[f"{name}.".startswith(prefixes)].append((name, values))
    return tuple(sides[False]), tuple(sides[True])
