"""Commands about a store and a machine: checks, the lineage of results, and deletion."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from mantis.artifacts.layout import run_key
from mantis.errors import ConfigError
from mantis.runs.lineage import Link
from mantis.store.base import ObjectStore, delete_tree
from mantis.store.opening import default_store_url
from pipelines.cli.arguments import AsJson, Changes, Store, complete_run, examples, opened, overrides_given
from pipelines.cli.console import errors, ids, numbers, show, show_json, show_table, show_tree, tell, texts

KEEP_HOURS = 24.0
FACTS = 6  # numbers of an artifact's summary that `lineage` shows
CHECK_MARKS = {True: ("ok", "green"), False: ("no", "red"), None: ("--", "dim")}


def doctor(
    store: Store = "",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Check the cluster of KUBECONFIG too. This starts two pods.")
    ] = False,
    set_: Changes = None,
    nodes: Annotated[int, typer.Option(min=2, help="With --cluster: the number of pods of the all-reduce.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Check what works on this machine, and say how to repair what does not."""
    from pipelines.doctor.machine_checks import examine

    store_url = store or default_store_url()
    findings = examine(store_url)
    if cluster:
        from pipelines.doctor.cluster_checks import examine_cluster
        from pipelines.execution.resolve import resolve_run

        settings = resolve_run("demo", overrides_given(set_, None), "")[1].cluster
        findings += examine_cluster(settings, store_url, nodes=nodes)
    if as_json:
        show_json({"store": store_url, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = Text(*CHECK_MARKS[finding.ok])
            show(Text.assemble(mark, f"  {finding.what:<14} {finding.found}"))
            if finding.ok is not True and finding.remedy:
                show(f"    {finding.remedy}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def lineage(
    address: Annotated[
        str,
        typer.Argument(
            help="An artifact: its key in the store, its URI, or a run for the run's last result. With #SAMPLE: one "
            "prediction of an evaluation.",
            autocompletion=complete_run,
        ),
    ],
    store: Store = "",
    check: Annotated[bool, typer.Option(help="Read every object, and compare its hash.")] = True,
    sources: Annotated[
        bool, typer.Option("--sources/--no-sources", help="With --check: compare the raw data too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Walk from a prediction or an artifact back to the source rows, and check every hash."""
    from components.data.prepare.verify_source import check_origin
    from mantis.runs.lineage import find_artifact, find_prediction, walk
    from pipelines.execution.checks.benchmark_image_check import check_shown_images

    there = opened(store)
    name, _, sample = address.partition("#")
    artifact = find_artifact(there, _key_or_uri(there, name))
    links = list(walk(there, artifact, check=check, origin=check_origin if check and sources else None))
    problems = [problem for link in links for problem in link.problems]
    prediction: dict[str, Any] | None = None
    remark = ""
    if sample and not links[0].problems:  # a changed response is not shown as the model's
        prediction = find_prediction(there, artifact, sample)
        changed, remark = check_shown_images(there, artifact, prediction) if check and sources else ([], "")
        problems += changed
    if as_json:
        chain = [_link_data(link, checked=check) for link in links]
        show_json({"artifact": artifact.key, "prediction": prediction, "chain": chain, "problems": problems})
    else:
        show_tree(_tree(links, _prediction_tree(prediction, remark) if prediction else None, check))
    for problem in problems:
        errors.print(problem, markup=False)
    if problems:
        raise typer.Exit(1)
    if check and not as_json:
        show("Every recorded byte is unchanged.")


def gc(
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget",
            metavar="RUN",
            help="Count this run as gone, and delete its records. May be given several times.",
            autocompletion=complete_run,
        ),
    ] = None,
    keep_hours: Annotated[
        float, typer.Option(min=0, help="Keep unfinished results that changed within this many hours.")
    ] = KEEP_HOURS,
    delete: Annotated[bool, typer.Option("--delete", help="Delete. Without it, only list.")] = False,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """List the results that no run leads to. With --delete, delete them.

    Results of the remaining runs stay. Sources, base weights and imported models stay too. Unfinished results that no
    record names stay for a day, because somebody may be working on them. MLflow is not touched.

    Start no run at the same time. A run that is about to reuse a result would not find it any more.
    """
    from mantis.runs import garbage_collection

    there = opened(store)
    forgotten = frozenset(forget or ())
    found = garbage_collection.garbage(there, without=forgotten)
    old = [each for each in found if not each.kept(keep_hours)]
    if delete:
        for run in sorted(forgotten):  # first: a record must not lead to a deleted result
            delete_tree(there, run_key(run))
        for each in old:
            garbage_collection.delete(there, each)
    if as_json:
        data = [
            {"address": each.key, "objects": each.objects, "bytes": each.bytes, "finished": each.whole,
             "kept": each.kept(keep_hours), "deleted": delete and not each.kept(keep_hours)}
            for each in found
        ]  # fmt: skip
        show_json({"store": there.url, "results": data})
        return
    if found:
        rows = [(each.key, f"{each.objects:,}", f"{each.bytes / 1e9:.3f}", _state(each, keep_hours)) for each in found]
        show_table([*ids("no run leads to"), *numbers("objects", "GB"), *texts("")], rows)
    if len(old) < len(found):
        tell(f"{len(found) - len(old)} unfinished results are kept: they changed within {keep_hours:g} hours")
    total = f"{len(old)} results, {sum(each.bytes for each in old) / 1e9:.3f} GB"
    if delete:
        show(f"deleted {total}")
    else:
        show(f"{total}; --delete removes {'them' if old else 'nothing'}")


COMMANDS: dict[Callable[..., None], str] = {
    doctor: examples("mantis doctor", "mantis doctor --cluster --set cluster.image=REF", "mantis doctor --json"),
    lineage: examples(
        "mantis lineage models/FINGERPRINT",
        "mantis lineage 'evaluations/MODEL/demo-multi/FINGERPRINT#SAMPLE'",
        "mantis lineage demo-1a2b3c4d --json",
    ),
    gc: examples("mantis gc", "mantis gc --forget demo-1a2b3c4d --delete", "mantis gc --json"),
}


def _state(garbage: Any, keep_hours: float) -> str:
    return "" if garbage.whole else "unfinished, kept" if garbage.kept(keep_hours) else "never finished"


def _key_or_uri(store: ObjectStore, name: str) -> str:
    """Return a key or URI unchanged; for the id of a run, return the key of its last result."""
    from mantis.runs.records import read_records
    from mantis.runs.step_runner import open_run

    if "/" in name:
        return name
    open_run(name, store.url)
    made = [record.key for record in read_records(store, name) if record.key]
    if not made:
        raise ConfigError(f"run = {name!r} has no result yet.", remedy=f"`mantis status {name}` says how far it is.")
    return made[-1]


def _tree(links: list[Link], top: Tree | None, check: bool) -> Tree:
    branches: dict[int, Tree] = {}
    for link in links:
        label = _link_label(link, checked=check)
        parent = branches.get(link.depth - 1, top)
        branches[link.depth] = parent.add(label) if parent is not None else Tree(label)
        top = top or branches[0]
    return top or Tree("")


def _prediction_tree(prediction: dict[str, Any], remark: str) -> Tree:
    tree = Tree(Text(f"prediction {prediction['id']}"))
    for name in ("question", "response", "answer", "correct"):
        tree.add(Text(f"{name}: {prediction.get(name)}"))
    images = tree.add(Text.assemble("images  ", (remark, "dim")))
    for image in prediction.get("images", []):
        images.add(Text(f"{image['path']}  sha256 {image['sha256']}"))
    return tree


def _link_label(link: Link, *, checked: bool) -> Text:
    """Format two lines: address and result of the check, then the step that made it and its most important numbers."""
    manifest, made = link.manifest, link.manifest.made_by
    mark = ("changed", "red") if link.problems else ("checked", "green") if checked else ("not checked", "")
    facts = "  ".join(f"{name}={_rounded(value)}" for name, value in list(manifest.summary.items())[:FACTS])
    return Text.assemble(
        (link.role, "bold"), f"  {manifest.key}  ", mark, (f"  {link.note}" if link.note else "", "dim"),
        (f"\nrun {made.run or '-'}  code {made.code_version}  {facts}", "dim"),
    )  # fmt: skip


def _link_data(link: Link, *, checked: bool) -> dict[str, Any]:
    manifest = link.manifest
    return {
        "depth": link.depth,
        "role": link.role,
        "kind": manifest.kind.value,
        "address": manifest.key,
        "fingerprint": manifest.fingerprint,
        "made_by": manifest.made_by.model_dump(),
        "summary": manifest.summary,
        "checked": checked and not link.problems,
        "problems": list(link.problems),
        "note": link.note,
    }


def _rounded(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
