"""The command that runs a recipe with several values of some fields, and compares the runs."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from mantis.artifacts.layout import report_key
from pipelines.cli.arguments import (
    AsJson,
    Changes,
    Format,
    Name,
    RecipeName,
    Source,
    Store,
    examples,
    opened,
    recipe_given,
    with_format,
)
from pipelines.cli.commands.run_commands import compare
from pipelines.cli.console import console, errors, show
from pipelines.cli.prepared_table import show_prepared


def sweep(
    recipe: RecipeName,
    over: Annotated[
        list[str],
        typer.Option(
            "--over", metavar="FIELD=VALUE,VALUE", help="A recipe field and its values. Several --over form a grid."
        ),
    ],
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    name: Name = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Run a recipe once for each combination of values, on this machine, and compare the runs.

    Each combination is a run of its own. Results that do not depend on the values are computed once. The same command
    continues a stopped sweep, and repeats nothing. The others are compared with the first combination. The p values are
    corrected for all tests together.
    """
    from pipelines.execution.sweeps.sweep_runs import parse_over, plan_sweep, run_sweep

    to = errors if as_json else console
    text, overrides = recipe_given(recipe, with_format(set_, format_), source, store)
    planned = plan_sweep(text, overrides, parse_over(over), name, opened(store).url)
    parent = planned.parent
    to.print(f"sweep [bold]{parent.id}[/]: {len(planned.arms)} runs", soft_wrap=True)
    run_sweep(planned, to, ended=partial(show_prepared, to=to))
    compare([arm.run for arm in planned.arms], parent.store.url, as_json=as_json)
    if not as_json:
        show(f"report  {parent.store.uri(report_key(parent.id, 'report.html'))}")


COMMANDS: dict[Callable[..., None], str] = {
    sweep: examples(
        "mantis sweep demo --over training.learning_rate=2e-4,4e-4 --over training.seed=1,2: takes half an hour",
        "mantis sweep mantis-siglip --over 'data.skills=[coref],[coref,compare]' --store s3://bucket/prefix",
    )
}
