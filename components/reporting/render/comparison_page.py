"""Render a Comparison as one self-contained HTML page, and as Markdown."""

from collections.abc import Mapping, Sequence

from components.reporting.arm_ranking import Ranking
from components.reporting.collect.collect_training import CURVES, LOSSES
from components.reporting.collect.report_schema import Curve
from components.reporting.compare_runs import Comparison, ComparisonCell, ComparisonRow, Disagreement
from components.reporting.render import formatting
from components.reporting.render.drawing.plot_scales import linear
from components.reporting.render.markdown import escaped, table
from components.reporting.render.page import environment
from components.reporting.render.ranking_text import (
    effect_rows,
    effect_verdicts,
    rank_rows,
    ranking_summary,
    trial_rows,
    trial_verdicts,
)
from mantis.runs.arms import changes_in_words
from mantis.runs.trials import SweepTrial

LEAST_SPAN = 0.05  # minimum range of the scale of differences, as a share; below five points noise would look large
HEADED = 4  # verdicts on single runs and values above the contents; more are folded up below it
KEYED = 3  # fields that a legend names at most


def render_comparison(comparison: Comparison, ranking: Ranking | None = None, trials: Sequence[SweepTrial] = ()) -> str:
    """Render the page with style, plots and images inline, without scripts or external resources.

    The page of a sweep or an ablation has a `ranking` of its arms, and that of a search its `trials`.
    """
    summary, each = _verdicts(comparison, ranking, trials)
    labels = _labels(comparison, ranking)
    losses = _losses(comparison, labels)
    return (
        environment()
        .get_template("comparison.html")
        .render(
            comparison=comparison,
            summary=summary,
            each_verdict=each,
            span=_span(comparison),
            ranking=ranking,
            ranked=rank_rows(ranking) if ranking else [],
            effects=effect_rows(ranking) if ranking else [],
            trials=trial_rows(trials),
            runtime_differences=runtime_differences(comparison),
            labels=labels,
            losses=losses,
            tables=_score_tables(comparison),
            contents=_contents(
                comparison, ranked=ranking is not None, searched=bool(trials), folded=bool(each), lost=bool(losses)
            ),
        )
    )


def _verdicts(
    comparison: Comparison, ranking: Ranking | None, trials: Sequence[SweepTrial]
) -> tuple[list[str], list[str]]:
    """The sentences of the summary, and those on single runs and values if they are too many for a summary."""
    best = [*trial_verdicts(trials), *(ranking_summary(ranking) if ranking else [])]
    each = [*(effect_verdicts(ranking) if ranking else []), *verdicts(comparison)]
    if len(each) <= HEADED:
        return [*best, *each], []
    return best or [_tally_of_runs(comparison)], each


def _tally_of_runs(comparison: Comparison) -> str:
    tallies = [comparison.tally(number) for number in range(1, len(comparison.arms))]
    better, worse = sum(tally[0] > 0 for tally in tallies), sum(tally[2] > 0 for tally in tallies)
    first = comparison.arms[0].run
    sides = ((better, f"better than {first} on a skill"), (worse, "worse on one"))
    counts = " and ".join(f"{number} {'is' if number == 1 else 'are'} {side}" for number, side in sides)
    return f"Of {len(tallies)} runs, {counts}."


def _labels(comparison: Comparison, ranking: Ranking | None) -> dict[str, str]:
    """What a legend says of each run: an arm's changes, or the run and its values of the few fields that differ."""
    changes = {each.arm.run: changes_in_words(each.changes) for each in ranking.arms} if ranking else {}
    if all(changes.get(arm.run) for arm in comparison.arms):
        return changes
    differing = comparison.settings if len(comparison.settings) <= KEYED else ()
    labels = {}
    for number, arm in enumerate(comparison.arms):
        own = changes_in_words({name: formatting.shortened(values[number]) for name, values in differing})
        labels[arm.run] = f"{arm.run} ({own})" if own else arm.run
    return labels


def _losses(comparison: Comparison, labels: Mapping[str, str]) -> list[tuple[str, list[tuple[str, Curve]]]]:
    """For each loss that a run recorded: its title, and the curve of every run with its label."""
    drawn = []
    for name in LOSSES:
        empty = Curve(name=name, title=CURVES[name][0], unit=CURVES[name][1], points=())
        curves = [
            (labels[arm.run], next((curve for curve in arm.losses if curve.name == name), empty))
            for arm in comparison.arms
        ]
        if any(curve.points for _, curve in curves):
            drawn.append((empty.title, curves))
    return drawn


def _score_tables(comparison: Comparison) -> list[tuple[str, str, list[ComparisonRow]]]:
    named = [
        ("benchmarks", "Scores by benchmark", comparison.benchmarks),
        ("skills", "Scores by skill", comparison.skills),
    ]
    return [each for each in named if each[2]]


def _contents(
    comparison: Comparison, *, ranked: bool, searched: bool, folded: bool, lost: bool
) -> list[tuple[str, str]]:
    """The sections of the page: anchor and title."""
    return [
        *([("ranking", "Which run is best")] if ranked else []),
        *([("trials", "Trials")] if searched else []),
        *([("verdicts", "Every verdict")] if folded else []),
        ("runs", "The runs"),
        *([("losses", "Loss")] if lost else []),
        *((anchor, title) for anchor, title, _ in _score_tables(comparison)),
        ("disagreements", "Answers on which the runs disagree"),
    ]


