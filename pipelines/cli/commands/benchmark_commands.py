"""`mantis benchmark` and `mantis rescore`: list and fetch benchmarks, and score responses again."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.source_names import MIRROR
from mantis.artifacts.store_addresses import key_of
from mantis.errors import ConfigError, did_you_mean
from mantis.store.base import ObjectStore
from pipelines.cli.arguments import AsJson, BenchmarkName, Store, complete_benchmark, examples, opened
from pipelines.cli.console import ids, names, numbers, show, show_json, show_table, tell, texts

if TYPE_CHECKING:
    from components.evaluation.benchmarks.benchmark_catalog import Benchmark
    from components.evaluation.rescore import Rescored
    from components.evaluation.scoring.score_response import Scoring
    from mantis.artifacts.scores import Score

benchmark = typer.Typer(help="Benchmarks: list, show, fetch.")


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
        *ids("benchmark"), *names("split"), *numbers("tasks"), *names("metric", "average"), *numbers("published"),
        *texts("in the store"),
    ]  # fmt: skip
    show_table(columns, rows)
    show()
    tell("published: rows of published results on the same split with the same metric. Other rows get no verdict.")
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
    for skill in each.skills.values():
        chance = "one in the number of options" if skill.chance is None else f"{skill.chance:.0%}"
        show(f"  {skill.label}  (chance {chance})")
    kinds = Counter((row.source, row.split) for row in each.paper)
    for (origin, split), number in kinds.items():
        remark = "" if split == each.split else ": no verdict against another split"
        show(f"{number} published rows, {origin}, {split}{remark}")


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


RESCORE_EXAMPLES = examples(
    "mantis rescore evaluations/MODEL/mantis-eval/FINGERPRINT --scoring strict",
    "mantis rescore responses.jsonl --benchmark mantis-eval --json -",
)


def rescore(
    responses: Annotated[
        str,
        typer.Argument(metavar="FILE|ADDRESS", help="A JSONL file with id and response, or an evaluation's address."),
    ],
    benchmark: Annotated[
        str,
        typer.Option(help="With a JSONL file: the benchmark that it answers.", autocompletion=complete_benchmark),
    ] = "",
    source: Annotated[
        str, typer.Option(help="With a JSONL file: `mirror`, or the folder that holds the benchmark's folder.")
    ] = MIRROR,
    scoring: Annotated[str, typer.Option(help="The profile of the headline: official or strict.")] = "official",
    model: Annotated[str, typer.Option(help="With --json and a JSONL file: the name of the model.")] = "",
    out: Annotated[
        str, typer.Option("--json", metavar="FILE|-", help="Write the scores there as JSON. - is stdout.")
    ] = "",
    store: Store = "",
) -> None:
    """Score responses again without generating any: with the current metrics, or with the other profile."""
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark

    profile, there = _profile(scoring), opened(store)
    if benchmark:
        described = load_benchmark(benchmark)
        made = _rescore_file(there, Path(responses), described, source, profile)
    elif Path(responses).is_file():
        raise ConfigError(
            f"{responses} is a file, and --benchmark is missing.", remedy="Name the benchmark that it answers."
        )
    else:
        described, model, made = _rescore_evaluation(there, responses, profile)
    scored = {"benchmark": described.name, "model": model, "scores": [row.stored() for row in made.rows]}
    if out == "-":
        show_json(scored)
        return
    _show_rows(made.rows)
    if out:
        _write(Path(out), json.dumps(scored, indent=1, ensure_ascii=False) + "\n")


def _profile(scoring: str) -> "Scoring":
    from components.evaluation.scoring.score_response import Scoring

    profile: Scoring | None = next((known for known in get_args(Scoring) if known == scoring), None)
    if profile is None:
        raise ConfigError(
            f"--scoring {scoring!r} is no profile.",
            remedy=f"{did_you_mean(scoring, get_args(Scoring))}Use official or strict.",
        )
    return profile


def _rescore_file(
    store: ObjectStore, file: Path, described: "Benchmark", source: str, profile: "Scoring"
) -> "Rescored":
    from components.evaluation.benchmarks.benchmark_mirror import find_mirror
    from components.evaluation.readers.benchmark_source import local_copy, read_and_log
    from components.evaluation.rescore import rescore_file

    if source == MIRROR and described.generated:
        raise ConfigError(
            f"{described.name} is generated: it has no mirror.",
            remedy="Write it with `mantis data generate FOLDER`, and name --source FOLDER/benchmarks.",
        )
    with tempfile.TemporaryDirectory(prefix="mantis-rescore-") as temporary:
        root = Path(temporary)
        if source == MIRROR and described.source and "://" not in described.source:
            folder = Path(described.source)
        elif source == MIRROR:
            manifest = find_mirror(store, described)
            folder = local_copy(store, f"{manifest.key}/files", root)
        else:
            folder = Path(source).expanduser() / described.name
        samples = read_and_log(folder, described, spool=root / "pictures", pictures=False)
    return rescore_file(file, described, samples, profile, seed=0)


def _rescore_evaluation(store: ObjectStore, address: str, profile: "Scoring") -> "tuple[Benchmark, str, Rescored]":
    """Return the benchmark, the model's fingerprint, and the scores."""
    from components.evaluation import rescore
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark

    key = key_of(store, address)
    parts = ArtifactKind.EVALUATION.pattern.parse(key)
    if parts is None:
        raise ConfigError(
            f"{key!r} is no evaluation.", remedy=f"Name {ArtifactKind.EVALUATION.pattern.text}, or a JSONL file."
        )
    described = load_benchmark(parts["benchmark"], own=_own_of_run(store, key))
    made = rescore.rescore_evaluation(store, key, described, profile, seed=0)
    return described, parts["model"], made


def _own_of_run(store: ObjectStore, evaluation: str) -> dict[str, Any]:
    """The benchmarks that the recipe of the run of this evaluation describes itself; empty without such a recipe."""
    from mantis.artifacts.manifest import read_manifest
    from mantis.runs.step_runner import open_run

    manifest = read_manifest(store, evaluation)
    try:
        return {} if manifest is None else open_run(manifest.made_by.run, store.url).recipe.evaluation.own_benchmarks
    except ConfigError:  # the run was deleted
        return {}


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
        "results": [row.model_dump() | {"comparable": each.comparable(row)} for row in each.paper],
    }


def _show_rows(rows: "list[Score]") -> None:
    shown = []
    for row in rows:
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        shares = ("-" if share is None else f"{100 * share:.1f}" for share in (row.official, row.strict))
        counts = (str(row.samples), str(row.missing))
        shown.append((row.title, *counts, f"{100 * row.accuracy:.1f}", interval, *shares, str(row.unparsed)))
    figures = numbers("samples", "missing", "accuracy", "95 % interval", "official", "strict", "unparsed")
    show_table([*names("skill"), *figures], shown)
