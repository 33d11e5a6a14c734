"""`mantis job`: the TrainJob of a recipe, for kubectl."""

from pathlib import Path
from typing import Annotated

import typer

from mantis.errors import ConfigError
from pipelines.terminal import console, explained, overrides_of, recipe_argument

app = typer.Typer()
FOLDER = Path("manifests/jobs")


@app.command()
def job(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a store URL.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
    name: Annotated[str, typer.Option(help="The run's id; without it, it follows from the recipe.")] = "",
    store: Annotated[str, typer.Option(envvar="MANTIS_STORE", help="s3://bucket/prefix.")] = "s3://mantis",
    image: Annotated[str, typer.Option(envvar="MANTIS_IMAGE", help="The ranks' image.")] = "mantis/train:dev",
    shipped: Annotated[
        bool, typer.Option("--shipped", help=f"Write those of all shipped recipes to {FOLDER}.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help=f"Only say whether {FOLDER} is up to date.")] = False,
) -> None:
    """Print the TrainJob that trains a recipe: `mantis job RECIPE | kubectl apply -f -`.

    Its data has to be in the store: `mantis data prepare RECIPE`, or the pipeline data-preparation. Applied twice it
    is one job; a `mantis run` of the same recipe follows it instead of starting another.
    """
    from pipelines.execution.trainjob_manifests import render, stale_jobs, write_jobs

    with explained():
        if bool(recipe) == (shipped or check) or (shipped and check):
            raise ConfigError("mantis job takes one of: RECIPE, --shipped, --check.", remedy="See mantis job --help.")
        if recipe:
            print(
                render(recipe_argument(recipe), overrides_of(set_ or [], None), name, store=store, image=image), end=""
            )
            return
        if check:
            old = stale_jobs(FOLDER)
            if old:
                raise ConfigError(
                    f"{', '.join(old)} in {FOLDER} differ from the recipes.", remedy="Run `mantis job --shipped`."
                )
            console.print(f"{FOLDER} is up to date")
            return
        for path in write_jobs(FOLDER):
            console.print(str(path))
