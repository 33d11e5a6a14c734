"""The command line, `mantis`."""

import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from mantis.errors import ConfigError
from mantis.runs.arms import arms_of
from mantis.runs.lineage import Link
from mantis.schema_versions import Form, without_version
from mantis.store.base import ObjectStore, default_store_url, open_store
from pipelines import data_cli, evaluation_cli, gc_cli, import_cli, job_cli, models_cli, submit_cli, train_cli
from pipelines.execution.local_run import start
from pipelines.terminal import PlatformFile, RunId, Store, console, errors, explained, overrides_of, recipe_argument

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Multi-image instruction tuning: prepare data, train, convert, evaluate, report.\n\n"
    "**First steps**\n\n"
    "- `mantis doctor` says what works on this machine.\n"
    "- `mantis run demo` trains a tiny model on generated tasks and writes a report, in minutes.\n"
    "- `mantis run demo --source FOLDER` does the same with your own conversations.\n"
    "- `mantis ui` shows the runs in MLflow.\n\n"
    "A run is a *recipe* (a YAML file) and `--set section.field=value` changes of it. The same recipe is the same "
    "run: started again, it goes on where it was stopped and takes every result that is already in the store.",
)
app.add_typer(data_cli.data, name="data")
app.command()(data_cli.fetch)
app.add_typer(evaluation_cli.app)
app.add_typer(train_cli.train, name="train")
app.add_typer(import_cli.app)
app.add_typer(models_cli.app)
app.add_typer(submit_cli.app)
app.add_typer(job_cli.app)
app.add_typer(gc_cli.app)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (e.g. demo), a YAML file, or a store URL.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="section.field=value; may be given several times.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Raw data to train on instead of the recipe's: a folder or a store URL.")
    ] = None,
    name: Annotated[str, typer.Option(help="The run's id; without it, it follows from the recipe.")] = "",
    store: Store = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the path of summary.json as the last line.")] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
) -> None:
    """Run the whole DAG here: prepare, assemble, train, convert, evaluate, report.

    Ctrl-C stops it; the same command goes on from the last checkpoint.
    """
    with explained():
        checked = start(recipe, set_ or [], source, name, store)
        _show_scores(checked.store, checked.id)
        report = checked.store.uri(f"reports/{checked.id}/report.html")
        console.print(f"report  {report}")
        if open_report:
            webbrowser.open(report)
        if as_json:
            print(_local_path(checked.store, f"reports/{checked.id}/summary.json"))


@app.command()
def ablate(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe (e.g. ablation-siglip), a YAML file, or a store URL.")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help="E.g. 'data.skills=[coref,compare]'.")] = None,
    source: Annotated[str | None, typer.Option(help="Raw data instead of the recipe's.")] = None,
    name: Annotated[str, typer.Option(help="The id of the run that compares; its arms get it, and a skill.")] = "",
    store: Store = "",
) -> None:
    """Run the skill ablation here: a model per skill of `data.skills`, each with those before it, and a comparison.

    On the demo, in ten minutes: mantis ablate demo --set 'data.skills=[single,multi]'
    """
    from pipelines.comparison import compare as show

    with explained():
        checked = start(recipe, set_ or [], source, name, store, "ablation")
        show(arms_of(checked.store, checked.id), checked.store, console, None)
        console.print(f"report  {checked.store.uri(f'reports/{checked.id}/report.html')}")


@app.command()
def status(
    run_id: Annotated[str, typer.Argument(help="A run's id; without it, all runs of the store.")] = "",
    store: Store = "",
) -> None:
    """The steps of a run: what was done, reused, or failed and why. Without a run: all runs."""
    from mantis.runs.step_runner import open_run, read_records, runs
    from pipelines.execution.supervisor import explain

    with explained():
        opened = open_store(store or default_store_url())
        if not run_id:
            there = runs(opened)
            if not there:
                raise ConfigError(f"{opened.url} holds no run.", remedy="Start one: mantis run demo.")
            for found in there:
                console.print(f"{found:<40} {explain(read_records(opened, found))}")
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("step", "state", "seconds", "attempts", "started (UTC)"):
            table.add_column(title, no_wrap=True, justify="right" if title in ("seconds", "attempts") else "left")
        table.add_column("result in the store, or reason", overflow="fold")
        for record in read_records(open_run(run_id, opened.url).store, run_id):
            outcome = record.reason or record.key
            seconds, started = f"{record.seconds:.1f}", record.started[11:19]
            table.add_row(record.step, record.state, seconds, str(record.attempts), started, outcome)
        console.print(table)


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(help="A recipe; without it, the shipped ones are listed.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
) -> None:
    """List the shipped recipes, or print one with every field written out."""
    from pipelines.execution.resolve import resolve_run, shipped_recipes

    with explained():
        if name:
            print(resolve_run(recipe_argument(name), overrides_of(set_ or [], None), "")[1].to_yaml(), end="")
            return
        for shipped in shipped_recipes():
            console.print(f"{shipped:<30} {resolve_run(shipped, {}, '')[1].description}")


