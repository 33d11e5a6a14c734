"""Runs side by side in the terminal; the page is reporting's."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.reporting.compare_runs import Comparison, ComparisonCell, ComparisonRow, compare_runs
from components.reporting.render.comparison_page import render_comparison, render_comparison_markdown, verdicts
from mantis.runs.step_runner import open_run
from mantis.statistics import Paired
from mantis.store.base import ObjectStore


def compare(runs: list[str], store: ObjectStore, console: Console, page: Path | None) -> None:
    """Print the comparison of `runs`; with `page`, write it there as HTML, and beside it as Markdown."""
    comparison = compare_runs([open_run(run, store.url) for run in runs])
    if comparison.settings:
        console.print(_settings(comparison))
        console.print()
    for rows in (comparison.benchmarks, comparison.skills):
        if rows:
            console.print(_scores(comparison, rows))
            console.print()
    for sentence in verdicts(comparison):
        console.print(sentence, markup=False)
    for note in comparison.notes:
        console.print(note, style="yellow", markup=False)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_comparison(comparison))
        page.with_suffix(".md").write_text(render_comparison_markdown(comparison))
        console.print(f"page  {page}")


def _settings(comparison: Comparison) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("recipe")
    for arm in comparison.arms:
        table.add_column(arm.run, overflow="fold")
    for name, values in comparison.settings:
        table.add_row(name, *values)
    return table


def _scores(comparison: Comparison, rows: list[ComparisonRow]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("benchmark" if rows[0].overall else "skill")
    table.add_column("samples", justify="right")
    for number, arm in enumerate(comparison.arms):
        table.add_column(arm.run, justify="right", overflow="fold")
        if number:
            table.add_column("difference, 95 %, p", justify="right", no_wrap=True)
    for row in rows:
        samples = next(cell.score.samples for cell in row.cells if cell is not None)
        cells = [part for number, cell in enumerate(row.cells) for part in _cell(cell, number)]
        name = row.title if row.overall else f"{row.title} [dim]{row.benchmark}[/]"
        table.add_row(name, f"{samples:,}", *cells)
    return table


def _cell(cell: ComparisonCell | None, number: int) -> list[str]:
    if cell is None:
        return ["-"] + [""] * bool(number)
    score = f"{100 * cell.score.accuracy:.1f}"
    return [score, _difference(cell.paired)] if number else [score]


def _difference(paired: Paired | None) -> str:
    if paired is None:
        return ""
    colour = "dim" if not paired.significant else "green" if paired.difference > 0 else "red"
    middle, low, high = (100 * value for value in (paired.difference, paired.low, paired.high))
    p = "p<0.001" if paired.p < 0.001 else f"p={paired.p:.3f}"
    return f"[{colour}]{middle:+.1f}  {low:+.1f} to {high:+.1f}  {p}[/]"
