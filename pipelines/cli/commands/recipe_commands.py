"""`mantis recipe`: list the shipped recipes, show one with every field, and explain the fields."""

from dataclasses import asdict
from typing import Annotated

import typer

from mantis.errors import ConfigError, did_you_mean
from pipelines.cli.arguments import AsJson, Changes, RecipeName, examples, recipe_given
from pipelines.cli.console import ids, names, show, show_json, show_table, tell, texts

recipe = typer.Typer(help="List recipes, and show their fields.")


@recipe.command("list", epilog=examples("mantis recipe list", "mantis recipe list --json"))
def list_(as_json: AsJson = False) -> None:
    """List the shipped recipes."""
    from pipelines.execution.resolve import resolve_run, shipped_recipes

    found = {name: resolve_run(name, {}, "")[1] for name in shipped_recipes()}
    if as_json:
        rows = [
            {"recipe": name, "description": each.description, "family": each.model.family, "base": each.model.base}
            for name, each in found.items()
        ]
        show_json({"recipes": rows})
        return
    show_table(
        [*ids("recipe"), *names("family"), *texts("description")],
        [(name, each.model.family, each.description) for name, each in found.items()],
    )


@recipe.command(
    "show",
    epilog=examples(
        "mantis recipe show demo",
        "mantis recipe show demo --set training.epochs=2 > mine.yaml: writes a recipe of your own",
    ),
)
def show_(name: RecipeName, set_: Changes = None, as_json: AsJson = False) -> None:
    """Print a recipe as YAML, with every field written out."""
    from pipelines.execution.resolve import resolve_run

    resolved = resolve_run(*recipe_given(name, set_), "")[1]
    if as_json:
        show_json(resolved.model_dump(mode="json"))
        return
    print(resolved.to_yaml(), end="")


@recipe.command(epilog=examples("mantis recipe fields training", "mantis recipe fields --json"))
def fields(
    section: Annotated[str, typer.Argument(help="A section or a field, e.g. training or data.source.")] = "",
    as_json: AsJson = False,
) -> None:
    """Explain the fields of a recipe: type, default, bounds, and whether a field decides results."""
    from mantis.config.recipe import Recipe
    from pipelines.cli.recipe_fields import fields_of

    every = list(fields_of(Recipe))
    found = [field for field in every if not section or f"{field.path}.".startswith(f"{section}.")]
    if not found:
        known = [*Recipe.model_fields, *(field.path for field in every)]
        raise ConfigError(
            f"{section!r} is not a section or a field of a recipe.",
            remedy=f"{did_you_mean(section, known)}Sections: {', '.join(Recipe.model_fields)}.",
        )
    if as_json:
        show_json({"fields": [asdict(field) for field in found]})
        return
    rows = [
        (field.path, field.type, field.shown_default, field.bounds, "yes" if field.decides_results else "no",
         field.description)
        for field in found
    ]  # fmt: skip
    show_table([*ids("field"), *texts("type", "default", "bounds", "decides results", "description")], rows)
    show()
    tell("A field that decides results makes another run, and other addresses in the store.")