@app.command("compile")
def compile_(
    folder: Annotated[Path, typer.Argument(help="Where the YAML goes.")] = Path("pipelines/compiled"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the files there are up to date.")] = False,
    image: Annotated[str, typer.Option(help="Bind the files to name@sha256:...; without it, a placeholder.")] = "",
    platform: PlatformFile = None,
) -> None:
    """Compile the pipelines to the YAML that Kubeflow Pipelines takes."""
    from pipelines.execution.compile import compile_all, stale
    from pipelines.execution.platform import platform_of

    with explained():
        if check and (image or platform):
            raise ConfigError(
                "--check is for files that are bound to nothing.", remedy="Leave --image, --platform out."
            )
        if check:
            old = stale(folder)
            if old:
                raise ConfigError(f"{', '.join(old)} in {folder} differ from the code.", remedy="Run `mantis compile`.")
            console.print(f"{folder} is up to date")
            return
        for path in compile_all(folder, platform_of(image, platform)):
            console.print(str(path))


@app.command("demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    seed: Annotated[int, typer.Option(help="Another seed gives other pictures and questions.")] = 0,
    conversations: Annotated[int, typer.Option(min=10)] = 20_000,
    samples_per_skill: Annotated[int, typer.Option(min=1, help="Held-out instances per skill.")] = 500,
) -> None:
    """Write the demo's generated tasks as JPEGs and JSON, in the raw form that --source reads."""
    from mantis.synthetic import write_demo_data

    with explained():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"folder = {str(folder)!r} is not empty.", remedy="Name a new folder.")
        write_demo_data(folder, seed=seed, conversations=conversations, samples_per_skill=samples_per_skill)
        console.print(f"wrote {folder}; train on it: mantis run demo --source {folder}")


@app.command()
def lineage(
    artifact: Annotated[
        str,
        typer.Argument(help="An artifact's key or URI, e.g. models/0a1b. KEY#SAMPLE: one prediction of an evaluation."),
    ],
    store: Store = "",
    check: Annotated[bool, typer.Option(help="Read every object and compare its hash.")] = True,
    sources: Annotated[
        bool, typer.Option("--sources/--no-sources", help="With --check: read the raw data again too, and compare.")
    ] = True,
) -> None:
    """Walk from a prediction or an artifact back to the source rows, checking every hash."""
    from components.data.prepare.verify_source import check_origin
    from mantis.runs.lineage import find_artifact, find_prediction, walk
    from pipelines.execution.benchmark_image_check import check_shown_images

    with explained():
        opened = open_store(store or default_store_url())
        address, _, sample = artifact.partition("#")
        found = find_artifact(opened, address)
        links = list(walk(opened, found, check=check, origin=check_origin if check and sources else None))
        problems = [problem for link in links for problem in link.problems]
        tree: Tree | None = None
        if sample and not links[0].problems:  # what was changed is not shown as what the model said
            prediction = find_prediction(opened, found, sample)
            changed, note = check_shown_images(opened, found, prediction) if check and sources else ([], "")
            tree = _prediction_tree(prediction, note)
            problems += changed
        branches: dict[int, Tree] = {}
        for link in links:
            label = _link_label(link, opened.uri(link.manifest.key), checked=check)
            parent = branches.get(link.depth - 1, tree)
            branches[link.depth] = parent.add(label) if parent is not None else Tree(label)
            tree = tree or branches[0]
        console.print(tree)
        for problem in problems:
            errors.print(problem, markup=False)
        if problems:
            raise typer.Exit(1)
        if check:
            console.print("every recorded byte is as it was")


@app.command()
def report(
    run_id: RunId,
    store: Store = "",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
) -> None:
    """Open a run's report."""
    with explained():
        opened = open_store(store or default_store_url())
        key = f"reports/{run_id}/report.html"
        if opened.stat(key) is None:
            raise ConfigError(f"run = {run_id!r} has no report yet.", remedy=f"`mantis status {run_id}` says why.")
        path = _local_path(opened, key)
        console.print(str(path))
        if open_page:
            webbrowser.open(Path(path).as_uri())


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more; the first is what the others are held to.")],
    store: Store = "",
    html: Annotated[
        Path | None, typer.Option(help="Write the comparison as a page, and as Markdown beside it.")
    ] = None,
) -> None:
    """Say which run is better on what: paired differences on the same samples, with intervals and tests."""
    from pipelines.comparison import compare as show

    with explained():
        show(runs, open_store(store or default_store_url()), console, html)


