"""Commands about runs: start a run, show its progress, read its report, compare several."""

import json
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mantis.artifacts.layout import report_key
from mantis.artifacts.scores import CONTROLS_CHOOSE
from mantis.errors import ConfigError
from mantis.progress import clock_text, three_digits
from mantis.schema_versions import Form, without_version
from mantis.store.base import ObjectStore
from pipelines.cli.arguments import (
    AsJson,
    Changes,
    Format,
    Name,
    RecipeName,
    RunId,
    Source,
    Store,
    complete_run,
    examples,
    opened,
    recipe_given,
    with_format,
)
from pipelines.cli.console import (
    addresses,
    console,
    errors,
    ids,
    names,
    numbers,
    show,
    show_json,
    show_table,
    tell,
    texts,
)
from pipelines.cli.prepared_table import show_prepared

if TYPE_CHECKING:
    from mantis.artifacts.training_progress import TrainingProgress
    from mantis.runs.records import StepRecord
    from mantis.runs.step_runner import Run

SILENT_SECONDS = 60.0  # a running training stores its progress every five seconds


def run(
    recipe: RecipeName,
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    name: Name = "",
    store: Store = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only the path of summary.json on stdout, and the rest on stderr.")
    ] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
) -> None:
    """Run a recipe on this machine: prepare, assemble, train, convert, evaluate, report.

    Ctrl-C stops the run after training has saved a checkpoint. The same command continues from there.
    """
    to = errors if as_json else console
    checked = started(
        recipe, with_format(set_, format_), source, name, store, to=to, ended=partial(show_prepared, to=to)
    )
    report = checked.store.uri(report_key(checked.id, "report.html"))
    summary = report_key(checked.id, "summary.json")
    if as_json:
        print(_local_path(checked.store, summary))
    else:
        _show_scores(_summary(checked.store, summary))
        show(f"report  {report}")
        show_runs_line(checked)
    if open_report:
        webbrowser.open(report)


def ablate(
    recipe: RecipeName,
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    name: Annotated[str, typer.Option(help="The id of the run that compares. Each arm appends its skill to it.")] = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Train one model for each skill of `data.skills`, and compare them.

    Each model is trained on its skill and all skills before it. Each is a run of its own.
    """
    from mantis.runs.arms import arms_of

    to = errors if as_json else console
    checked = started(
        recipe, with_format(set_, format_), source, name, store, "ablation", to=to, ended=partial(_show_arms, to=to)
    )
    compare(arms_of(checked.store, checked.id), checked.store.url, as_json=as_json)
    if not as_json:
        show(f"report  {checked.store.uri(report_key(checked.id, 'report.html'))}")
        show_runs_line(checked)


def started(
    recipe: str,
    set_: list[str] | None,
    source: str | None,
    name: str,
    store: str,
    pipeline: str = "instruction-tuning",
    *,
    to: Console,
    ended: Callable[["Run"], None],
) -> "Run":
    """Run `pipeline` to its end, draw its steps on `to`, and return the run. `ended` is called even if it fails."""
    from pipelines.execution.local_run import start

    text, overrides = recipe_given(recipe, set_, source, store)
    return start(text, overrides, name, opened(store).url, to, pipeline, ended=ended)


def _show_arms(run: "Run", *, to: Console) -> None:
    """Print the prepared subsets of the last arm, which has those of all arms."""
    from mantis.runs.arms import arms_of

    for arm in arms_of(run.store, run.id)[-1:]:
        show_prepared(replace(run, id=arm, parent=run.id), to=to)


def status(
    run_id: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The id of a run. Without it: every run.", autocompletion=complete_run),
    ] = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Show the steps of a run: done, reused, or failed and why. Without a run, list all runs.

    A running training shows its step, loss, speed and the time left.
    """
    there = opened(store)
    if run_id:
        _show_steps(there, run_id, as_json)
        return
    from mantis.runs.records import runs

    found = [_overview(there, each) for each in runs(there)]
    if as_json:
        show_json({"store": there.url, "runs": found})
        return
    if not found:
        raise ConfigError(f"{there.url} holds no run.", remedy="Start one: mantis run demo.")
    rows = [
        (each["run"], _state(each), each["started"][:16].replace("T", " "), _percent(each["accuracy"]),
         each["recipe"], "  ".join(f"{field}={value}" for field, value in each["changed"].items()))
        for each in found
    ]  # fmt: skip
    columns = [*ids("run"), *names("state"), *numbers("started (UTC)", "accuracy"), *names("recipe"), *texts("changed")]
    show_table(columns, rows)


def report(
    run_id: RunId,
    store: Store = "",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
) -> None:
    """Open the report of a run in a browser, and print its path."""
    there = opened(store)
    key = report_key(run_id, "report.html")
    if there.stat(key) is None:
        from mantis.runs.step_runner import open_run

        open_run(run_id, there.url)
        raise ConfigError(f"run = {run_id!r} has no report yet.", remedy=f"`mantis status {run_id}` says why.")
    path = _local_path(there, key)
    _fetch_answers(there, run_id)
    show(str(path))
    if open_page:
        webbrowser.open(Path(path).as_uri())


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more runs. The others are compared with the first.",
            autocompletion=complete_run,
        ),
    ],
    store: Store = "",
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page there, and Markdown beside it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which run is better at which skill: paired differences on the same samples, with intervals and tests."""
    from components.reporting.compare_runs import compare_runs
    from mantis.runs.step_runner import open_run
    from pipelines.cli.comparison_table import as_data, show_comparison, write_pages

    there = opened(store)
    comparison = compare_runs([open_run(each, there.url) for each in runs])
    if html is not None:
        write_pages(comparison, html)
    if as_json:
        show_json(as_data(comparison))
        return
    show_comparison(comparison)
    if html is not None:
        show(f"page  {html}")


def ui(
    store: Store = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the table of runs in a browser.")] = False,
) -> None:
    """Start MLflow's web page with the runs of the store. Ctrl-C ends it."""
    from pipelines.cli.runs_page import serve_runs

    serve_runs(opened(store), port, open_page=open_page)


