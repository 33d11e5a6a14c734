"""`mantis evaluate`: any model on any benchmark, on this machine."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from mantis.artifacts.layout import benchmark_of, report_key
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.scores import Score
from mantis.config.bounded_yaml import parse_yaml
from mantis.errors import ConfigError
from mantis.schema_versions import Form, load_rows
from mantis.store.base import ObjectStore
from pipelines.cli.arguments import (
    MODEL_HELP,
    AsJson,
    Changes,
    Name,
    Store,
    complete_benchmark,
    complete_model,
    examples,
    opened,
    overrides_given,
)
from pipelines.cli.commands.benchmark_commands import show_scores
from pipelines.cli.console import note, show, show_json

if TYPE_CHECKING:
    from mantis.generation.answerer import AnsweringModel

EXAMPLES = examples(
    "mantis evaluate FOLDER --benchmark mantis-eval --benchmark blink",
    "mantis evaluate models/FINGERPRINT --benchmark demo-multi --limit 200",
    "mantis evaluate --endpoint http://127.0.0.1:8000/v1 --model NAME --benchmark blink --json",
)

Benchmarks = Annotated[
    list[str],
    typer.Option(
        "--benchmark",
        metavar="NAME|FILE",
        help="A benchmark, or its YAML file. May be given several times.",
        autocompletion=complete_benchmark,
    ),
]
Samples = Annotated[
    str,
    typer.Option(
        "--source",
        help="Where the samples are: `mirror`, `generated`, or the folder or store URL that holds the benchmark's "
        "folder. Without it, each benchmark has its own.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Ask N samples of each benchmark, drawn in strata by skill. The scores call them a sample.",
        metavar="N",
    ),
]


def evaluate(
    benchmark: Benchmarks,
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help=MODEL_HELP,
            autocompletion=complete_model,
        ),
    ] = "",
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help="Ask an OpenAI-compatible address. The key comes from OPENAI_API_KEY."),
    ] = "",
    served: Annotated[str, typer.Option("--model", metavar="NAME", help="With --endpoint: the model's name.")] = "",
    request: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="With --endpoint: set a field of the requests, as YAML. null removes it. May be given several times.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=512, help="With --endpoint: the number of requests under way.")
    ] = 8,
    limit: Limit = None,
    source: Samples = "",
    set_: Changes = None,
    name: Name = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on benchmarks: a folder, a model of the store, or an endpoint. No recipe is needed.

    A stopped evaluation continues with the same command: responses in the store are not generated again.

    Controls are not asked unless you set them: --set 'evaluation.controls=[blind,shuffled]'.
    """
    with redirect_stdout(sys.stderr):  # libraries that load models print there
        from pipelines.execution.model_evaluation import EvaluationRequest, evaluate_on

        there = opened(store)
        found = _model(there, model, endpoint, served, request, concurrency)
        asked = EvaluationRequest(
            benchmarks=benchmark, source=source, limit=limit, overrides=overrides_given(set_, None), name=name
        )
        run, evaluations = evaluate_on(there, found, served or model, asked)
    rows = [row for evaluation in evaluations for row in _rows(there, evaluation)]
    page = there.uri(report_key(run.id, "report.html"))
    if as_json:
        names = [benchmark_of(evaluation.key) for evaluation in evaluations]
        scored = {"benchmark": names[0] if len(names) == 1 else names, "model": served or model}
        show_json(scored | {"scores": [row.stored() for row in rows], "run": run.id, "report": page})
        return
    show_scores(rows)
    if any(row.drawn_from is not None for row in rows):
        note("These figures are of a stratified sample (--limit). They are not comparable with published ones.")
    show(f"run     {run.id}")
    show(f"report  {page}")


def _model(
    store: ObjectStore, address: str, endpoint: str, served: str, request: list[str] | None, concurrency: int
) -> "AnsweringModel":
    if bool(endpoint) != bool(served) or bool(endpoint) == bool(address):
        raise ConfigError(
            "A model is missing, or two are named.",
            remedy="Name a folder or a model of the store. Or name --endpoint URL together with --model NAME.",
        )
    if endpoint:
        from components.evaluation.generation.endpoint_model import model_behind

        return model_behind(endpoint, served, fields=_fields(request), concurrency=concurrency)
    if request:
        raise ConfigError("--request is for an endpoint.", remedy="Leave it out, or name --endpoint URL.")
    from pipelines.models.find_model import find_model

    return find_model(store, address)


def _fields(request: list[str] | None) -> dict[str, Any]:
    fields = {}
    for item in request or ():
        field, equals, value = item.partition("=")
        if not equals or field in ("model", "messages"):
            raise ConfigError(
                f"--request {item!r} sets no field of a request.", remedy="E.g. --request max_tokens=512."
            )
        try:
            fields[field] = parse_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--request {item!r}: {error}.", remedy="Write the value as YAML or JSON.") from None
    return fields


def _rows(store: ObjectStore, evaluation: Manifest) -> list[Score]:
    key = f"{evaluation.key}/scores.json"
    return [Score.model_validate(row) for row in load_rows(Form.SCORES, "scores", store.get(key), store.uri(key))]
