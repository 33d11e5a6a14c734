"""docs/reference/fidelity.md: every known difference from the official system."""

from collections.abc import Sequence

from components.reporting.collect.fidelity_rows import FidelityRow, fidelity

HEAD = """# Differences from the official system

This page is written by `make compile` from `components/reporting/collect/fidelity.yaml`. The official system is
TIGER-AI-Lab/Mantis with transformers 4.41. The report of a recipe that reproduces a published model lists the rows that
apply to it.

`tests/integration/mantis/models/test_official_tokens.py` compares tokens and labels with those of the official data
set class. It uses the real vocabularies of LLaMA-3 and Mistral, 18 forms of marks and spaces, and 100 generated
conversations for each chat template. All 118 are the same, but for the rows below. The program
`tests/golden/write_official_tokens.py` wrote the expected values.
"""
TITLES = {"data": "Data and tokens", "models": "Models and images", "evaluation": "Evaluation"}
TAIL = """## The converted model in plain transformers 5

`AutoProcessor` of transformers 5 puts a space before a word that stands directly behind an Idefics2 image. Neither the
official code nor this project does that. `<image> What` gives the same tokens in all three.
"""


def fidelity_page() -> str:
    """Return the text of the page."""
    sections = [f"## {TITLES[name]}\n\n{_table(rows)}" for name, rows in fidelity().items()]
    return "\n".join([HEAD, *sections, TAIL])


def _table(rows: Sequence[FidelityRow]) -> str:
    head = ("what", "official", "here", "why", "size, as measured", "applies to", "setting that removes it")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (row.what, row.official, row.here, row.why, row.size, _where(row), row.setting or "none")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _where(row: FidelityRow) -> str:
    """The conditions of the row, in words of the recipe."""
    given = [f"`{name}`: {' or '.join(map(_shown, values))}" for name, values in row.where.items()]
    without = [f"not `{name}`: {' or '.join(map(_shown, values))}" for name, values in row.unless.items()]
    return "; ".join([*given, *without]) or "all"


def _shown(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
