"""Show a comparison of runs in the terminal, as JSON data, and as pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from components.reporting.arm_ranking import Ranking
from components.reporting.compare_runs import Comparison, ComparisonCell, ComparisonRow
from components.reporting.render.comparison_page import (
    render_comparison,
    render_comparison_markdown,
    runtime_differences,
    verdicts,
)
from components.reporting.render.formatting import EFFECT, EFFECTS, RANKED, RANKING, TESTS, TRIAL, TRIALS
from components.reporting.render.ranking_text import (
    effect_rows,
    rank_rows,
    ranking_data,
    ranking_verdicts,
    trial_data,
    trial_rows,
    trial_verdicts,
)
from mantis.runs.trials import SweepTrial
from mantis.statistics import Paired
from pipelines.cli.console import Cell as Shown
from pipelines.cli.console import ids, names, note, numbers, show, show_table, tell, texts


def show_comparison(comparison: Comparison) -> None:
    """Print the differences of the recipes, the scores, and a verdict on each run."""
    arms = [arm.run for arm in comparison.arms]
    if comparison.settings:
        show_table([*ids("recipe"), *texts(*arms)], [(name, *values) for name, values in comparison.settings])
        show()
    if aside := runtime_differences(comparison):
        tell(aside)
    for rows in (comparison.benchmarks, comparison.skills):
        if rows:
            _show_scores(arms, rows)
            show()
    for sentence in verdicts(comparison):
        tell(sentence)
    tell(TESTS)
    for remark in comparison.notes:
        note(remark)


def show_ranking(ranking: Ranking | None, trials: Sequence[SweepTrial]) -> None:
    """Print the trials of a search, the ranked arms, the effects of the fields, and which arm is best."""
    if trials:
        show_table([*numbers(TRIAL[0]), *ids(TRIAL[1]), *texts(*TRIAL[2:4]), *numbers(TRIAL[4])], trial_rows(trials))
        tell(TRIALS)
        for sentence in trial_verdicts(trials):
            show(sentence)
    if ranking is None:
        return
    show_table([*ids(RANKED[0]), *texts(RANKED[1]), *numbers(*RANKED[2:])], rank_rows(ranking))
    tell(RANKING)
    if ranking.effects:
        show_table([*ids(EFFECT[0]), *texts(*EFFECT[1:3]), *numbers(*EFFECT[3:])], effect_rows(ranking))
        tell(EFFECTS)
    for sentence in ranking_verdicts(ranking):
        show(sentence)


def sweep_data(comparison: Comparison, ranking: Ranking | None, trials: Sequence[SweepTrial]) -> dict[str, Any]:
    """Return the comparison of a sweep for JSON, with its ranking and its trials."""
    found = as_data(comparison)
    best = [*trial_verdicts(trials), *(ranking_verdicts(ranking) if ranking else [])]
    return found | {
        "verdicts": [*best, *found["verdicts"]],
        "ranking": ranking_data(ranking),
        "trials": trial_data(trials),
    }


def write_pages(comparison: Comparison, page: Path) -> None:
    """Write the comparison to `page` as HTML, and beside it as Markdown."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_comparison(comparison))
    page.with_suffix(".md").write_text(render_comparison_markdown(comparison))


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for JSON; accuracies and differences are shares from 0 to 1."""
    return {
        "runs": [arm.run for arm in comparison.arms],
        "settings": {name: list(values) for name, values in (*comparison.settings, *comparison.runtime_settings)},
        "scores": [_row_data(comparison, row) for row in comparison.rows],
        "verdicts": verdicts(comparison),
        "notes": list(comparison.notes),
    }


def _row_data(comparison: Comparison, row: ComparisonRow) -> dict[str, Any]:
    return {
        "benchmark": row.benchmark,
        "skill": row.skill,
        "overall": row.overall,
        "runs": [
            None if cell is None else {"run": arm.run} | _cell_data(cell)
            for arm, cell in zip(comparison.arms, row.cells, strict=True)
        ],
    }


def _cell_data(cell: ComparisonCell) -> dict[str, Any]:
    score, paired = cell.score, cell.paired
    data = {"samples": score.samples, "accuracy": score.accuracy, "low": score.low, "high": score.high}
    if paired is None:
        return data | {"difference": None}
    return data | {
        "difference": {
            "value": paired.difference,
            "low": paired.low,
            "high": paired.high,
            "p": paired.p,
            "corrected_p": paired.corrected_p,
            "test": paired.test,
            "significant": paired.significant,
            "samples_for_a_point": paired.needed,
        }
    }


def _show_scores(arms: list[str], rows: list[ComparisonRow]) -> None:
    overall = rows[0].overall
    columns = [*ids("benchmark" if overall else "skill"), *([] if overall else names("of")), *numbers("samples")]
    for number, arm in enumerate(arms):
        columns += numbers(arm, "difference, 95 %, p, for a point") if number else numbers(arm)
    shown = []
    for row in rows:
        samples = next(cell.score.samples for cell in row.cells if cell is not None)
        cells = [part for number, cell in enumerate(row.cells) for part in _cells(cell, number)]
        of = [] if overall else [row.benchmark]
        shown.append([row.title, *of, f"{samples:,}", *cells])
    show_table(columns, shown)


def _cells(cell: ComparisonCell | None, number: int) -> list[Shown]:
    if cell is None:
        return ["-", ""] if number else ["-"]
    score = f"{100 * cell.score.accuracy:.1f}"
    return [score, _difference(cell.paired)] if number else [score]


def _difference(paired: Paired | None) -> Text:
    if paired is None:
        return Text()
    colour = "dim" if not paired.significant else "green" if paired.difference > 0 else "red"
    middle, low, high = (100 * value for value in (paired.difference, paired.low, paired.high))
    p = "p<0.001" if paired.corrected_p < 0.001 else f"p={paired.corrected_p:.3f}"
    needed = "" if paired.needed is None else f"  {paired.needed:,}"
    return Text(f"{middle:+.1f}  {low:+.1f} to {high:+.1f}  {p}{needed}", style=colour)
