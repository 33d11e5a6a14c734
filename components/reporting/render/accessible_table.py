"""Make the tables of a page readable to screen readers and on phones."""

import re

from markupsafe import Markup, escape

HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
HEADER = re.compile(r"<th\b([^>]*)>(.*?)</th>", re.DOTALL)
ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
CELL = re.compile(r"<td\b")
DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)


def accessible(table: str, caption: str) -> Markup:
    """Return a table of our templates with a caption, scopes and, for phones, the name of its column on each cell.

    A phone shows each row as a block, whose lines begin with these names. A table that is too wide for a desktop
    scrolls in a region that the keyboard reaches.

    Args:
        table: the markup of one `<table>`. It has no table inside, and no cell that spans columns.
        caption: its name, in plain words.
    """
    table = str(table)  # Jinja gives Markup, whose `replace` escapes
    head = HEAD.search(table)
    names = [_name(inner) for _, inner in HEADER.findall(head[0])] if head else []
    if head:
        table = table.replace(head[0], HEADER.sub(_with_scope, head[0]), 1)
    begin = table.index(">") + 1
    opening, rest = table[:begin], table[begin:]
    body = ROW.sub(lambda row: _with_names(row[0], names), rest) if names else rest
    named = Markup('<caption class="unseen">{}</caption>').format(caption)
    box = Markup('<div class="scroll" role="group" aria-label="{}" tabindex="0">').format(caption)
    return box + Markup(f"{opening}{named}{body}</div>")


def _name(header: str) -> str:
    words = Markup(DRAWING.sub("", header).replace("<br>", " ")).striptags()
    return " ".join(words.split())


def _with_scope(header: re.Match[str]) -> str:
    attributes, inner = header.groups()
    # A column of drawings has the scale as its header, which says nothing without eyes.
    name = "" if _name(inner) else '<span class="unseen">Chart</span>'
    return f'<th scope="col"{attributes}>{name}{inner}</th>'


def _with_names(row: str, names: list[str]) -> str:
    if "<th scope=" in row:
        return row
    following = iter(names)

    def named(cell: re.Match[str]) -> str:
        name = next(following, "")
        return f'{cell[0]} data-name="{escape(name)}"' if name and name != "Chart" else cell[0]

    return CELL.sub(named, row)
