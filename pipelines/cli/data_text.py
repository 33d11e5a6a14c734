"""Prints what `mantis data show` found: conversations, coloured tokens, micro-steps and plots."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mantis.showing.shown_data import fact_text
from mantis.showing.visible_text import visible
from pipelines.cli.console import console, ids, note, numbers, show, show_table, tell, texts

if TYPE_CHECKING:
    from mantis.showing.shown_data import ReasonCount, ShownData, ShownPlot, ShownRow, ShownStep, TokenPiece

LEARNED, READ, IMAGE = "bold green", "", "magenta"
LEARNED_MARKS = ("⟦", "⟧")  # around learned tokens, where there are no colours
BAR = 40  # columns of the longest bar
ENDS = {"\n": "↵\n", "\t": "⇥\t"}


def show_found(data: "ShownData", *, to: Console = console) -> None:
    """Print everything that was found."""
    show(visible(data.name), "bold", to=to)
    for name, value in data.facts.items():
        show(f"{name}: {fact_text(value)}", to=to)
    for sentence in data.notes:
        note(sentence)
    if data.step:
        _show_step(data.step, to)
    for row in data.rows:
        _show_row(row, to)
    for plot in data.plots:
        _show_plot(plot, to)
    _show_reasons(data.reasons, to)


def _show_step(step: "ShownStep", to: Console) -> None:
    show(to=to)
    show(f"Step {step.step:,} of {step.steps:,}", "bold", to=to)
    columns = [*ids("micro-step", "rank"), *numbers("tokens", "of budget", "patches", "of budget"), *texts("samples")]
    rows = [
        (
            str(part.number), str(part.rank),
            f"{part.tokens:,}", f"{part.tokens / step.token_budget:.0%}",
            f"{part.patches:,}", f"{part.patches / step.patch_budget:.0%}",
            ", ".join(sample.id for sample in part.samples) or "none",
        )
        for part in step.micro_steps
    ]  # fmt: skip
    show_table(columns, rows, to=to)
    tell(f"A micro-step holds at most {step.token_budget:,} tokens and {step.patch_budget:,} patches.", to=to)


def _show_row(row: "ShownRow", to: Console) -> None:
    show(to=to)
    place = f"Row {row.row}  " if row.row is not None else ""
    show(Text.assemble((f"{place}{visible(row.id)}", "bold"), "  ", _state(row)), to=to)
    for finding in row.findings:
        threshold = f" (limit: {visible(finding.threshold)})" if finding.threshold else ""
        tell(
            f"{finding.action}: {finding.reason}: {finding.meaning}. Found: {visible(finding.value)}{threshold}. "
            f"{finding.remedy}",
            to=to,
        )
    for number, image in enumerate(row.images, 1):
        size = f"{image.width} x {image.height} pixels" if image.width else visible(image.problem)
        tokens = f", {image.tokens:,} tokens" if image.tokens else ""
        show(f"image {number}  {visible(image.path)}  {size}{tokens}", IMAGE, to=to)
    if row.images_left_out:
        show(f"and {row.images_left_out:,} more images", IMAGE, to=to)
    if row.system:
        show(f"system: {visible(row.system)}", to=to)
    for turn in row.turns:
        learned = " (learned)" if turn.learned else ""
        show(Text.assemble((f"{turn.role}{learned}: ", "bold"), visible(turn.content)), to=to)
    if row.raw:
        show(visible(row.raw), to=to)
    if row.tokens:
        show("tokens:", "bold", to=to)
        show(Text.assemble(*_coloured(row.tokens.pieces, marks=to.no_color or not to.is_terminal)), to=to)


def _state(row: "ShownRow") -> Text:
    if row.dropped or row.tokens is None:
        return Text("dropped: the model sees nothing of this row", style="red")
    cut = f", cut from {row.tokens.whole:,}" if row.tokens.whole > row.tokens.count else ""
    weight = f", weight {row.weight:g}" if row.weight != 1 else ""
    return Text(f"kept: {row.tokens.count:,} tokens, {row.tokens.targets:,} learned{cut}{weight}", style="green")


def _coloured(pieces: "tuple[TokenPiece, ...]", *, marks: bool) -> Iterator[tuple[str, str]]:
    """The text of the tokens. Without colours, marks enclose each learned stretch."""
    inside = False
    for piece in pieces:
        if marks and piece.learned != inside:
            yield LEARNED_MARKS[inside], ""
            inside = piece.learned
        if piece.image:
            yield f"[{piece.text}]", IMAGE
        else:
            yield _ended(visible(piece.text)), LEARNED if piece.learned else READ
    if inside:
        yield LEARNED_MARKS[1], ""


def _ended(text: str) -> str:
    for end, mark in ENDS.items():
        text = text.replace(end, mark)
    return text


def _show_plot(plot: "ShownPlot", to: Console) -> None:
    show(to=to)
    show(f"{plot.title} ({plot.unit})", "bold", to=to)
    longest = max(bar.count for bar in plot.bars)
    width = max(len(bar.label) for bar in plot.bars)
    for bar in plot.bars:
        drawn = "█" * max(bool(bar.count), round(BAR * bar.count / longest))
        show(f"{bar.label:>{width}}  {drawn} {bar.count:,}", to=to)


def _show_reasons(reasons: "tuple[ReasonCount, ...]", to: Console) -> None:
    if not reasons:
        return
    show(to=to)
    columns = [*ids("reason", "subset"), *numbers("rows"), *texts("action", "first rows", "meaning and remedy")]
    rows = [
        (
            each.reason, each.subset, f"{each.rows:,}", each.action,
            ", ".join(str(row.row) for row in each.first), f"{each.meaning}. {each.remedy}",
        )
        for each in reasons
    ]  # fmt: skip
    show_table(columns, rows, to=to)