COMMANDS: dict[Callable[..., None], str] = {
    run: examples(
        "mantis run demo",
        "mantis run demo --source FOLDER: trains on your own conversations",
        "mantis run mantis-siglip --set training.learning_rate=1e-5 --store s3://bucket/prefix",
    ),
    status: examples("mantis status", "mantis status demo-1a2b3c4d", "mantis status --json"),
    report: examples("mantis report demo-1a2b3c4d", "mantis report demo-1a2b3c4d --no-open"),
    compare: examples(
        "mantis compare demo-1a2b3c4d demo-5e6f7a8b", "mantis compare demo-1a2b3c4d demo-5e6f7a8b --html compare.html"
    ),
    ablate: examples(
        "mantis ablate demo --set 'data.skills=[single,multi]': takes ten minutes", "mantis ablate ablation-siglip"
    ),
    ui: examples("mantis ui --open", "mantis ui --port 5001"),
}


def show_runs_line(run: "Run") -> None:
    """Print where the table of all runs is, as the last line of a run."""
    from pipelines.cli.runs_page import runs_line

    if line := runs_line(run):
        show(line)


def _overview(store: ObjectStore, run_id: str) -> dict[str, Any]:
    """A run in one row: state, start, recipe, changed fields, and the mean accuracy over its benchmarks."""
    from mantis.runs.records import read_records
    from mantis.runs.step_runner import open_run
    from pipelines.execution.local_run import progress_of
    from pipelines.execution.run_titles import changed_of
    from pipelines.execution.supervisor import explain

    records = read_records(store, run_id)
    running = next(filter(None, (progress_of(store, record) for record in records)), None)
    scores = [float(record.summary["accuracy"]) for record in records if "accuracy" in record.summary]
    row: dict[str, Any] = {
        "run": run_id,
        "state": explain(records),
        "started": min((record.started for record in records), default=""),
        "accuracy": sum(scores) / len(scores) if scores else None,
        "progress": running.model_dump(mode="json") if running else None,
        "recipe": "",
        "changed": {},
    }
    try:
        run = open_run(run_id, store.url)
    except ConfigError:  # the recipe of another version, or none: the run is listed all the same
        return row
    return row | {"recipe": run.recipe.name, "changed": changed_of(run)}


def _state(row: dict[str, Any]) -> str:
    """The state of a run in a few words: of a running training its share and the time left."""
    progress = row["progress"]
    if progress is None:
        return str(row["state"])
    left = progress["seconds_left"]
    share = f"training {progress['step'] / progress['steps']:.0%}"
    return share if left is None else f"{share}, {clock_text(left)} left"


