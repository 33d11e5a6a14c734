"""Collect a RunReport from the store, with a note for everything that is missing."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.collect_data import (
    base_licences_of,
    contamination_of,
    ledger_reasons,
    licences_of,
    subsets_of,
)
from components.reporting.collect.collect_training import training_of
from components.reporting.collect.fidelity_rows import differences_of
from components.reporting.collect.report_schema import Answer, Answering, Artifact, RunReport, StepTime
from mantis.artifacts.held_out import HELD_OUT, HeldOutScore
from mantis.artifacts.layout import ArtifactKind, benchmark_of
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.scores import Score
from mantis.runs.lineage import Link
from mantis.runs.records import State, StepRecord, read_records
from mantis.runs.step_runner import Run

REPORT_STEP = "report"
INLINE_IMAGES = ("data:image/jpeg;base64,", "data:image/png;base64,", "data:image/webp;base64,")
GALLERY_BYTES = 3_000_000  # bytes of inline images; keeps the page below 5 MB with fifteen benchmarks

Row = TypeVar("Row", bound=BaseModel)


def collect(run: Run, evaluations: Sequence[Manifest]) -> RunReport:
    """Collect everything that the report of `run` shows. Missing artifacts and files become notes.

    Raises:
        StoreError: the store cannot be reached.
    """
    reader = Reader(run.store)
    ordered = _in_order(run, evaluations)
    if not ordered:
        reader.note("This run has no evaluation.")
    links = _chain(reader, ordered)
    manifests = [link.manifest for link in links]
    checkpoint = _only(reader, manifests, ArtifactKind.CHECKPOINT)
    mixture = _only(reader, manifests, ArtifactKind.MIXTURE)
    datasets = [manifest for manifest in manifests if manifest.kind is ArtifactKind.DATASET]
    gallery = _gallery(reader, ordered)
    shown = _within_budget(gallery)
    return RunReport(
        run=run.id,
        recipe=run.recipe.name,
        description=run.recipe.description,
        recipe_text=run.recipe.to_yaml(),
        made=datetime.now(UTC),
        scores=tuple(row for manifest in ordered for row in stored_scores(reader, manifest)),
        training=training_of(reader, checkpoint, run.recipe) if checkpoint else None,
        subsets=subsets_of(reader, datasets, mixture),
        ledger=ledger_reasons(reader, [*datasets, *([mixture] if mixture else [])]),
        licences=(*base_licences_of(reader, manifests), *licences_of(reader, mixture)),
        contamination=contamination_of(reader, run),
        steps=_steps(run),
        answering=tuple(_answering(run, manifest) for manifest in ordered),
        reference=run.recipe.evaluation.reference,
        held_out=tuple(row for manifest in ordered for row in stored_held_out(reader, manifest)),
        margin=run.recipe.evaluation.margin,
        gallery=shown,
        left_out_of_gallery=len(gallery) - len(shown),
        lineage=tuple(_artifact(link) for link in links),
        notes=tuple(reader.notes),
        fidelity=differences_of(run.recipe),
    )


def _in_order(run: Run, evaluations: Sequence[Manifest]) -> list[Manifest]:
    """Sort by the recipe's order of benchmarks, others last, because a parallel loop returns them in any order."""
    named = list(run.recipe.evaluation.benchmarks)

    def place(evaluation: Manifest) -> tuple[int, str]:
        benchmark = benchmark_of(evaluation.key)
        return (named.index(benchmark) if benchmark in named else len(named), benchmark)

    return sorted(evaluations, key=place)


def _chain(reader: Reader, evaluations: Iterable[Manifest]) -> list[Link]:
    """List each artifact once: the evaluations first, then their model, checkpoint, mixture and datasets."""
    links: dict[str, Link] = {}
    for evaluation in evaluations:
        for link in reader.chain(evaluation):
            links.setdefault(link.manifest.key, link)
    return sorted(links.values(), key=lambda link: link.depth)


def _only(reader: Reader, manifests: Iterable[Manifest], kind: ArtifactKind) -> Manifest | None:
    found = [manifest for manifest in manifests if manifest.kind is kind]
    if not found:
        reader.note(f"The lineage of the evaluations contains no {kind.value}.")
    if len(found) > 1:
        reader.note(f"The evaluations have {len(found)} {kind.value}s in their lineage; {found[0].key} is shown.")
    return found[0] if found else None


