"""What every command of `mantis` shares: consoles, options, what a recipe's arguments mean, errors as one paragraph."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mantis.errors import ConfigError, MantisError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Store = Annotated[
    str, typer.Option("--store", help="file:///folder or s3://bucket/prefix.", show_default="MANTIS_STORE or ./.mantis")
]
PlatformFile = Annotated[
    Path | None,
    typer.Option("--platform", help="YAML of what the steps ask for, e.g. manifests/overlays/a100/steps.yaml."),
]
RunId = Annotated[str, typer.Argument(help="A run's id, as `mantis status` lists them.")]


@contextmanager
def explained() -> Iterator[None]:
    """Our errors as one paragraph and exit code 1; anything else is a bug and keeps its traceback."""
    try:
        yield
    except MantisError as error:
        errors.print("[bold red]error[/] ", end="")
        errors.print(error.problem, markup=False)
        if error.remedy:
            errors.print(error.remedy, markup=False)
        raise typer.Exit(1) from None


def recipe_argument(recipe: str) -> str:
    """A file's text, or the argument itself: a shipped name or a store URL."""
    return Path(recipe).read_text() if recipe.endswith((".yaml", ".yml")) and Path(recipe).is_file() else recipe


def overrides_of(given: list[str], source: str | None) -> dict[str, str]:
    """The overrides that `--set` and `--source` mean.

    A source brings its own subsets, unless the recipe names a mixture: then they are looked for there.

    Raises:
        ConfigError: a `--set` without `=`.
    """
    overrides = {}
    if source is not None:
        address = source if "://" in source else str(Path(source).absolute())
        overrides = {"data.source": json.dumps(address), "data.subsets": "[]"}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r} has no `=`.", remedy="Write --set training.learning_rate=5e-6.")
        overrides[key.strip()] = value
    return overrides
