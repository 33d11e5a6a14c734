"""The arguments and options that commands share, with their help and their shell completion."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from mantis.errors import ConfigError, MantisError
from mantis.models.registry import family_names
from mantis.store.base import ObjectStore
from mantis.store.opening import default_store_url, open_store

RECIPE_SUFFIXES = (".yaml", ".yml")

Complete = Callable[[typer.Context, str], list[str]]


def _completing(known: Callable[[typer.Context], Iterable[str]]) -> Complete:
    """Build a completion that offers names with the typed prefix. It offers nothing if the look-up fails."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [name for name in known(ctx) if name.startswith(incomplete)]
        except (MantisError, OSError):
            return []

    return complete


def _recipes(_: typer.Context) -> Iterable[str]:
    from pipelines.execution.resolve import shipped_recipes

    files = (str(path) for path in Path().iterdir() if path.suffix in RECIPE_SUFFIXES)
    return [*shipped_recipes(), *sorted(files)]


def _runs(ctx: typer.Context) -> Iterable[str]:
    from mantis.runs.records import runs

    return runs(opened(ctx.params.get("store") or ""))


def _benchmarks(_: typer.Context) -> Iterable[str]:
    from components.evaluation.benchmarks.benchmark_catalog import known_benchmarks

    return known_benchmarks()


def _subsets(_: typer.Context) -> Iterable[str]:
    from components.data.published.published_sets import published

    return published()


def _models(_: typer.Context) -> Iterable[str]:
    from mantis.models.weights.catalog import published_bases

    return published_bases()


def _fields(_: typer.Context) -> Iterable[str]:
    from mantis.config.recipe import Recipe
    from pipelines.cli.recipe_fields import fields_of

    return (f"{field.path}=" for field in fields_of(Recipe))


complete_recipe = _completing(_recipes)
complete_run = _completing(_runs)
complete_benchmark = _completing(_benchmarks)
complete_subset = _completing(_subsets)
complete_model = _completing(_models)
complete_asked_model = _completing(lambda ctx: [*_models(ctx), *_runs(ctx)])
complete_field = _completing(_fields)
complete_family = _completing(lambda _: family_names())

RECIPE_HELP = "The name of a shipped recipe, a YAML file, or a store URL."
FAMILY_HELP = f"A model family: {', '.join(family_names())}."

MODEL_HELP = (
    "A run, a registered model (its name or models:/NAME@ALIAS), a model of the store, a fetched model, or a folder "
    "or URL of a model that transformers loads."
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP, autocompletion=complete_recipe)]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="The id of a run. `mantis status` lists them.", autocompletion=complete_run)
]
BenchmarkName = Annotated[
    str,
    typer.Argument(help="A benchmark. `mantis benchmark list` shows them.", autocompletion=complete_benchmark),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help=MODEL_HELP, autocompletion=_completing(lambda ctx: [*_models(ctx), *_runs(ctx)])
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the recipe: section.field=value. May be given several times.",
        autocompletion=complete_field,
    ),
]
Source = Annotated[
    str | None, typer.Option("--source", help="Take raw data from this folder or store URL, not from the recipe's.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORM",
        help="Read the raw data in this form, not in the one that is found: FILES, ROWS or FILES/ROWS, "
        "e.g. json-lines/messages.",
    ),
]
Name = Annotated[str, typer.Option("--name", help="The id of the run. Without it the recipe decides the id.")]
Store = Annotated[
    str, typer.Option("--store", help="file:///folder or s3://bucket/prefix.", show_default="MANTIS_STORE or ./.mantis")
]
PlatformFile = Annotated[
    Path | None,
    typer.Option(
        "--platform", help="A YAML file with the resources of each step, e.g. manifests/overlays/a100/steps.yaml."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def opened(store: str) -> ObjectStore:
    """Open the store that `--store` names, else the default store."""
    return open_store(store or default_store_url())


def recipe_argument(recipe: str) -> str:
    """The text of a recipe file. A shipped name or a store URL is returned as it is.

    Raises:
        ConfigError: no such file, or one that cannot be read as text.
    """
    from pipelines.execution.resolve import shipped_recipes

    path = Path(recipe)
    if recipe in shipped_recipes() or "://" in recipe or "\n" in recipe:
        return recipe
    if not (path.suffix in RECIPE_SUFFIXES or "/" in recipe or path.is_file()):
        return recipe
    try:
        return path.read_text()
    except FileNotFoundError:
        raise ConfigError(
            f"recipe = {recipe!r}: there is no such file.", remedy="`mantis recipe list` shows the shipped recipes."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe = {recipe!r} cannot be read: {error}.", remedy="Name a YAML file.") from None


def with_format(given: list[str] | None, form: str | None) -> list[str]:
    """The values of `--set`, with that of `--format` as one more."""
    return [*(given or ()), *([] if form is None else [f"data.format={json.dumps(form)}"])]


def overrides_given(given: list[str] | None, source: str | None) -> dict[str, str]:
    """Return the overrides of `--set` and `--source`.

    A source brings its own subsets, unless the recipe names a mixture: then those are looked for at the source.

    Raises:
        ConfigError: a `--set` without `=`.
    """
    overrides = {}
    if source is not None:
        address = source if "://" in source else str(Path(source).absolute())
        overrides = {"data.source": json.dumps(address), "data.subsets": "[]"}
    for item in given or ():
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r} has no `=`.", remedy="Write --set training.learning_rate=5e-6.")
        overrides[key.strip()] = value
    return overrides


def recipe_given(
    recipe: str, given: list[str] | None, source: str | None = None, store: str | None = None
) -> tuple[str, dict[str, str]]:
    """The recipe and the overrides of a command line. Files of benchmarks are written into the overrides.

    `store` is the value of `--store`; the samples of such benchmarks go there. None keeps them where they are.

    Raises:
        MantisError: as in `recipe_argument`, `overrides_given` and `with_own_benchmarks`.
    """
    from pipelines.execution.own_benchmarks import with_own_benchmarks

    text, overrides = recipe_argument(recipe), overrides_given(given, source)
    return text, with_own_benchmarks(text, overrides, None if store is None else opened(store))


def examples(*lines: str) -> str:
    """The end of a command's help. A line is a command, or a command and `: ` with what it does."""
    shown = []
    for line in lines:
        command, _, words = line.partition(": ")
        shown.append(f"- `{command}`{f'  {words}' if words else ''}")
    return "**Examples**\n\n" + "\n".join(shown)
