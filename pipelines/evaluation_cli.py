"""Commands around benchmarks: what there is, bring it, score responses again."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from components.evaluation.scoring.score_response import Scoring
from mantis.errors import ConfigError
from mantis.store.base import ObjectStore, default_store_url, key_of, open_store
from pipelines.terminal import Store, console, explained

app = typer.Typer()

BenchmarkName = Annotated[str, typer.Argument(help="A benchmark, as `mantis benchmarks` lists them.")]


@app.command()
def benchmarks(
    name: Annotated[str, typer.Argument(help="A benchmark; without it, all are listed.")] = "", store: Store = ""
) -> None:
    """List the benchmarks, and which of them the store has; or show all about one."""
    from components.evaluation.benchmarks.benchmark_catalog import known_benchmarks, load_benchmark
    from components.evaluation.benchmarks.benchmark_mirror import mirrored

    with explained():
        opened = open_store(store or default_store_url())
        if name:
            _describe(opened, name)
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("benchmark", "split", "tasks", "metric", "average", "published", "in the store"):
            table.add_column(title, overflow="fold", no_wrap=title != "in the store")
        for known in known_benchmarks():
            each = load_benchmark(known)
            if each.hub is None:
                there = "generated"
            else:
                there = ", ".join(revision[:12] for revision in mirrored(opened, each)) or "no"
            comparable = sum(each.comparable(row) for row in each.paper)
            rows = str(comparable) if comparable == len(each.paper) else f"{comparable} of {len(each.paper)}"
            average = each.aggregation or "-"
            table.add_row(known, each.split, str(len(each.skills)), each.metric, average, rows, there)
        console.print(table)
        console.print("published: rows that a result can be held to; those of another split or judge get no verdict")


@app.command("fetch-benchmark")
def fetch_benchmark(name: BenchmarkName, store: Store = "") -> None:
    """Mirror a published benchmark into the store, every file with its hash; started again, it goes on.

    A recipe reads it with evaluation.source: mirror.
    """
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from components.evaluation.benchmarks.benchmark_mirror import fetch

    with explained():
        opened = open_store(store or default_store_url())
        manifest = fetch(opened, load_benchmark(name))
        size = sum(file.size for file in manifest.files)
        console.print(f"{opened.uri(manifest.key)}  {len(manifest.files)} files, {size / 1e6:,.1f} MB")


@app.command()
def rescore(
    responses: Annotated[str, typer.Argument(help="An evaluation's key or URI, or a JSONL file with id and response.")],
    benchmark: Annotated[str, typer.Option(help="Of a JSONL file: which benchmark it answers.")] = "",
    source: Annotated[
        str, typer.Option(help="Of a JSONL file: `mirror`, or the folder that holds the benchmark's folder.")
    ] = "mirror",
    scoring: Annotated[str, typer.Option(help="The profile of the headline: official or strict.")] = "official",
    out: Annotated[Path | None, typer.Option("--json", help="Write the rows of scores.json there.")] = None,
    store: Store = "",
) -> None:
    """Score responses again, without generating anything: with today's metrics, or with the other profile."""
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from components.evaluation.scoring import rescore

    with explained():
        profile: Scoring | None = next((known for known in get_args(Scoring) if known == scoring), None)
        if profile is None:
            raise ConfigError(f"--scoring {scoring!r} is no profile.", remedy="Use official or strict.")
        opened = open_store(store or default_store_url())
        if benchmark:
            described = load_benchmark(benchmark)
            samples = _questions(opened, source, benchmark)
            made = rescore.rescore_file(Path(responses), described, samples, profile, seed=0)
        else:
            key = key_of(opened, responses)
            described = load_benchmark(rescore.benchmark_of(key))
            made = rescore.rescore_evaluation(opened, key, described, profile, seed=0)
        _show(made.rows)
        if out is not None:
            out.write_text(json.dumps(made.rows, indent=1, ensure_ascii=False) + "\n")


def _questions(store: ObjectStore, source: str, name: str) -> Any:
    """What the responses answer; no image is read."""
    import tempfile

    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from components.evaluation.benchmarks.benchmark_mirror import find_mirror
    from components.evaluation.benchmarks.benchmark_source import local_copy, read_and_say

    described = load_benchmark(name)
    with tempfile.TemporaryDirectory(prefix="mantis-rescore-") as temporary:
        root = Path(temporary)
        if source == "mirror":
            manifest = find_mirror(store, described)
            folder = local_copy(store, f"{manifest.key}/files", root)
        else:
            folder = Path(source).expanduser() / name
        return read_and_say(folder, described, spool=root / "pictures", pictures=False)


def _describe(store: ObjectStore, name: str) -> None:
    from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
    from components.evaluation.benchmarks.benchmark_mirror import mirrored

    each = load_benchmark(name)
    console.print(f"[bold]{each.title}[/]  split {each.split}, metric {each.metric}, revision {each.revision()}")
    if each.hub is not None:
        pinned = each.hub.revision or "not pinned: fetch-benchmark resolves and records it"
        console.print(f"https://huggingface.co/datasets/{each.hub.dataset}  {pinned}")
        for revision, manifest in mirrored(store, each).items():
            console.print(f"mirrored {revision}  {store.uri(manifest.key)}  {len(manifest.files)} files")
    console.print(f"prompts: {', '.join(each.prompts)}")
    for skill in each.skills.values():
        chance = "one in the options" if skill.chance is None else f"{skill.chance:.0%}"
        console.print(f"  {skill.label}  (chance {chance})", markup=False)
    kinds = Counter((row.source, row.split) for row in each.paper)
    for (origin, split), number in kinds.items():
        note = "" if split == each.split else ": no verdict against another split"
        console.print(f"{number} published rows, {origin}, {split}{note}", markup=False)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("skill", "samples", "missing", "accuracy", "95 % interval", "official", "strict", "unparsed"):
        table.add_column(title, justify="left" if title == "skill" else "right")
    for row in rows:
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        shares = [f"{100 * row[name]:.1f}" for name in ("accuracy", "official", "strict")]
        table.add_row(
            row["label"], str(row["samples"]), str(row["missing"]), shares[0], interval, *shares[1:],
            str(row["unparsed"]),
        )  # fmt: skip
    console.print(table)
