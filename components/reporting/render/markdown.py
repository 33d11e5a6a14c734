"""Render a RunReport as Markdown without HTML, for KFP's interface and MLflow."""

import re
from collections.abc import Iterable, Sequence

from components.reporting.collect.reference_table import Verdict, reference_table, verdict_of
from components.reporting.collect.report_schema import Answer, Curve, RunReport
from components.reporting.collect.verdict import context, verdict
from components.reporting.render import formatting
from components.reporting.render.page import causes
from mantis.artifacts.scores import Score

LONGEST = 400_000  # characters; interfaces become slow with more
LEDGER_ROWS = 200
CURVE_ROWS = 12
SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")


def render_markdown(report: RunReport) -> str:
    """Render the content of the page as Markdown, without images."""
    first = [_head, _setup, score_sections, _held_out, _fidelity, _training, _data, _time]
    before = [block for section in first for block in section(report)]
    after = [block for section in (_lineage, _recipe) for block in section(report)]
    room = LONGEST - len("\n\n".join([*before, *after])) - 1000
    return "\n\n".join([*before, *_gallery(report, room), *after]) + "\n"


def score_sections(report: RunReport) -> list[str]:
    """Render the scores by benchmark, with the published ones, and by skill."""
    return [*_benchmarks(report), *_scores(report)]