def render_comparison_markdown(
    comparison: Comparison, ranking: Ranking | None = None, trials: Sequence[SweepTrial] = ()
) -> str:
    """Render the same content as Markdown, without images."""
    runs = [arm.run for arm in comparison.arms]
    settings = [[name, *values] for name, values in comparison.settings]
    summary, each = _verdicts(comparison, ranking, trials)
    sections = [
        f"# {escaped(' · '.join(runs))}",
        f"{comparison.made:%d %B %Y, %H:%M} UTC",
        *(f"**{escaped(sentence)}**" for sentence in summary),
        *("- " + escaped(note) for note in comparison.notes),
        *(_ranking(ranking) if ranking else []),
        *(_trials(trials) if trials else []),
        *(["## Every verdict", "\n".join("- " + escaped(sentence) for sentence in each)] if each else []),
        formatting.TESTS,
        *_tables("Scores by benchmark", comparison, comparison.benchmarks),
        *_tables("Scores by skill", comparison, comparison.skills),
        "## Differences between the recipes",
        table(["Field", *map(escaped, runs)], settings, left=1 + len(runs)) if settings else "Nothing.",
        *map(escaped, filter(None, [runtime_differences(comparison)])),
        "## Answers on which the runs disagree",
        *(_disagreement(comparison, each) for each in comparison.disagreements),
    ]
    return "\n\n".join(sections) + "\n"


def verdicts(comparison: Comparison) -> list[str]:
    """Write one sentence for every run after the first."""
    first = comparison.arms[0].run
    sentences = []
    for number, arm in enumerate(comparison.arms[1:], 1):
        better, same, worse = comparison.tally(number)
        if better + same + worse == 0:
            sentences.append(f"{arm.run} shares no sample with {first}, so the two cannot be compared.")
        elif better == worse == 0:
            skills = "the only skill" if same == 1 else f"any of {same} skills"
            sentences.append(f"{arm.run} does not differ significantly from {first} on {skills}.")
        elif better + same + worse == 1:
            how = "better" if better else "worse"
            sentences.append(f"{arm.run} is {how} than {first} on the only skill.")
        else:
            sentences.append(
                f"Of {better + same + worse} skills, {arm.run} is better than {first} on {better} and worse on {worse}."
            )
    return sentences


def runtime_differences(comparison: Comparison) -> str:
    """Name the differing fields that decide no result; empty without such fields."""
    if not comparison.runtime_settings:
        return ""
    fields = "; ".join(f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in comparison.runtime_settings)
    return f"The runs also differ in fields that decide no result: {formatting.shortened(fields)}."


def difference(cell: ComparisonCell) -> str:
    """Write `+3.2 (+1.1 to +5.4), p = 0.002, 9,100 samples for a point`; empty for the first run."""
    if cell.paired is None:
        return ""
    low, middle, high = (
        formatting.points(100 * v) for v in (cell.paired.low, cell.paired.difference, cell.paired.high)
    )
    p = formatting.probability(cell.paired.corrected_p)
    return f"{middle} ({low} to {high}), {p}{formatting.needed(cell.paired)}"


def _ranking(ranking: Ranking) -> list[str]:
    effects = effect_rows(ranking)
    return [
        "## Which run is best",
        formatting.RANKING,
        table(list(formatting.RANKED), rank_rows(ranking), left=3),
        *(["## Effect of each field", formatting.EFFECTS] if effects else []),
        *([table(list(formatting.EFFECT), effects, left=3)] if effects else []),
    ]


def _trials(trials: Sequence[SweepTrial]) -> list[str]:
    return ["## Trials", formatting.TRIALS, table(list(formatting.TRIAL), trial_rows(trials), left=3)]


def _span(comparison: Comparison) -> float:
    pairs = [cell.paired for row in comparison.rows for cell in row.cells if cell is not None and cell.paired]
    furthest = max((max(-paired.low, paired.high) for paired in pairs), default=0.0)
    return linear([max(LEAST_SPAN, furthest)], start=0, end=1).high


def _tables(title: str, comparison: Comparison, rows: list[ComparisonRow]) -> list[str]:
    if not rows:
        return []
    runs = [escaped(arm.run) for arm in comparison.arms]
    header = ["Skill", "Benchmark", *(name for run in runs for name in (run, "difference"))]
    lines = [[row.title, row.benchmark, *(part for cell in row.cells for part in _cell(cell))] for row in rows]
    return [f"## {title}", table(header, lines, left=2)]


def _cell(cell: ComparisonCell | None) -> tuple[str, str]:
    return (formatting.ABSENT, "") if cell is None else (formatting.percent(cell.score.accuracy), difference(cell))


def _disagreement(comparison: Comparison, each: Disagreement) -> str:
    said = [
        f"  - {escaped(arm.run)}: {'✓' if line.correct else '✗'} "
        f"{escaped(formatting.shortened(line.response)) or '(empty)'}"
        for arm, line in zip(comparison.arms, each.lines, strict=True)
        if line is not None
    ]
    answer = each.answer
    head = f"- {escaped(formatting.question(answer))} Expected: **{escaped(formatting.shortened(answer.answer))}**"
    return "\n".join([head, *said])
