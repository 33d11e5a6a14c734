"""`mantis submit`: a recipe to a Kubeflow Pipelines server."""

from typing import Annotated

import typer

from mantis.errors import ConfigError
from pipelines.terminal import PlatformFile, console, explained, overrides_of, recipe_argument

app = typer.Typer()


@app.command()
def submit(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a store URL.")],
    host: Annotated[str, typer.Option(envvar="MANTIS_KFP_HOST", help="KFP's address, e.g. http://localhost:8080.")],
    image: Annotated[str, typer.Option(envvar="MANTIS_IMAGE", help="The steps' image: name@sha256:...")],
    store: Annotated[str, typer.Option(envvar="MANTIS_STORE", help="s3://bucket/prefix.")],
    platform: PlatformFile = None,
    namespace: Annotated[str, typer.Option(help="The namespace of the runs.")] = "kubeflow",
    pipeline: Annotated[str, typer.Option(help="instruction-tuning, data-preparation, evaluation or ablation.")] = (
        "instruction-tuning"
    ),
    model: Annotated[str, typer.Option(help="Of --pipeline evaluation: the model's key or URI.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
    name: Annotated[str, typer.Option(help="The run's id; without it, it follows from the recipe.")] = "",
    experiment: Annotated[str, typer.Option(help="KFP's experiment; made if it is not there.")] = "mantis",
    account: Annotated[str, typer.Option(help="The ServiceAccount of the steps.")] = "mantis-steps",
    token: Annotated[
        str, typer.Option(envvar="MANTIS_KFP_TOKEN", help="Better in the environment; in a pod its ServiceAccount's.")
    ] = "",
    ca: Annotated[str, typer.Option(help="A file with the CA of KFP's certificate.")] = "",
    cron: Annotated[str, typer.Option(help="A recurring run: six fields, seconds first, e.g. '0 0 3 * * 1'.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the end; exit code 1 unless it succeeds.")] = False,
) -> None:
    """Start a run on Kubeflow Pipelines, and print where to watch it."""
    from pipelines.execution import submit as kfp
    from pipelines.execution.ablation_runs import resolve_parent
    from pipelines.execution.compile import PIPELINES
    from pipelines.execution.platform import platform_of
    from pipelines.execution.resolve import name_of, resolve_run

    with explained():
        if pipeline not in PIPELINES:
            raise ConfigError(f"--pipeline {pipeline!r} is unknown.", remedy=f"There are: {', '.join(PIPELINES)}.")
        if not store.startswith("s3://"):
            raise ConfigError(f"--store {store!r}: pods cannot reach it.", remedy="Use s3://bucket/prefix.")
        if cron and follow:
            raise ConfigError("--cron and --follow exclude each other.", remedy="Leave one out.")
        kfp.check_parameters(pipeline, model)
        text, overrides = recipe_argument(recipe), overrides_of(set_ or [], None)
        if pipeline == "ablation":
            title, _ = resolve_parent(text, overrides, name, store)
        else:
            title, _ = resolve_run(text, overrides, name_of(text, overrides, name, model, store), store)
        parameters = {"run_recipe": text, "run_overrides": overrides, "run_name": name, "store_url": store}
        server = kfp.Server(host=host.rstrip("/"), namespace=namespace, token=token, ca_file=ca)
        wanted = kfp.Submission(
            pipeline=pipeline,
            platform=platform_of(image, platform),
            experiment=experiment,
            title=title,
            parameters=parameters | ({"eval_model": model} if model else {}),
            service_account=account,
            cron=cron,
        )
        made = kfp.submit(server, wanted)
        page = "recurringrun" if cron else "runs"
        console.print(f"run [bold]{title}[/]  {server.host}/#/{page}/details/{made}", soft_wrap=True)
        if follow and kfp.follow(server, made) != "SUCCEEDED":
            raise kfp.SubmissionError(f"The run {title} did not succeed.", remedy=f"`mantis status {title}` says why.")
