"""`mantis benchmark` and `mantis rescore`: list, fetch and export benchmarks, and score responses again."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mantis.artifacts.scores import CONTROLS_CHOOSE
from mantis.errors import ConfigError, did_you_mean
from pipelines.cli.arguments import (
    AsJson,
    BenchmarkName,
    Changes,
    Store,
    complete_benchmark,
    examples,
    opened,
    overrides_given,
)
from pipelines.cli.console import ids, names, note, numbers, show, show_json, show_table, tell, texts

if TYPE_CHECKING:
    from components.evaluation.benchmarks.benchmark_catalog import Benchmark
    from components.evaluation.scoring.score_response import Scoring
    from mantis.artifacts.scores import Score

LIMIT = Annotated[
    int | None,
    typer.Option(
        min=1, help="Take N samples, drawn in strata by skill. The same N gives the same samples.", metavar="N"
    ),
]

benchmark = typer.Typer(help="Benchmarks: list, show, fetch, export.")


@benchmark.command(
    "list",
    epilog=examples("mantis benchmark list", "mantis benchmark list ./mine.yaml", "mantis benchmark list --json"),
)
def list_(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="YAML files of your own benchmarks.")
    ] = None,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """List the benchmarks, and which of them the store has. A wrong file is named, and stops no other."""
    from components.evaluation.benchmarks.benchmark_catalog import listed_benchmarks
    from components.evaluation.benchmarks.benchmark_mirror import mirrored

    there = opened(store)
    loaded, problems = listed_benchmarks(files or ())
    found = [(each, [] if each.generated else list(mirrored(there, each))) for each in loaded]
    if as_json:
        listed = [_benchmark_data(each, revisions) for each, revisions in found]
        show_json({"benchmarks": listed, "problems": [str(problem) for problem in problems]})
        return
    rows = []
    for each, revisions in found:
        has = "generated" if each.generated else ", ".join(revision[:12] for revision in revisions) or "no"
        comparable = sum(each.comparable(row) for row in each.paper)
        published = str(comparable) if comparable == len(each.paper) else f"{comparable} of {len(each.paper)}"
        tasks = str(len(each.skills))
        rows.append((each.name, each.split, tasks, each.metric, each.aggregation or "-", published, has))
    columns = [
        *ids("benchmark"), *texts("split"), *numbers("tasks"), *names("metric", "average"), *numbers("published"),
        *texts("in the store"),
    ]  # fmt: skip
    show_table(columns, rows)
    show()
    tell("published: results on the same split whose source states how they were made. Others get no verdict.")
    for problem in problems:
        tell(f"Not listed: {problem}")


@benchmark.command("show", epilog=examples("mantis benchmark show mantis-eval", "mantis benchmark show blink --json"))
def show_(name: BenchmarkName, store: Store = "", as_json: AsJson = False) -> None:
    """Show the skills, profiles, revision and published results of a benchmark."""
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from components.evaluation.benchmarks.benchmark_mirror import mirrored

    each, there = load_benchmark(name), opened(store)
    manifests = {} if each.generated else mirrored(there, each)
    if as_json:
        show_json(_benchmark_data(each, list(manifests)) | _details(each))
        return
    show(f"{each.title}  split {each.split}, metric {each.metric}, revision {each.revision()}", style="bold")
    if each.hub is not None:
        pinned = each.hub.revision or "not pinned: `mantis benchmark fetch` resolves and records it"
        show(f"https://huggingface.co/datasets/{each.hub.dataset}  {pinned}")
        for earlier in each.hub.moved_from:
            show(f"earlier name: https://huggingface.co/datasets/{earlier}")
    elif not each.generated:
        show(f"files: {each.source or 'the folder ' + each.name + '/ of evaluation.source'}")
    for revision, manifest in manifests.items():
        show(f"in the store: {revision}  {there.uri(manifest.key)}  {len(manifest.files)} files")
    show(f"profiles: {', '.join(each.prompts)}")
    for skill, described in each.skills.items():
        show(f"  {described.label}  (chance: {each.shown_chance(skill)})")
    kinds = Counter((row.source, row.split, row.scoring, row.prompt) for row in each.paper)
    for (origin, split, scoring, prompt), number in kinds.items():
        remark = "" if split == each.split else ": no verdict against another split"
        how = f"scoring {scoring or 'not stated'}, prompt {prompt or 'not stated'}"
        show(f"{number} published rows, {origin}, {split}, {how}{remark}")


@benchmark.command(epilog=examples("mantis benchmark fetch mantis-eval", "mantis benchmark fetch ./mine.yaml"))
def fetch(name: BenchmarkName, store: Store = "") -> None:
    """Put a benchmark into the store, with the hash of every file. Started again, it continues.

    A published one comes from the hub, one of your own from its folder. A recipe reads it with `evaluation.source:
    mirror`.
    """
    from components.evaluation.benchmarks import benchmark_mirror
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark

    there = opened(store)
    manifest = benchmark_mirror.fetch(there, load_benchmark(name))
    size = sum(file.size for file in manifest.files)
    show(f"{there.uri(manifest.key)}  {len(manifest.files)} files, {size / 1e6:,.1f} MB")


@benchmark.command(
    epilog=examples(
        "mantis benchmark export blink FOLDER",
        "mantis benchmark export mantis-eval FOLDER --openai NAME: adds openai.jsonl with requests for this model",
    )
)
def export(
    name: BenchmarkName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that receives requests and images.")],
    openai: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Write openai.jsonl too, in OpenAI's batch form, for a model of this name."),
    ] = "",
    source: Annotated[
        str, typer.Option(help="`mirror`, `generated`, or the folder or store URL that holds the benchmark's folder.")
    ] = "",
    limit: LIMIT = None,
    set_: Changes = None,
    store: Store = "",
) -> None:
    """Write prompts and images for another engine, one request a line. `mantis rescore` takes the answers back.

    Neither a GPU nor a model is needed. --set evaluation.profile=official changes the prompts, as in a recipe.
    """
    from pipelines.execution.model_evaluation import EvaluationRequest, export_benchmark

    request = EvaluationRequest(benchmarks=[name], source=source, limit=limit, overrides=overrides_given(set_, None))
    for path in export_benchmark(opened(store), request, folder, openai):
        show(str(path))


RESCORE_EXAMPLES = examples(
    "mantis rescore evaluations/MODEL/mantis-eval/FINGERPRINT --scoring strict",
    "mantis rescore responses.jsonl --benchmark mantis-eval --json -",
    "mantis rescore answers.jsonl: answers to the requests of `mantis benchmark export`",
)


def rescore(
    responses: Annotated[
        str,
        typer.Argument(metavar="FILE|ADDRESS", help="A JSONL file with id and response, or an evaluation's address."),
    ],
    benchmark: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="With a JSONL file: the benchmark that it answers, if the lines do not name it.",
            autocompletion=complete_benchmark,
        ),
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            help="With a JSONL file: `mirror`, `generated`, or the folder or URL that holds the benchmark's folder."
        ),
    ] = "",
    limit: LIMIT = None,
    scoring: Annotated[str, typer.Option(help="The score of the headline: official or strict.")] = "official",
    profile: Annotated[
        str, typer.Option(help="The profile whose rule scores; by default that of the evaluation, else `direct`.")
    ] = "",
    model: Annotated[str, typer.Option(help="With --json and a JSONL file: the name of the model.")] = "",
    out: Annotated[
        str, typer.Option("--json", metavar="FILE|-", help="Write the scores there as JSON. - is stdout.")
    ] = "",
    store: Store = "",
) -> None:
    """Score responses again without generating any: with the current metrics, or with the other score."""

    from pipelines.models.rescoring import AnswerRequest, rescored_evaluation, rescored_file

    headline, there = _scoring(scoring), opened(store)
    if benchmark or Path(responses).is_file():
        asked = AnswerRequest(benchmark=benchmark, source=source, limit=limit)
        described, made = rescored_file(there, Path(responses), asked, scoring=headline, profile=profile)
    else:
        described, model, made = rescored_evaluation(there, responses, scoring=headline, profile=profile)
    scored = {"benchmark": described.name, "model": model, "scores": [row.stored() for row in made.rows]}
    if out == "-":
        show_json(scored)
        return
    show_scores(made.rows)
    if out:
        _write(Path(out), json.dumps(scored, indent=1, ensure_ascii=False) + "\n")


def _scoring(name: str) -> "Scoring":
    from components.evaluation.scoring.score_response import Scoring

    scoring: Scoring | None = next((known for known in get_args(Scoring) if known == name), None)
    if scoring is None:
        raise ConfigError(
            f"--scoring {name!r} is no score.",
            remedy=f"{did_you_mean(name, get_args(Scoring))}Use official or strict.",
        )
    return scoring


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.", remedy="Name another file.") from None


def _benchmark_data(each: "Benchmark", revisions: list[str]) -> dict[str, Any]:
    return {
        "name": each.name,
        "title": each.title,
        "split": each.split,
        "skills": list(each.skills),
        "metric": each.metric,
        "aggregation": each.aggregation,
        "generated": each.generated,
        "mirrored": revisions,
        "published": len(each.paper),
        "comparable": sum(each.comparable(row) for row in each.paper),
    }


def _details(each: "Benchmark") -> dict[str, Any]:
    return {
        "revision": each.revision(),
        "dataset": each.hub.dataset if each.hub else None,
        "moved_from": list(each.hub.moved_from) if each.hub else [],
        "source": each.source,
        "profiles": list(each.prompts),
        "chance": {name: skill.chance for name, skill in each.skills.items()},
        "guesses": {name: list(skill.guesses) for name, skill in each.skills.items() if skill.guesses},
        "results": [row.model_dump() | {"comparable": each.comparable(row)} for row in each.paper],
    }


def show_scores(rows: "list[Score]") -> None:
    """Print the rows of scores.json as a table."""
    shown = []
    for row in rows:
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        shares = ("-" if share is None else f"{100 * share:.1f}" for share in (row.official, row.strict))
        counts = (row.counted, str(row.missing))
        controls = ("-" if share is None else f"{100 * share:.1f}" for share in (row.chance, row.blind, row.shuffled))
        accuracy = f"{100 * row.accuracy:.1f}"
        shown.append((row.title, *counts, accuracy, interval, str(row.unparsed), *shares, *controls))
    figures = numbers("samples", "missing", "accuracy", "95 % interval", "unparsed", "official", "strict")
    figures += numbers("chance", "blind", "shuffled")
    show_table([*names("skill"), *figures], shown)
    for row in (row for row in rows if row.overall):
        for name, share in row.variants.items():
            note(f"{row.title} by the variant {name!r} of its metric: {100 * share:.1f}.")
    cut = sum(row.cut for row in rows if not row.overall)
    if cut:
        note(f"Responses that were too long: {cut:,}. Only their beginning and end were scored.")
    for row in rows:
        if row.unreadable:
            note(f"{row.title}: no answer was found in {row.unparsed:,} of {row.samples:,} responses.")
    for row in (row for row in rows if row.overall and row.paper):
        verdict = "comparable with published results" if row.comparable else f"not comparable: {row.reason}"
        tell(f"{row.title}: {verdict}")
    if any(row.controls() for row in rows):
        tell(CONTROLS_CHOOSE)
