"""What every command prints with: tables that keep numbers whole, JSON, and errors as one paragraph.

Data goes to stdout. Errors, warnings and, with `--json`, everything but the data go to stderr.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mantis.errors import MantisError
from mantis.showing.visible_text import visible

UNLIMITED = 1_000_000  # columns of a pipe or a file
GAP = 2  # spaces between two columns
SHORTEST_NAME = 12  # a name is elided to no less than this
NARROWEST_TEXT = 24  # a column of words is wrapped to no less than this
STOPPED = 130  # exit code after Ctrl-C, as shells have it

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Kind = Literal["id", "name", "number", "text", "address"]
Cell = str | Text


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table. Its kind says what happens when the terminal is too narrow.

    A `number` and an `id` are never cut or wrapped. A `name` is elided. `text` is wrapped. An `address` gets a line of
    its own, so that it can be copied.
    """

    title: str
    kind: Kind = "text"


def ids(*titles: str) -> list[Column]:
    """Columns of names that users type again."""
    return [Column(title=title, kind="id") for title in titles]


def names(*titles: str) -> list[Column]:
    """Columns of names."""
    return [Column(title=title, kind="name") for title in titles]


def numbers(*titles: str) -> list[Column]:
    """Columns of numbers, to the right."""
    return [Column(title=title, kind="number") for title in titles]


def texts(*titles: str) -> list[Column]:
    """Columns of words."""
    return [Column(title=title) for title in titles]


def addresses(*titles: str) -> list[Column]:
    """Columns of addresses."""
    return [Column(title=title, kind="address") for title in titles]


@contextmanager
def explained() -> Iterator[None]:
    """Show our errors as one paragraph, and end with their exit code. Any other exception is a bug.

    Ctrl-C ends with exit code 130.
    """
    try:
        yield
    except MantisError as error:
        errors.print("[bold red]error[/] ", end="")
        errors.print(visible(error.problem), markup=False)
        if error.remedy:
            errors.print(visible(error.remedy), markup=False)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        errors.print("Stopped. Results that were finished before stay in the store.")
        raise typer.Exit(STOPPED) from None


def show(text: Cell = "", style: str = "", *, to: Console = console) -> None:
    """Print a line of data. It is neither wrapped nor read as markup."""
    to.print(text, style=style or None, markup=False, soft_wrap=True)


def show_tree(tree: Tree) -> None:
    """Print a tree with whole lines. rich cuts those of a tree at the width of its console."""
    Console(highlight=False, width=UNLIMITED).print(tree, soft_wrap=True)


def tell(sentence: str, *, to: Console = console) -> None:
    """Print a sentence beside the data. A terminal wraps it between words."""
    to.print(sentence, markup=False, soft_wrap=not to.is_terminal)


def note(text: str) -> None:
    """Print a remark on stderr, beside the data."""
    errors.print(visible(text), style="yellow", markup=False, soft_wrap=not errors.is_terminal)


def show_json(data: Any) -> None:
    """Print `data` as one JSON document."""
    print(json.dumps(data, indent=1, ensure_ascii=False))


def show_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, totals: int = 0, to: Console = console
) -> None:
    """Print a table as wide as the terminal. In a pipe or a file it is as wide as its content.

    Columns that do not fit follow in further blocks, each with the first column again. The last `totals` rows are bold.
    """
    body = [[_text(cell) for cell in row] for row in rows]
    for row in body[len(body) - totals :]:
        for cell in row:
            cell.stylize("bold")
    room = to.width if to.is_terminal else UNLIMITED
    blocks, apart = _blocks(columns, body, room)
    for number, block in enumerate(blocks):
        if number:
            show(to=to)
        _show_block(columns, body, block, to)
    for place in apart:
        show(to=to)
        show(Text(columns[place].title, style="bold"), to=to)
        for row in body:
            if row[place]:
                show(Text.assemble(row[0], "  ", row[place]), to=to)


def _text(cell: Cell) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(visible(cell))


def _blocks(columns: Sequence[Column], body: list[list[Text]], room: int) -> tuple[list[dict[int, int]], list[int]]:
    """Widths by column for each block, and the columns that get lines of their own."""
    natural = [max([len(column.title), *(row[place].cell_len for row in body)]) for place, column in enumerate(columns)]
    if sum(natural) + GAP * (len(columns) - 1) <= room:
        return [dict(enumerate(natural))], []
    least = [_least(column, width) for column, width in zip(columns, natural, strict=True)]
    apart = [place for place, column in enumerate(columns) if column.kind == "address"]
    blocks = [{0: least[0]}]
    for place in range(1, len(columns)):
        if place in apart:
            continue
        if len(blocks[-1]) > 1 and _width(blocks[-1]) + GAP + least[place] > room:
            blocks.append({0: least[0]})
        blocks[-1][place] = least[place]
    for block in blocks:
        for place in block:
            block[place] += max(0, min(natural[place] - block[place], room - _width(block)))
    return blocks, apart


def _least(column: Column, natural: int) -> int:
    floors = {"name": max(SHORTEST_NAME, len(column.title)), "text": max(NARROWEST_TEXT, len(column.title))}
    return min(natural, floors.get(column.kind, natural))


def _width(block: dict[int, int]) -> int:
    return sum(block.values()) + GAP * (len(block) - 1)


def _show_block(columns: Sequence[Column], body: list[list[Text]], block: dict[int, int], to: Console) -> None:
    titles = [Text(column.title, style="bold") for column in columns]
    for row in [titles, *body]:
        wrapped = [_lines(row[place], columns[place], width) for place, width in block.items()]
        for line in zip_longest(*wrapped):
            padded = [
                _padded(part or Text(), columns[place], width)
                for part, (place, width) in zip(line, block.items(), strict=True)
            ]
            joined = Text(" " * GAP).join(padded)
            joined.rstrip()
            show(joined, to=to)


def _lines(cell: Text, column: Column, width: int) -> list[Text]:
    if cell.cell_len <= width:
        return [cell]
    if column.kind == "text":
        return list(cell.wrap(console, width))
    cut = cell.copy()
    cut.truncate(width, overflow="ellipsis")
    return [cut]


def _padded(cell: Text, column: Column, width: int) -> Text:
    padded = cell.copy()
    if column.kind == "number":
        padded.pad_left(width - cell.cell_len)
    else:
        padded.pad_right(width - cell.cell_len)
    return padded