def _show_steps(store: ObjectStore, run_id: str, as_json: bool) -> None:
    from mantis.runs.records import read_records
    from mantis.runs.step_runner import open_run
    from pipelines.execution.supervisor import explain

    open_run(run_id, store.url)
    records = read_records(store, run_id)
    steps = [_step(store, record) for record in records]
    if as_json:
        show_json({"run": run_id, "store": store.url, "state": explain(records), "steps": steps})
        return
    rows = [
        (step["step"], step["state"], f"{step['seconds']:.1f}", str(step["attempts"]), step["started"][11:19],
         step["address"] or step["reason"])
        for step in steps
    ]  # fmt: skip
    columns = [*ids("step"), *names("state"), *numbers("seconds", "attempts", "started (UTC)")]
    show_table([*columns, *addresses("result in the store, or reason")], rows)


def _step(store: ObjectStore, record: "StepRecord") -> dict[str, Any]:
    from mantis.runs.records import State, was_stopped
    from pipelines.execution.local_run import progress_of

    seconds, reason = record.seconds, record.reason
    progress = progress_of(store, record)
    if record.state is State.STARTED:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(record.started)).total_seconds()
        reason = ", ".join(filter(None, [record.reason, in_words(progress), _checkpoint(store, record)]))
    return {
        "step": record.step,
        "state": "stopped" if was_stopped(record) else record.state.value,
        "seconds": round(seconds, 3),
        "attempts": record.attempts,
        "started": record.started,
        "ended": record.ended,
        "reason": reason,
        "address": record.key,
        "progress": progress.model_dump(mode="json") if progress else None,
    }


def in_words(progress: "TrainingProgress | None") -> str:
    """Describe a running training: step, losses, speed, time left, and how old this is if it is old."""
    if progress is None:
        return ""
    losses = {"loss": progress.loss, "held-out loss": progress.held_out_loss}
    rates = {"samples/s": progress.samples_per_second, "tokens/s": progress.tokens_per_second}
    age = (datetime.now(UTC) - progress.at).total_seconds()
    return ", ".join(
        [
            f"step {progress.step:,} of {progress.steps:,}",
            *(f"{name} {value:.4g}" for name, value in losses.items() if value is not None),
            *(f"{three_digits(value)} {unit}" for unit, value in rates.items() if value is not None),
            *([f"{clock_text(progress.seconds_left)} left"] if progress.seconds_left is not None else []),
            *([f"last seen {clock_text(age)} ago"] if age > SILENT_SECONDS else []),
        ]
    )


def _checkpoint(store: ObjectStore, record: "StepRecord") -> str:
    """Describe the progress of a training that has not ended, as far as its checkpoints show."""
    from pipelines.execution.local_run import last_checkpoint

    step = last_checkpoint(store, record) if record.step == "train" else None
    return f"last checkpoint: step {step:,}" if step is not None else ""


def _summary(store: ObjectStore, key: str) -> dict[str, Any]:
    return without_version(Form.REPORT_SUMMARY, json.loads(store.get(key)), store.uri(key))


def _show_scores(summary: dict[str, Any]) -> None:
    rows = []
    for row in summary["scores"]:
        accuracy = _percent(row["accuracy"])
        controls = [_percent(row[name]) for name in ("chance", "blind", "shuffled")]
        interval = f"{_percent(row['low'])}–{_percent(row['high'])}"
        rows.append((row["benchmark"], row["skill"], str(row["samples"]), accuracy, interval, *controls))
    figures = numbers("samples", "accuracy", "95 % interval", "chance", "blind", "shuffled")
    show_table([*ids("benchmark"), *names("skill"), *figures], rows)
    if any(row["blind"] is not None or row["shuffled"] is not None for row in summary["scores"]):
        tell(CONTROLS_CHOOSE)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _fetch_answers(store: ObjectStore, run_id: str) -> None:
    """Copy the page of answers beside the copy of the report; a local store has both in place."""
    from mantis.store.local import LocalStore

    page = report_key(run_id, "answers.html")
    if isinstance(store, LocalStore) or store.stat(page) is None:
        return
    for key in (page, *(entry.key for entry in store.list(report_key(run_id, "answers")))):
        _local_path(store, key)


def _local_path(store: ObjectStore, key: str) -> Path:
    """Return the object as a file: in place for a local store, else a copy in the current folder."""
    from mantis.store.local import LocalStore

    if isinstance(store, LocalStore):
        return store.root / key
    path = Path.cwd() / ".mantis" / "fetched" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    store.get_file(key, path)
    return path