def stored_scores(reader: Reader, evaluation: Manifest) -> list[Score]:
    """Return the rows of scores.json. A note says where they are of a random sample."""
    rows = _parsed_rows(reader, evaluation, "scores.json", reader.scores(evaluation), Score)
    sampled = sorted({row.benchmark for row in rows if row.drawn_from is not None})
    for benchmark in sampled:
        reader.note(f"{benchmark}: the scores are of a stratified sample (evaluation.limit), not of all samples.")
    return rows


def stored_answers(reader: Reader, evaluation: Manifest) -> list[Answer]:
    """Return the entries of gallery.json."""
    return _parsed_rows(reader, evaluation, "gallery.json", reader.answers(evaluation), Answer)


def stored_held_out(reader: Reader, evaluation: Manifest) -> list[HeldOutScore]:
    """Return the rows of holdout.json; empty for the evaluation of another benchmark."""
    return _parsed_rows(reader, evaluation, HELD_OUT, reader.held_out(evaluation), HeldOutScore)


def _parsed_rows(
    reader: Reader, manifest: Manifest, name: str, raw_rows: list[dict[str, Any]], row_type: type[Row]
) -> list[Row]:
    """Parse the rows of a JSON file of `manifest`. An invalid row becomes a note and is left out."""
    rows = []
    for number, raw in enumerate(raw_rows):
        try:
            rows.append(row_type.model_validate(raw))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            reader.note(f"{manifest.key}/{name}, row {number}: {field}: {first['msg']}; the row is left out.")
    return rows


def _gallery(reader: Reader, evaluations: Iterable[Manifest]) -> list[Answer]:
    answers = []
    for evaluation in evaluations:
        for answer in stored_answers(reader, evaluation):
            inline = tuple(image for image in answer.images if image.startswith(INLINE_IMAGES))
            if len(inline) < len(answer.images):  # the page must not load anything from elsewhere
                reader.note(f"{evaluation.key}/gallery.json, {answer.id}: images that are not inline are left out.")
            answers.append(answer.model_copy(update={"images": inline}))
    return answers


def _within_budget(gallery: Sequence[Answer]) -> tuple[Answer, ...]:
    """Select answers within GALLERY_BYTES: one right, wrong and unparsed answer per skill, then the second ones."""
    seen: dict[tuple[str, str, bool, bool], int] = {}
    ranked = []
    for place, answer in enumerate(gallery):
        group = (answer.benchmark, answer.skill, answer.correct, answer.parsed)
        seen[group] = seen.get(group, 0) + 1
        ranked.append((seen[group], place))
    left = GALLERY_BYTES
    taken = []
    for _, place in sorted(ranked):
        size = sum(map(len, gallery[place].images))
        if size <= left:
            left -= size
            taken.append(place)
    return tuple(gallery[place] for place in sorted(taken))


def _steps(run: Run) -> tuple[StepTime, ...]:
    """Return the times of the steps. The report's own step is still running and therefore left out."""
    return tuple(_step_time(record) for record in read_records(run.store, run.id) if record.step != REPORT_STEP)


def _step_time(record: StepRecord) -> StepTime:
    started = datetime.fromisoformat(record.started)
    ended = datetime.fromisoformat(record.ended) if record.ended else datetime.now(UTC)
    running = (ended - started).total_seconds()
    return StepTime(
        step=record.step,
        state=record.state,
        started=started,
        ended=ended,
        seconds=running if record.state is State.STARTED else record.seconds,
        attempts=record.attempts,
        reason=record.reason,
    )


def _answering(run: Run, evaluation: Manifest) -> Answering:
    generated, seconds = (evaluation.summary.get(name) for name in ("answers_generated", "answer_seconds"))
    return Answering(
        benchmark=benchmark_of(evaluation.key),
        generated=generated if isinstance(generated, int) else None,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _artifact(link: Link) -> Artifact:
    manifest, made_by = link.manifest, link.manifest.made_by
    return Artifact(
        depth=link.depth,
        role=link.role,
        kind=manifest.kind.value,
        key=manifest.key,
        fingerprint=manifest.fingerprint,
        step=made_by.step,
        revision=made_by.revision,
        run=made_by.run,
        code_version=made_by.code_version,
        image_digest=made_by.image_digest,
    )