def escaped(value: str) -> str:
    """Escape `value` as plain text on one line, so that no HTML, link or table cell can begin in it."""
    plain = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Render a table whose first `left` columns are text and the others numbers; cells are escaped."""
    marks = [":--" if column < left else "--:" for column in range(len(header))]
    lines = [header, marks, *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(report: RunReport) -> list[str]:
    blocks = [
        f"# {escaped(report.run)}",
        f"Recipe {escaped(report.recipe)}, {report.made:%d %B %Y, %H:%M} UTC",
        f"**{escaped(verdict(report.scores))}**",
    ]
    about = " ".join(filter(None, [context(report), report.description]))
    if about:
        blocks.append(escaped(about))
    if report.notes:
        blocks.append("Missing from this report:\n\n" + "\n".join(f"- {escaped(note)}" for note in report.notes))
    return blocks


def _benchmarks(report: RunReport) -> list[str]:
    if not report.benchmarks:
        return []
    header = ["Benchmark", "Mean of", "Verdict", "Reason", "Accuracy", "95 % interval", "Not parsed", "Chance"]
    held = [verdict_of(score, report.reference, report.margin) for score in report.benchmarks]
    shown = table([*header, "Official", "Strict", "Missing", "Samples", "Published"], map(_benchmark, held), left=4)
    legend = [formatting.verdicts(report.margin)] if report.reference else []
    blocks = ["## Scores by benchmark", " ".join([formatting.INTERVAL, *legend]), shown]
    among = reference_table(report.benchmarks, report.run)
    if among:
        columns = [escaped(score.title) for score in among.benchmarks]
        rungs = [[rung.model, *map(formatting.decimal, rung.accuracies)] for rung in among.rungs]
        blocks += ["### Among the published results", table(["Model", *columns], rungs)]
    return blocks


def _benchmark(held: Verdict) -> list[str]:
    score = held.score
    return [
        score.title,
        (score.aggregation or "").replace("macro", "skills").replace("micro", "samples").replace("grouped", "groups"),
        held.word,
        held.reason,
        formatting.percent(score.accuracy),
        formatting.interval(score),
        formatting.count(score.unparsed),
        formatting.percent(score.chance),
        formatting.official(score),
        formatting.percent(score.strict),
        formatting.count(score.missing),
        formatting.count(score.samples) + (f" ({score.cut:,} cut)" if score.cut else ""),
        formatting.decimal(held.published),
    ]


def _scores(report: RunReport) -> list[str]:
    if not report.skills:
        return ["## Scores by skill", "The run has no scores."]
    header = ["Skill", "Benchmark", "Samples", "Accuracy", "95 % interval", "Chance", "Above chance", "Blind"]
    shown = table([*header, "Shuffled", "Strict", "Not parsed"], map(_score, report.skills), left=2)
    return [
        "## Scores by skill",
        "Accuracy in percent. A control sees no images (blind) or the images of another sample (shuffled). "
        f"{formatting.CONTROLS} {formatting.CONTROL_P} Not parsed counts the responses in which the scoring of the "
        "accuracy found no answer. Strict counts responses that state one valid answer.",
        shown,
    ]


def _score(score: Score) -> list[str]:
    return [
        score.title,
        score.benchmark,
        formatting.count(score.samples),
        formatting.percent(score.accuracy),
        f"{formatting.percent(score.low)}–{formatting.percent(score.high)}",
        formatting.percent(score.chance),
        formatting.points(score.points),
        _control(score.blind, score.control_p("blind")),
        _control(score.shuffled, score.control_p("shuffled")),
        formatting.percent(score.strict),
        formatting.count(score.unparsed),
    ]


def _control(value: float | None, p: float | None) -> str:
    return formatting.percent(value) + (f" ({formatting.probability(p)})" if p is not None else "")


def _held_out(report: RunReport) -> list[str]:
    if not report.held_out:
        return []
    rows = [
        [
            row.subset or "All",
            formatting.count(row.samples),
            formatting.count(row.missing),
            formatting.short(row.loss),
            formatting.percent(row.exact_match),
            formatting.percent(row.token_f1),
        ]
        for row in report.held_out
    ]
    return [
        "## Held-out rows",
        "Rows of the run's own data that training never saw (data.holdout). The model answers the first question of "
        "each. Loss is in nats per token of the expected answer. Exact match and token F1 are in percent.",
        table(["Subset", "Rows", "Missing", "Loss", "Exact match", "Token F1"], rows),
    ]


def _fidelity(report: RunReport) -> list[str]:
    if not report.fidelity:
        return []
    rows = [
        [row.what, row.official, row.here, row.why, row.size, row.setting or formatting.ABSENT]
        for row in report.fidelity
    ]
    header = ["What", "Official", "Here", "Why", "Size", "Removed by"]
    return ["## Differences from the official system", formatting.FIDELITY, table(header, rows, left=6)]


def _setup(report: RunReport) -> list[str]:
    training = report.training
    return ["## Setup", table(["Figure", "Value"], formatting.setup_rows(training))] if training else []


def _training(report: RunReport) -> list[str]:
    training = report.training
    if training is None:
        return ["## Training", "This report shows no training, because the checkpoint was not found."]
    rows = [
        ("Steps", formatting.count(training.steps)),
        ("Samples", formatting.count(training.samples)),
        ("Tokens", formatting.count(training.tokens)),
        ("Parameters", formatting.count(training.parameters)),
        ("Loss at first", formatting.short(training.first_loss)),
        ("Loss at last", formatting.short(training.last_loss)),
        ("Goodput", formatting.whole_percent(training.goodput)),
        ("Slowest rank", formatting.straggler(training.straggler)),
        ("Attention", training.attention or formatting.ABSENT),
        *(
            (f"Time: {formatting.CAUSES.get(cause, cause)}", formatting.duration(spent))
            for cause, spent in causes(training).items()
        ),
    ]
    return ["## Training", table(["Figure", "Value"], rows), *_curves(training.curves)]


def _curves(curves: Sequence[Curve]) -> list[str]:
    """Render the curves at a few logged steps, evenly spaced."""
    by_step = [dict(curve.points) for curve in curves]
    steps = sorted({step for points in by_step for step in points})
    if not steps:
        return []
    last = len(steps) - 1
    chosen = sorted({round(last * number / (CURVE_ROWS - 1)) for number in range(CURVE_ROWS)})
    rows = [
        [formatting.count(steps[place]), *(formatting.short(points.get(steps[place])) for points in by_step)]
        for place in chosen
    ]
    return [table(["Step", *(curve.title for curve in curves)], rows, left=0)]


def _data(report: RunReport) -> list[str]:
    fields = ("rows", "kept", "dropped", "repaired", "samples", "images", "tokens")
    if not report.subsets:
        return ["## Data", "The lineage of the evaluations contains no dataset."]
    rows = [
        [
            subset.name,
            subset.skill or formatting.ABSENT,
            *(formatting.count(getattr(subset, field)) for field in fields),
        ]
        for subset in report.subsets
    ]
    header = ["Subset", "Skill", "Rows read", "Kept", "Dropped", "Repaired", "Samples per epoch", "Images", "Tokens"]
    return ["## Data", table(header, rows, left=2), *_ledger(report), *_contamination(report), *_licences(report)]


def _ledger(report: RunReport) -> list[str]:
    if not report.ledger:
        return ["The ledgers list no row as dropped or repaired."]
    rows = []
    for reason in report.ledger[:LEDGER_ROWS]:
        examples = "; ".join(f"row {row.row}, {row.id}: {formatting.shortened(row.value)}" for row in reason.examples)
        rows.append(
            [reason.reason, reason.action, reason.subset, reason.step, examples, formatting.count(reason.count)]
        )
    left_out = len(report.ledger) - LEDGER_ROWS
    more = [f"The ledgers hold {left_out} more reasons."] if left_out > 0 else []
    return [table(["Reason", "Action", "Subset", "In step", "For example", "Rows"], rows, left=5), *more]


def _contamination(report: RunReport) -> list[str]:
    if not report.contamination:
        return []
    rows = [
        [
            row.benchmark,
            "; ".join(row.examples),
            *(formatting.count(value) for value in (row.images, row.exact, row.similar, row.samples, row.unreadable)),
        ]
        for row in report.contamination
    ]
    header = ["Benchmark", "For example", "Images", "Same bytes", "Look alike", "Training samples", "Unreadable"]
    return ["### Benchmark images in the training mixture", formatting.CONTAMINATION, table(header, rows, left=2)]


def _licences(report: RunReport) -> list[str]:
    if not report.licences:
        return []
    rows = [[row.subset, row.name, row.terms, ", ".join(row.forbids), row.origin] for row in report.licences]
    return ["### Licences", table(["Subset or base", "Licence", "Terms", "Forbids", "Read at"], rows, left=5)]


def _time(report: RunReport) -> list[str]:
    rows = [
        [step.step, formatting.shortened(formatting.outcome(step)), formatting.duration(step.seconds)]
        for step in report.steps
    ]
    if not rows:
        return ["## Time by step", "The run has no records of its steps."]
    return [
        "## Time by step",
        table(["Step", "Outcome", "Time"], rows, left=2),
        "The step `report` is left out, because it was still running.",
        *_answering(report),
    ]


def _answering(report: RunReport) -> list[str]:
    rows = [
        [
            cost.benchmark,
            formatting.count(cost.generated),
            formatting.duration(cost.seconds),
            formatting.short(cost.per_second),
        ]
        for cost in report.answering
    ]
    return [table(["Benchmark", "Answers generated", "Time", "Answers per second"], rows)] if rows else []


def _gallery(report: RunReport, room: int) -> list[str]:
    """Render the answers that fit into `room` characters."""
    blocks = ["## Answers to look at"]
    if not report.gallery:
        return [*blocks, "The evaluations have no gallery."]
    for title, answers in report.gallery_by_skill():
        block = "\n".join([f"### {escaped(title)}", "", *map(_answer, answers)])
        room -= len(block) + 2
        if room < 0:
            return [*blocks, "The other answers are in gallery.json of the evaluations."]
        blocks.append(block)
    return blocks


def _answer(answer: Answer) -> str:
    mark = formatting.mark(answer).lower()
    pictures = f" ({len(answer.images)} images)" if answer.images else ""
    return (
        f"- {mark}: {escaped(formatting.question(answer))}{pictures} "
        f"Expected: **{escaped(formatting.shortened(answer.answer))}**, "
        f"response: **{escaped(formatting.response(answer))}**"
    )


def _lineage(report: RunReport) -> list[str]:
    if not report.lineage:
        return ["## Lineage", "The run has no evaluation, and therefore no lineage."]
    rows = [
        [
            artifact.kind if artifact.role == artifact.kind else f"{artifact.kind} {artifact.role}",
            artifact.fingerprint,
            f"{artifact.step}, revision {artifact.revision}",
            artifact.code_version,
            artifact.image_digest,
        ]
        for artifact in report.lineage
    ]
    shown = table(["Artifact", "Fingerprint", "Made by", "Code", "Image"], rows, left=5)
    where = "Keys are relative to the store of this run: `--store` or MANTIS_STORE, with `.mantis` as the default."
    return ["## Lineage", shown, where, _fenced("\n".join(report.lineage_commands()))]


def _recipe(report: RunReport) -> list[str]:
    return ["## The resolved recipe", _fenced(report.recipe_text.rstrip(), "yaml")]


def _fenced(content: str, language: str = "") -> str:
    """Render a code block whose fence is longer than any fence in `content`."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"
