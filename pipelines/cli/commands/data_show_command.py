"""`mantis data show`: conversations, loss masks and micro-steps, before or during a training."""

from pathlib import Path
from typing import Annotated

import typer

from mantis.errors import ConfigError
from pipelines.cli.arguments import (
    AsJson,
    Changes,
    Format,
    Store,
    complete_recipe,
    complete_run,
    examples,
    opened,
    recipe_given,
    with_format,
)
from pipelines.cli.console import console, errors, show, show_json

EXAMPLES = examples(
    "mantis data show FOLDER: the first rows of a source",
    "mantis data show train.jsonl --row 17: what the model will see of row 17",
    "mantis data show nlvr2 --recipe mantis-siglip: a prepared set, with the tokens of that model",
    "mantis data show RUN --step 100 --html step.html: a training step as a page",
    "mantis data show FOLDER --json",
)


def show_data(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A folder, file or URL with rows; the subset or the key of a prepared set; or the id of a run. "
            "`./NAME` is always a folder or a file.",
            autocompletion=complete_run,
        ),
    ],
    step: Annotated[
        int | None, typer.Option(min=1, help="A step of the run WHAT, counted from 1. Without it: step 1.")
    ] = None,
    row: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Show this row, counted from 0, kept or refused. May be given several times."),
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="The number of rows or samples that are shown.")] = 5,
    read: Annotated[int, typer.Option(min=1, help="The number of rows that are read for the plots.")] = 1000,
    subset: Annotated[str, typer.Option(help="A subset of the source WHAT, if it has several.")] = "",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="The recipe whose limits, model and chat template read the rows. A run has its own.",
            autocompletion=complete_recipe,
        ),
    ] = "demo",
    set_: Changes = None,
    format_: Format = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that opens without a network.")
    ] = None,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Show training data as the model will see it: conversations, images, the loss mask of each token, drops.

    A step of a run shows its packed micro-steps, too. A refused row shows the reason, the remedy, and its content.
    """
    from components.data.showing.selection import Selection
    from components.reporting.render.data_page import render_data
    from pipelines.cli.data_text import show_found
    from pipelines.cli.show_target import ShowRequest, show_target
    from pipelines.execution.resolve import resolve_run

    _, resolved = resolve_run(*recipe_given(recipe, with_format(set_, format_)), "")
    chosen = Selection(read=read, shown=shown, rows=tuple(row or ()))
    asked = ShowRequest(what=what, subset=subset, step=step, chosen=chosen)
    found = show_target(opened(store), resolved, asked)
    if html is not None:
        try:
            html.write_text(render_data(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html {html} cannot be written: {error}.", remedy="Name another file.") from None
        show(f"wrote {html}", to=errors if as_json else console)
    if as_json:
        show_json(found.model_dump(mode="json"))
    elif html is None:
        show_found(found)
