"""The command that runs a recipe with several values of some fields, and compares the runs."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

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
from pipelines.cli.commands.run_commands import show_runs_line
from pipelines.cli.console import console, errors, show
from pipelines.cli.prepared_table import show_prepared

if TYPE_CHECKING:
    from mantis.runs.step_runner import Run

Over = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="FIELD=VALUE,VALUE",
        help="A recipe field and its values; several --over form a grid. With --trials also a range: "
        "FIELD=LOW..HIGH, or LOW..HIGH:log for equal ratios.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Run N trials in place of the grid. Optuna suggests their values, looks for the lowest held-out loss, and "
        "prunes hopeless trials early. The recipe needs data.holdout and training.evaluate_every.",
    ),
]


def sweep(
    recipe: RecipeName,
    over: Over,
    trials: Trials = None,
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    name: Name = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Run a recipe with several values of some fields, on this machine, and say which run is best and how sure that is.

    Each combination is a run of its own. Results that do not depend on the values are computed once. The same command
    continues a stopped sweep, and repeats nothing. The p values are corrected for all tests together.
    """
    from pipelines.execution.sweeps.search_runs import plan_search, run_search
    from pipelines.execution.sweeps.search_space import parse_over
    from pipelines.execution.sweeps.sweep_runs import plan_sweep, run_sweep

    to = errors if as_json else console
    text, overrides = recipe_given(recipe, with_format(set_, format_), source, store)
    values, url, ended = parse_over(over), opened(store).url, partial(show_prepared, to=to)
    if trials is None:
        grid = plan_sweep(text, overrides, values, name, url)
        to.print(f"sweep [bold]{grid.parent.id}[/]: {len(grid.arms)} runs", soft_wrap=True)
        run_sweep(grid, to, ended=ended)
        _show(grid.parent, as_json)
    else:
        search = plan_search(text, overrides, values, name, url, trials=trials)
        to.print(f"sweep [bold]{search.parent.id}[/]: {trials} trials", soft_wrap=True)
        run_search(search, to, ended=ended)
        _show(search.parent, as_json)


def _show(parent: "Run", as_json: bool) -> None:
    from components.reporting.arm_ranking import rank_arms
    from components.reporting.compare_runs import compare_runs
    from mantis.runs.arms import arms_of, changes_of
    from mantis.runs.step_runner import open_run
    from mantis.runs.trials import read_trials
    from pipelines.cli.comparison_table import show_comparison, show_ranking, sweep_data
    from pipelines.cli.console import show_json

    arms = arms_of(parent.store, parent.id)
    comparison = compare_runs([open_run(arm, parent.store.url) for arm in arms])
    ranking = rank_arms(comparison, {arm: changes_of(parent.store, arm) for arm in arms})
    trials = read_trials(parent.store, parent.id)
    page = parent.store.uri(report_key(parent.id, "report.html"))
    if as_json:
        show_json({"sweep": parent.id, "report": page} | sweep_data(comparison, ranking, trials))
        return
    show_comparison(comparison)
    show_ranking(ranking, trials)
    show(f"report  {page}")
    show_runs_line(parent)


COMMANDS: dict[Callable[..., None], str] = {
    sweep: examples(
        "mantis sweep demo --over training.learning_rate=2e-4,4e-4 --over training.seed=1,2: takes an hour",
        "mantis sweep demo --over training.learning_rate=1e-4..1e-3:log --trials 8 "
        "--set data.holdout=200 --set training.evaluate_every=250: searches for the best learning rate",
        "mantis sweep mantis-siglip --over 'data.skills=[coref],[coref,compare]' --store s3://bucket/prefix",
    )
}
