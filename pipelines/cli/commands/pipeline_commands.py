"""`mantis pipeline`: the pipelines for Kubeflow Pipelines, as YAML or as a run on a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mantis.errors import ConfigError, did_you_mean
from pipelines.cli.arguments import Changes, Name, PlatformFile, RecipeName, examples, recipe_given
from pipelines.cli.console import show

if TYPE_CHECKING:
    from pipelines.execution.sweeps.search_space import Over

pipeline = typer.Typer(help="Kubeflow Pipelines: compile, submit.")


@pipeline.command(
    "compile",
    epilog=examples(
        "mantis pipeline compile",
        "mantis pipeline compile --check",
        "mantis pipeline compile --image REGISTRY/mantis/train@sha256:DIGEST FOLDER",
    ),
)
def compile_(
    folder: Annotated[Path, typer.Argument(help="The folder of the YAML files.")] = Path("pipelines/compiled"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the files are up to date.")] = False,
    image: Annotated[
        str, typer.Option(help="Bind the files to name@sha256:... Without it no cluster can run them.")
    ] = "",
    platform: PlatformFile = None,
) -> None:
    """Compile the pipelines to the YAML that Kubeflow Pipelines takes."""
    from pipelines.execution.platform import platform_of
    from pipelines.kubeflow.compile import compile_all, known_steps, stale

    if check and (image or platform):
        raise typer.BadParameter("--check is for files without an image and a platform: leave out --image, --platform")
    if check:
        old = stale(folder)
        if old:
            raise ConfigError(
                f"Differs from the code: {', '.join(old)} in {folder}.", remedy="Run `mantis pipeline compile`."
            )
        show(f"{folder} is up to date")
        return
    for path in compile_all(folder, platform_of(image, platform, known_steps())):
        show(str(path))


@pipeline.command(
    epilog=examples(
        "mantis pipeline submit demo --host http://localhost:8080 --image REF --store s3://mantis --follow",
        "mantis pipeline submit mantis-siglip --host HOST --image REF --store STORE --pipeline data-preparation",
        "mantis pipeline submit demo --host HOST --image REF --store STORE --pipeline sweep "
        "--over training.learning_rate=2e-4,4e-4 --parallel 2",
        "mantis pipeline submit demo --host HOST --image REF --store STORE --pipeline sweep --trials 8 --parallel 2 "
        "--over training.learning_rate=1e-4..1e-3:log --set data.holdout=200 --set training.evaluate_every=250",
    )
)
def submit(
    recipe: RecipeName,
    host: Annotated[str, typer.Option(envvar="MANTIS_KFP_HOST", help="KFP's address, e.g. http://localhost:8080.")],
    image: Annotated[str, typer.Option(envvar="MANTIS_IMAGE", help="The image of the steps: name@sha256:...")],
    store: Annotated[str, typer.Option(envvar="MANTIS_STORE", help="s3://bucket/prefix.")],
    platform: PlatformFile = None,
    namespace: Annotated[str, typer.Option(help="The namespace of the runs.")] = "kubeflow",
    pipeline: Annotated[
        str, typer.Option(help="instruction-tuning, data-preparation, evaluation, ablation or sweep.")
    ] = "instruction-tuning",
    model: Annotated[str, typer.Option(help="With --pipeline evaluation: the address of the model.")] = "",
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE,VALUE", help="With --pipeline sweep: a field and its values, as a grid."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --pipeline sweep: run N trials in place of the grid, with values that Optuna suggests.",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Arms of an ablation or a sweep that run at the same time.", show_default="all"
        ),
    ] = None,
    set_: Changes = None,
    name: Name = "",
    experiment: Annotated[str, typer.Option(help="KFP's experiment. It is created if it does not exist.")] = "mantis",
    account: Annotated[str, typer.Option(help="The ServiceAccount of the steps.")] = "mantis-steps",
    token: Annotated[
        str, typer.Option(envvar="MANTIS_KFP_TOKEN", help="Better in the environment. In a pod: its ServiceAccount's.")
    ] = "",
    ca: Annotated[str, typer.Option(help="A file with the CA of KFP's certificate.")] = "",
    cron: Annotated[
        str, typer.Option(help="Run again by this schedule: six fields, seconds first, e.g. '0 0 3 * * 1'.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for the end. The exit code is 1 unless the run succeeds.")
    ] = False,
) -> None:
    """Start a run on Kubeflow Pipelines, and print its address."""
    from pipelines.execution.form.form_fields import filled_in
    from pipelines.execution.platform import platform_of
    from pipelines.execution.sweeps.search_space import parse_over
    from pipelines.kubeflow import submit as kfp
    from pipelines.kubeflow.compile import PIPELINES, form_of, known_steps

    if pipeline not in PIPELINES:
        raise ConfigError(
            f"--pipeline {pipeline!r} is unknown.",
            remedy=f"{did_you_mean(pipeline, PIPELINES)}There are: {', '.join(PIPELINES)}.",
        )
    if not store.startswith("s3://"):
        raise ConfigError(f"--store {store!r}: pods cannot reach it.", remedy="Use s3://bucket/prefix.")
    if cron and follow:
        raise typer.BadParameter("--cron and --follow exclude each other: leave one out")
    kfp.check_parameters(pipeline, model, over=over or (), parallel=parallel or 0, trials=trials or 0)
    text, overrides = recipe_given(recipe, set_, None, store)
    values = parse_over(over or ())
    title = _title(pipeline, text, overrides, name, store, model=model, over=values, trials=trials or 0)
    parameters = {"recipe": text, "mantis_run": name, "store_url": store} | filled_in(overrides, form_of(pipeline))
    if model:
        parameters["eval_model"] = model
    if values:
        parameters["over"] = " ".join(f"{field}={','.join(listed)}" for field, listed in values.items())
    if trials:
        parameters["trials"] = str(trials)
    server = kfp.Server(host=host.rstrip("/"), namespace=namespace, token=token, ca_file=ca)
    wanted = kfp.Submission(
        pipeline=pipeline,
        platform=platform_of(image, platform, known_steps(), arms=parallel or 0),
        experiment=experiment,
        title=title,
        parameters=parameters,
        service_account=account,
        cron=cron,
    )
    made = kfp.submit(server, wanted)
    page = "recurringrun" if cron else "runs"
    show(f"run {title}  {server.host}/#/{page}/details/{made}")
    if follow and kfp.follow(server, made) != "SUCCEEDED":
        raise kfp.SubmissionError(f"The run {title} did not succeed.", remedy=f"`mantis status {title}` says why.")


def _title(
    pipeline: str,
    recipe: str,
    overrides: dict[str, str],
    name: str,
    store: str,
    *,
    model: str,
    over: "Over",
    trials: int,
) -> str:
    """Return the id of the run that the pipeline will create."""
    from pipelines.execution.ablation_runs import resolve_parent
    from pipelines.execution.resolve import name_of, resolve_run
    from pipelines.execution.sweeps.search_runs import plan_search
    from pipelines.execution.sweeps.sweep_runs import plan_sweep

    if pipeline == "ablation":
        return resolve_parent(recipe, overrides, name, store)[0]
    if pipeline == "sweep" and trials:
        return plan_search(recipe, overrides, over, name, store, trials=trials).parent.id
    if pipeline == "sweep":
        return plan_sweep(recipe, overrides, over, name, store).parent.id
    return resolve_run(recipe, overrides, name_of(recipe, overrides, name, model, store), store)[0]
