"""What every command of `mantis` shares: consoles, options, and errors as one paragraph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from components.core.errors import MantisError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Store = Annotated[
    str, typer.Option("--store", help="file:///folder or s3://bucket/prefix.", show_default="MANTIS_STORE or ./.mantis")
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
