"""docs/reference/recipe.md: every field of a recipe, read from its classes."""

from itertools import groupby

from mantis.config.recipe import Recipe
from pipelines.cli.recipe_fields import RecipeField, fields_of

HEAD = """# Recipe

This page is written by `make compile` from the code. `mantis recipe fields` prints the same in the terminal.

A recipe is a YAML file. Every field but `name` may be left out: then it has its default. A field `a.b` is the key `b`
in the section `a`. A field `a[].b` is the key `b` in each item of the list `a`. `--set a.b=VALUE` changes one field.

A field that *decides results* is part of a run's identity: another value is another run, with other addresses in the
store. The other fields say how a result is computed. A run with other values for those takes the results that exist.
"""


def recipe_page() -> str:
    """Return the text of the page."""
    sections = [HEAD]
    for name, fields in groupby(fields_of(Recipe), key=_section):
        title = name or "The recipe itself"
        lines = [f"## {title}\n", *_about(name), "| field | type | default | bounds | decides results | description |"]
        lines += ["|---|---|---|---|---|---|", *map(_line, fields)]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def _section(field: RecipeField) -> str:
    head, dot, _ = field.path.partition(".")
    return head.removesuffix("[]") if dot else ""


def _about(section: str) -> list[str]:
    """Return the docstring of the section's class."""
    annotation = Recipe.model_fields[section].annotation if section else Recipe
    doc = " ".join((annotation.__doc__ or "").split()) if annotation else ""
    return [f"{doc}\n"] if doc else []


def _line(field: RecipeField) -> str:
    decides = "yes" if field.decides_results else "no"
    cells = (f"`{field.path}`", field.type, f"`{field.shown_default}`", field.bounds, decides, field.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
