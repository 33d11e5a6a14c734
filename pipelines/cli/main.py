"""The command line `mantis`: its commands, in the order and the panels of the help."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mantis.logging import configure
from pipelines.cli.arguments import examples
from pipelines.cli.commands import (
    benchmark_commands,
    data_commands,
    evaluate_commands,
    job_commands,
    model_commands,
    pipeline_commands,
    recipe_commands,
    run_commands,
    serving_commands,
    sweep_commands,
    train_commands,
    upkeep_commands,
)
from pipelines.cli.console import explained, show

DAILY, THINGS, UPKEEP = PANELS = ("Every day", "Data, models, benchmarks, recipes", "Upkeep and clusters")


class Mantis(TyperGroup):
    """The group of all commands. It shows our errors as one paragraph."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands panel by panel: the help shows panels in the order of their first commands."""
        panels = {name: getattr(command, "rich_help_panel", "") for name, command in self.commands.items()}
        return sorted(self.commands, key=lambda name: PANELS.index(panels[name]))

    def invoke(self, ctx: Any) -> Any:
        with explained():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Mantis,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multi-image instruction tuning: prepare data, train, convert, evaluate, report.\n\n"
    "**First steps**\n\n"
    "- `mantis doctor` says what works on this machine.\n"
    "- `mantis run demo` trains a tiny model on generated tasks and writes a report, in minutes.\n"
    "- `mantis run demo --source FOLDER` does the same with your own conversations.\n"
    "- `mantis ui` shows the runs in MLflow.\n\n"
    "A *run* is a recipe (a YAML file) with the changes that `--set section.field=value` makes. The same recipe is the "
    "same run. Started again, it continues where it stopped, and takes every result that the store already has.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from mantis.artifacts.manifest import code_version

        show(f"mantis {version('mantis-kfp')} (code {code_version()})")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=examples("mantis run demo", "mantis run --help"))
def main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and the code's.")
    ] = False,
) -> None:
    """Without a command: the help."""
    configure(short=True)
    _help_without_command(ctx)


def _help_without_command(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def _noun(group: typer.Typer, name: str, panel: str) -> None:
    """Add a noun. Without a verb it prints its help."""
    group.callback(invoke_without_command=True)(_help_without_command)
    app.add_typer(group, name=name, rich_help_panel=panel)


for command, epilog in run_commands.COMMANDS.items():
    app.command(rich_help_panel=DAILY, epilog=epilog)(command)
for command, epilog in sweep_commands.COMMANDS.items():
    app.command(rich_help_panel=DAILY, epilog=epilog)(command)
app.command(rich_help_panel=DAILY, epilog=evaluate_commands.EXAMPLES)(evaluate_commands.evaluate)
app.command(rich_help_panel=DAILY, epilog=benchmark_commands.RESCORE_EXAMPLES)(benchmark_commands.rescore)
for command, epilog in upkeep_commands.COMMANDS.items():
    app.command(rich_help_panel=UPKEEP, epilog=epilog)(command)
app.command(rich_help_panel=UPKEEP, epilog=job_commands.EXAMPLES)(job_commands.job)
_noun(data_commands.data, "data", THINGS)
for command, epilog in serving_commands.COMMANDS.items():
    model_commands.model.command(epilog=epilog)(command)
_noun(model_commands.model, "model", THINGS)
_noun(benchmark_commands.benchmark, "benchmark", THINGS)
_noun(recipe_commands.recipe, "recipe", THINGS)
_noun(train_commands.train, "train", THINGS)
_noun(pipeline_commands.pipeline, "pipeline", UPKEEP)


if __name__ == "__main__":
    app(prog_name="mantis")