@app.command()
def ui(store: Store = "", port: Annotated[int, typer.Option()] = 5000) -> None:
    """Start MLflow's page on the runs of the store; Ctrl-C ends it."""
    from mantis.tracking.mlflow_database import ARTIFACTS, forget_addresses
    from mantis.tracking.mlflow_runs import database_folder, tracking_uri

    with explained():
        opened = open_store(store or default_store_url())
        uri, folder = tracking_uri(opened), database_folder(opened)
        console.print(f"MLflow on http://127.0.0.1:{port} showing {uri}")
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
        if folder is not None:
            forget_addresses(folder)
            command += ["--artifacts-destination", str(folder / ARTIFACTS)]
        try:
            subprocess.run([*command, "--port", str(port)], check=False, env=os.environ)
        except KeyboardInterrupt:
            console.print("stopped")


@app.command()
def doctor(
    store: Store = "",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at the cluster of KUBECONFIG too; two pods are started for it.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="With --cluster: cluster.image, cluster.namespace, ...")
    ] = None,
    nodes: Annotated[int, typer.Option(min=2, help="With --cluster: pods of the all-reduce.")] = 2,
) -> None:
    """Say what works on this machine, and what to do about what does not."""
    from pipelines.doctor.machine_checks import examine

    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "[dim]--[/]"}
    store_url = store or default_store_url()
    findings = examine(store_url)
    if cluster:
        from pipelines.doctor.cluster_checks import examine_cluster
        from pipelines.execution.resolve import resolve_run

        with explained():
            settings = resolve_run("demo", overrides_of(set_ or [], None), "")[1].cluster
            findings += examine_cluster(settings, store_url, nodes=nodes)
    for finding in findings:
        console.print(f"{marks[finding.ok]}  {finding.what:<14} {escape(finding.found)}")
        if finding.ok is not True and finding.remedy:
            console.print(f"    {escape(finding.remedy)}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def _show_scores(store: ObjectStore, run_id: str) -> None:
    key = f"reports/{run_id}/summary.json"
    summary = without_version(Form.REPORT_SUMMARY, json.loads(store.get(key)), store.uri(key))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("benchmark", "skill", "samples", "accuracy", "95 % interval", "chance", "blind", "shuffled"):
        table.add_column(title, justify="left" if title in ("benchmark", "skill") else "right", no_wrap=True)
    for row in summary["scores"]:
        interval = f"{_percent(row['low'])}–{_percent(row['high'])}"
        figures = (_percent(row[name]) for name in ("accuracy", "chance", "blind", "shuffled"))
        accuracy, chance, blind, shuffled = figures
        table.add_row(row["benchmark"], row["skill"], str(row["samples"]), accuracy, interval, chance, blind, shuffled)
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _local_path(store: ObjectStore, key: str) -> Path:
    """The object as a file here: in place for a local store, else a copy in the working folder."""
    from mantis.store.local import LocalStore

    if isinstance(store, LocalStore):
        return store.root / key
    path = Path.cwd() / ".mantis" / "fetched" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    store.get_file(key, path)
    return path


def _prediction_tree(prediction: dict[str, Any], note: str) -> Tree:
    tree = Tree(f"prediction {prediction['id']}")
    for name in ("question", "response", "answer", "correct"):
        tree.add(f"{name}: {prediction.get(name)}")
    images = tree.add(f"images  [dim]{note}[/]")
    for image in prediction.get("images", []):
        images.add(f"{image['path']}  sha256 {image['sha256']}")
    return tree


def _link_label(link: Link, address: str, *, checked: bool) -> str:
    manifest = link.manifest
    mark = "[red]changed[/]" if link.problems else "[green]checked[/]" if checked else "not checked"
    made = manifest.made_by
    facts = "  ".join(f"{name}={value}" for name, value in list(manifest.summary.items())[:6])
    return (
        f"[bold]{link.role}[/]  {address}  {mark}{f'  [dim]{link.note}[/]' if link.note else ''}\n"
        f"fingerprint {manifest.fingerprint}  run {made.run}  code {made.code_version}  image {made.image_digest}\n"
        f"[dim]{facts}[/]"
    )


if __name__ == "__main__":
    app()
