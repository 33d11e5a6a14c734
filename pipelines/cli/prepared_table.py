"""The rows that data preparation kept, dropped and repaired, by subset and reason: as a table and as JSON."""

from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.cli.console import console, ids, note, numbers, show_table, tell, texts

if TYPE_CHECKING:
    from components.data.prepare.ledger import Reasons
    from mantis.artifacts.manifest import Manifest
    from mantis.runs.step_runner import Run


def prepared_subsets(run: "Run") -> list[dict[str, Any]]:
    """What preparation kept of each subset of a run, and why it dropped or repaired the other rows.

    `noted` is there for a subset with rows that are kept as they are, but noted in the ledger.
    """
    from components.data.prepare.ledger import count_reasons
    from mantis.artifacts.layout import ArtifactKind, subset_of

    rows = []
    for manifest in _results(run, ArtifactKind.DATASET):
        name = subset_of(manifest.key)
        figures = {field: manifest.summary[field] for field in ("rows", "kept")}
        counted: Reasons = count_reasons(run.store, manifest.key).get(name, {})
        reasons = {action: counted.get(action, {}) for action in ("dropped", "repaired")}
        noted = {"noted": counted["noted"]} if counted.get("noted") else {}
        form = {"form": manifest.summary.get("form", "")}  # a set that was prepared before has none
        rows.append({"name": name} | form | figures | reasons | noted)
    return sorted(rows, key=lambda row: str(row["name"]))


def show_prepared(run: "Run", *, to: Console = console) -> None:
    """Print the subsets that a run has prepared as a table, then the rows that its mixture lacks, and the remedies."""
    from components.data.prepare.reasons import reason_of

    subsets = prepared_subsets(run)
    if not subsets:
        return
    columns = [*ids("subset"), *numbers("rows", "kept"), *texts("dropped", "repaired", "noted", "form")]
    rows = [
        (each["name"], f"{each['rows']:,}", f"{each['kept']:,}",
         *(_words(each.get(action, {})) for action in ("dropped", "repaired", "noted")), each["form"])
        for each in subsets
    ]  # fmt: skip
    show_table(columns, rows, to=to)
    mixture = _left_out(run)
    for name, reasons in mixture.items():
        for action in ("dropped", "repaired"):
            if reasons[action]:
                tell(f"mixture: {name}: {action} {_words(reasons[action])}", to=to)
    counted = [*(each["dropped"] for each in subsets), *(reasons["dropped"] for reasons in mixture.values())]
    for word in dict.fromkeys(reason for drops in counted for reason in drops):
        reason = reason_of(word)
        note(f"{word}: {reason.meaning.replace('`', '')}. {reason.remedy}")


def _left_out(run: "Run") -> "dict[str, Reasons]":
    """The reasons in the ledger of the run's mixture, by subset; empty before it is assembled."""
    from components.data.prepare.ledger import count_reasons
    from mantis.artifacts.layout import ArtifactKind

    found = _results(run, ArtifactKind.MIXTURE)
    return count_reasons(run.store, found[-1].key) if found else {}


def _results(run: "Run", kind: str) -> "list[Manifest]":
    """The results of a kind that the run's records name, also those that the run refused."""
    from mantis.artifacts.manifest import read_manifest
    from mantis.runs.records import read_records

    found = [read_manifest(run.store, record.key) for record in read_records(run.store, run.id) if record.key]
    return [manifest for manifest in found if manifest is not None and manifest.kind == kind]


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
