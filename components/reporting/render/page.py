"""Render a RunReport as one self-contained HTML page."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from components.reporting.collect.reference_table import reference_table, verdict_of
from components.reporting.collect.report_schema import RunReport, StepTime, Training
from components.reporting.collect.verdict import context, verdict
from components.reporting.render import formatting
from components.reporting.render.accessible_table import accessible
from components.reporting.render.drawing import plots


def render_page(report: RunReport) -> str:
    """Render the page with style, plots and images inline, without scripts or external resources."""
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            verdict=verdict(report.scores),
            verdicts=[verdict_of(score, report.reference, report.margin) for score in report.benchmarks],
            ladder=reference_table(report.benchmarks, report.run),
            context=context(report),
            facts=_facts(report),
            contents=_contents(report),
            clock=_clock(report.steps),
            causes=causes(report.training),
        )
    )


def environment() -> Environment:
    """Load the templates, with the plots and formatting functions that they use."""
    templates = Environment(
        loader=PackageLoader("components.reporting.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"text": formatting, "plots": plots}
    templates.filters |= {"accessible": accessible}
    return templates


def causes(training: Training | None) -> dict[str, float]:
    """Sort the seconds of training by cause: training steps first, then by size, without causes of zero seconds."""
    if training is None:
        return {}
    spent = {cause: seconds for cause, seconds in training.seconds.items() if seconds >= 0.05}
    return dict(sorted(spent.items(), key=lambda item: (item[0] != "step", item[0] == "other", -item[1])))


def _facts(report: RunReport) -> list[tuple[str, str]]:
    """Select a few figures for the line under the verdict: value and name."""
    facts = []
    if report.skills:
        above = sum(score.above_chance for score in report.skills)
        facts.append((f"{above} of {len(report.skills)}", "skills above chance"))
    if training := report.training:
        facts += [
            (formatting.short(training.parameters), "parameters"),
            (formatting.count(training.steps), "steps"),
            (f"{formatting.short(training.first_loss)} → {formatting.short(training.last_loss)}", "training loss"),
            *([(formatting.short(training.best.last_loss), "held-out loss")] if training.best else []),
            (formatting.short(training.samples_per_second), "training samples per second"),
        ]
    if report.steps:
        facts.append((formatting.duration(sum(step.seconds for step in report.steps)), "in all steps"))
    return facts


def _contents(report: RunReport) -> list[tuple[str, str]]:
    """The sections of the page: anchor and title."""
    return [
        *([("setup", "Setup")] if report.training else []),
        *([("benchmarks", "Scores by benchmark")] if report.benchmarks else []),
        ("skills", "Scores by skill"),
        *([("held-out", "Held-out rows")] if report.held_out else []),
        *([("fidelity", "Differences from the official system")] if report.fidelity else []),
        ("training", "Training"),
        ("data", "Data"),
        ("time", "Time"),
        ("answers", "Answers"),
        ("lineage", "Lineage and recipe"),
    ]


def _clock(steps: tuple[StepTime, ...]) -> dict[str, Any]:
    """Return the begin of the time strips, and the seconds that they span."""
    if not steps:
        return {}
    began = min(step.started for step in steps)
    return {"began": began, "total": max(0.1, (max(step.ended for step in steps) - began).total_seconds())}
