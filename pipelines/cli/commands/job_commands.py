"""`mantis job`: the TrainJob of a recipe, for kubectl."""

from pathlib import Path
from typing import Annotated

import typer

from mantis.errors import ConfigError
from pipelines.cli.arguments import (
    RECIPE_HELP,
    Changes,
    Name,
    complete_recipe,
    examples,
    recipe_given,
)
from pipelines.cli.console import show

FOLDER = Path("manifests/jobs")
EXAMPLES = examples(
    "mantis job mantis-siglip | kubectl apply -f -",
    "mantis job mantis-siglip --image REF --set cluster.queue=QUEUE",
    "mantis job --check",
)


def job(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP, autocompletion=complete_recipe)] = "",
    set_: Changes = None,
    name: Name = "",
    store: Annotated[str, typer.Option(envvar="MANTIS_STORE", help="s3://bucket/prefix.")] = "s3://mantis",
    image: Annotated[str, typer.Option(envvar="MANTIS_IMAGE", help="The image of the ranks.")] = "mantis/train:dev",
    shipped: Annotated[
        bool, typer.Option("--shipped", help=f"Write the jobs of all shipped recipes to {FOLDER}.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help=f"Only say whether {FOLDER} is up to date.")] = False,
) -> None:
    """Print a TrainJob that trains a recipe, for `kubectl apply -f -`.

    The store must hold the recipe's data: run `mantis data prepare RECIPE` or the pipeline data-preparation first. A
    job that is applied twice stays one job. A `mantis run` of the same recipe follows the job instead of starting one.
    """
    from pipelines.execution.trainjob_manifests import render, stale_jobs, write_jobs

    if bool(recipe) == (shipped or check) or (shipped and check):
        raise typer.BadParameter("mantis job takes one of: RECIPE, --shipped, --check")
    if recipe:
        print(render(*recipe_given(recipe, set_), name, store=store, image=image), end="")
        return
    if check:
        old = stale_jobs(FOLDER)
        if old:
            raise ConfigError(
                f"Differs from the recipes: {', '.join(old)} in {FOLDER}.", remedy="Run `mantis job --shipped`."
            )
        show(f"{FOLDER} is up to date")
        return
    for path in write_jobs(FOLDER):
        show(str(path))
