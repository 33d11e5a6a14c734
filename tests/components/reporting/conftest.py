"""A run as the other parts leave it in the store, with the fields of docs/reference/artifacts.md."""

import base64
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from mantis.artifacts.manifest import Kind, MadeBy, Manifest, Number, commit_manifest, describe_files
from mantis.config.recipe import Recipe
from mantis.hashing import fingerprint
from mantis.runs.step_runner import Run, State, StepRecord
from mantis.store.lance_tables import write_table
from mantis.store.local import LocalStore

SKILLS = {  # benchmark, label, chance, accuracy
    "compare": ("demo-multi", "Compare two images", 0.5, 0.992),
    "coref": ("demo-multi", "What is in image i of several", 0.25, 0.974),
    "temporal": ("demo-multi", "What happens over the frames", 0.25, 0.946),
    "reason": ("demo-multi", "Count over several images", 0.2, 0.888),
    "single": ("demo-single", "What is in a single image", 0.25, 1.0),
}
STEPS = 2500
TEXT, COUNT = pa.string(), pa.int32()
INDEX = pa.schema(
    {
        "subset": TEXT,
        "row": pa.int64(),
        "id": TEXT,
        "turns": COUNT,
        "tokens": COUNT,
        "targets": COUNT,
        "images": COUNT,
        "patches": COUNT,
    }
)
LEDGER = pa.schema(
    {
        "subset": TEXT,
        "row": pa.int64(),
        "id": TEXT,
        "action": TEXT,
        "reason": TEXT,
        "value": TEXT,
        "threshold": TEXT,
    }
)


@dataclass(kw_only=True)
class Stored:
    """The run and what was written for it; `put` overwrites or, with None, deletes a file of an evaluation."""

    run: Run
    evaluations: list[Manifest] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, Manifest] = field(default_factory=dict)

    def key(self, name: str, file: str) -> str:
        return f"{self.artifacts[name].key}/{file}"

    def put(self, name: str, file: str, content: object) -> None:
        self.run.store.put(self.key(name, file), json.dumps(content).encode())


def commit(
    run: Run, kind: Kind, address: str, step: str, summary: dict[str, Number], inputs: dict[str, Manifest]
) -> Manifest:
    made = fingerprint([run.id, step])
    prefix = address.format(made)
    made_by = MadeBy(
        run=run.id,
        step=step,
        revision=1,
        config_hash=fingerprint(step),
        code_version="2761204d1f3a",
        image_digest="sha256:9c1f0e5b7a",
    )
    manifest = Manifest(
        kind=kind,
        key=prefix,
        fingerprint=made,
        inputs={name: given.reference() for name, given in inputs.items()},
        made_by=made_by,
        files=describe_files(run.store, prefix),
        summary=summary,
    )
    commit_manifest(run.store, manifest)
    return manifest


def picture(colour: str, place: tuple[int, int]) -> str:
    image = Image.new("RGB", (96, 96), (236, 232, 226))
    x, y = place
    ImageDraw.Draw(image).ellipse((x - 15, y - 15, x + 15, y + 15), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def put_ledger(store: LocalStore, prefix: str, rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER), buffer)
    store.put(f"{prefix}/ledger.parquet", buffer.getvalue())


def ledger_row(subset: str, row: int, action: str, reason: str, value: str, threshold: str = "") -> dict[str, Any]:
    name = f"{subset}-{row:05d}"
    return {
        "subset": subset,
        "row": row,
        "id": name,
        "action": action,
        "reason": reason,
        "value": value,
        "threshold": threshold,
    }


def dataset(run: Run, subset: str, rows: int, ledger: list[dict[str, Any]]) -> Manifest:
    address = f"datasets/{subset}/{{}}"
    put_ledger(run.store, address.format(fingerprint([run.id, f"prepare-{subset}"])), ledger)
    dropped = sum(row["action"] == "dropped" for row in ledger)
    summary: dict[str, Number] = {
        "rows": rows,
        "kept": rows - dropped,
        "dropped": dropped,
        "repaired": len(ledger) - dropped,
        "images": rows * 3,
        "image_bytes": rows * 3600,
    }
    return commit(run, Kind.DATASET, address, f"prepare-{subset}", summary, {})


def mixture(run: Run, datasets: dict[str, Manifest]) -> Manifest:
    prefix = f"mixtures/{fingerprint([run.id, 'assemble'])}"
    columns: dict[str, list[Any]] = {name: [] for name in INDEX.names}
    for subset, manifest in datasets.items():
        for row in range(int(manifest.summary["kept"]) - 1):
            values = (subset, row, f"{subset}-{row:05d}", 4, 67, 11, 3 if subset == "demo-multi" else 1, 12)
            for name, value in zip(INDEX.names, values, strict=True):
                columns[name].append(value)
    table = pa.table(columns, schema=INDEX)
    write_table(run.store, f"{prefix}/index.lance", INDEX, table.to_batches())
    put_ledger(
        run.store, prefix, [ledger_row(subset, 7, "dropped", "too-long", "2214", "2048") for subset in sorted(datasets)]
    )
    licence = {"name": "CC-BY-NC-4.0", "terms": "Research <only>.", "forbids": ["commercial"], "origin": "its README"}
    described = [{"name": "demo-multi", "skill": "coref", "licence": licence}]
    described.append({"name": "demo-single", "skill": "", "licence": None})
    run.store.put(f"{prefix}/subsets.json", json.dumps(described).encode())
    return commit(run, Kind.MIXTURE, "mixtures/{}", "assemble", {"samples": len(table)}, datasets)


def contamination(run: Run, data: Manifest) -> Manifest:
    prefix = f"contamination/{fingerprint([run.id, 'contamination'])}"
    where = {"subset": "demo-multi", "row": 17, "id": "demo-multi-00017", "path": "images/17.jpg"}
    hits = [
        {"benchmark": "demo-multi", "image": "images/a.jpg", "match": "exact", "distance": 0, **where},
        {"benchmark": "demo-multi", "image": "images/b.jpg", "match": "similar", "distance": 11, **where},
    ]
    counts = {"images": 7000, "hashed": 90, "unreadable": 0, "exact": 1, "similar": 1, "samples": 1}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(hits), buffer)
    run.store.put(f"{prefix}/hits.parquet", buffer.getvalue())
    run.store.put(f"{prefix}/benchmarks.json", json.dumps([{"benchmark": "demo-multi", **counts}]).encode())
    return commit(run, Kind.CONTAMINATION, "contamination/{}", "contamination", {}, {"mixture": data})


def checkpoint(run: Run, data: Manifest) -> Manifest:
    random_ = random.Random(0)
    rows = []
    for step in [1, *range(10, STEPS + 1, 10)]:
        fallen = 5.9 * math.exp(-step / 70) + 1.1 / (1 + math.exp((step - 620) / 90))
        fallen += 0.45 / (1 + math.exp((step - 1350) / 120)) + 0.042
        rate = 1.2e-3 * min(1, step / 60) * (1 if step < 1500 else (STEPS - step) / (STEPS - 1500))
        norm = 0.35 + 2.6 * math.exp(-step / 90) + 0.5 * random_.random()
        speed = 168 * random_.uniform(0.93, 1.04) * (0.6 if step in (250, 1750) else 1)
        rows.append(
            {
                "step": step,
                "loss": fallen * random_.uniform(0.92, 1.08),
                "learning_rate": rate,
                "gradient_norm": norm,
                "samples": 160,
                "tokens": 10_700,
                "seconds": 160 / speed,
                "samples_per_second": speed,
                "slowest_rank": len(rows) % 3 % 2,
                "slowdown": 1.08,
            }
        )
    prefix = f"checkpoints/{fingerprint([run.id, 'train'])}"
    run.store.put(f"{prefix}/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    spent = {"start": 14.2, "resume": 0.0, "data": 3.1, "step": 236.4, "save": 2.2, "rework": 0.0, "finish": 4.9}
    summary: dict[str, Number] = {
        "steps": STEPS,
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "samples": 40_000,
        "tokens": 2_680_000,
        "samples_per_second": 164.3,
        "tokens_per_second": 11_010.0,
        "goodput": 0.905,
        "parameters": 1_043_584,
        **{f"seconds_{cause}": seconds for cause, seconds in spent.items()},
        "seconds_other": 0.4,
    }
    return commit(run, Kind.CHECKPOINT, "checkpoints/{}", "train", summary, {"mixture": data})


def score_row(skill: str, accuracy: float) -> dict[str, Any]:
    benchmark, label, chance, _ = SKILLS[skill]
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1e-9) / 500)
    number = list(SKILLS).index(skill)
    return {
        "benchmark": benchmark,
        "skill": skill,
        "label": label,
        "samples": 500,
        "accuracy": accuracy,
        "low": max(0.0, accuracy - half),
        "high": min(1.0, accuracy + half),
        "strict": accuracy,
        "chance": chance,
        "unparsed": number % 2,
        "blind": chance - 0.004 * number,
        "blind_p": 0.52 + 0.04 * number,
        "shuffled": chance + 0.012 * (number - 2),
        "shuffled_p": 0.61 - 0.13 * number,
    }


def gallery_rows(skill: str) -> list[dict[str, Any]]:
    benchmark, label, _, accuracy = SKILLS[skill]
    asked = {
        "compare": (2, "Are the colours in image 1 and image 2 the same or different?", ["same", "different"]),
        "coref": (4, "What colour is the shape in image 3?", ["red", "green", "blue", "yellow"]),
        "temporal": (4, "In which direction does the shape move?", ["left", "right", "up", "down"]),
        "reason": (4, "How many images show a green shape?", ["0", "1", "2", "3", "4"]),
        "single": (1, "Where is the shape?", ["top left", "top right", "bottom left", "bottom right"]),
    }
    images, question, options = asked[skill]
    colours = ["#c0392b", "#2e8b57", "#2a5db0", "#d8a520"]
    shown = [picture(colours[each % 4], (26 + each * 14, 30 + 20 * (each % 2))) for each in range(images)]
    kinds = [True, True] if accuracy == 1 else [True, True, False, False]
    return [
        {
            "benchmark": benchmark,
            "skill": skill,
            "label": label,
            "id": f"{skill}-{number:04d}",
            "question": "<image>" * images + question,
            "options": options,
            "answer": options[0],
            "response": options[0] if correct else options[1],
            "correct": correct,
            "images": shown,
        }
        for number, correct in enumerate(kinds)
    ]


def evaluation(run: Run, model: Manifest, benchmark: str, rows: list[dict[str, Any]]) -> Manifest:
    address = f"evaluations/{model.fingerprint}/{benchmark}/{{}}"
    prefix = address.format(fingerprint([run.id, f"evaluate-{benchmark}"]))
    gallery = [row for skill in SKILLS if SKILLS[skill][0] == benchmark for row in gallery_rows(skill)]
    run.store.put(f"{prefix}/scores.json", json.dumps(rows).encode())
    run.store.put(f"{prefix}/gallery.json", json.dumps(gallery).encode())
    return commit(run, Kind.EVALUATION, address, f"evaluate-{benchmark}", {}, {"model": model})


def put_records(run: Run, artifacts: dict[str, Manifest]) -> None:
    """Records of the steps: preparing the first subset was reused, two steps ran at the same time."""
    began = datetime(2026, 3, 4, 9, 0, 0, tzinfo=UTC)
    times = [
        ("preflight", 0, 1.4, State.DONE),
        ("prepare-demo-multi", 6, 6.1, State.REUSED),
        ("prepare-demo-single", 6, 15, State.DONE),
        ("assemble", 21, 31, State.DONE),
        ("contamination", 31, 33, State.DONE),
        ("train", 36, 297.2, State.DONE),
        ("convert", 303, 312, State.DONE),
        ("evaluate-demo-multi", 318, 402, State.DONE),
        ("evaluate-demo-single", 408, 430, State.DONE),
        ("report", 436, 0, State.STARTED),
    ]
    for step, start, end, state in times:
        reused = state is State.REUSED
        record = StepRecord(
            step=step,
            state=state,
            started=(began + timedelta(seconds=start)).isoformat(timespec="milliseconds"),
            ended=(began + timedelta(seconds=end)).isoformat(timespec="milliseconds") if end else None,
            seconds=21.3 if reused else round(max(0, end - start), 3),
            attempts=0 if reused else 2 if step == "train" else 1,
            key=artifacts[step].key if step in artifacts else "",
            summary=artifacts[step].summary if step in artifacts else {},
        )
        run.store.put(run.key(f"steps/{step}.json"), record.model_dump_json().encode())


@pytest.fixture
def make_stored(local_store: LocalStore, demo_recipe: Recipe) -> Callable[..., Stored]:
    def make(run: Run | None = None, **accuracies: float) -> Stored:
        run = run or Run(id="demo-3f9a1c07", store=local_store, recipe=demo_recipe)
        stored = Stored(run=run)
        damaged = [
            ledger_row("demo-multi", row, "dropped", "image-missing", f"images/{row:05d}-2.jpg") for row in (3, 9)
        ]
        damaged.append(ledger_row("demo-multi", 11, "repaired", "marks-missing", "1", "3"))
        datasets = {
            "demo-multi": dataset(run, "demo-multi", 1600, damaged),
            "demo-single": dataset(run, "demo-single", 400, []),
        }
        data = mixture(run, datasets)
        trained = checkpoint(run, data)
        model = commit(run, Kind.MODEL, "models/{}", "convert", {}, {"checkpoint": trained})
        stored.artifacts = {**datasets, "mixture": data, "checkpoint": trained, "model": model}
        stored.scores = [score_row(skill, accuracies.get(skill, SKILLS[skill][3])) for skill in SKILLS]
        for benchmark in ("demo-multi", "demo-single"):
            rows = [row for row in stored.scores if row["benchmark"] == benchmark]
            stored.artifacts[f"evaluate-{benchmark}"] = evaluation(run, model, benchmark, rows)
            stored.evaluations.append(stored.artifacts[f"evaluate-{benchmark}"])
        made = [*stored.artifacts.values(), contamination(run, data)]
        put_records(run, {manifest.made_by.step: manifest for manifest in made})
        return stored

    return make


@pytest.fixture
def stored(make_stored: Callable[..., Stored]) -> Stored:
    return make_stored()


@pytest.fixture
def fifteen(make_stored: Callable[..., Stored]) -> Stored:
    """The run evaluated on fifteen benchmarks of ten skills each, held to Mantis-CLIP, with galleries of real JPEGs."""
    stored = make_stored()
    settings = stored.run.recipe.evaluation.model_copy(update={"reference": "Mantis-CLIP"})
    stored.run = Run(
        id=stored.run.id,
        store=stored.run.store,
        recipe=stored.run.recipe.model_copy(update={"evaluation": settings}),
    )
    noise = Image.effect_noise((160, 120), 60).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", quality=80)
    image = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    stored.evaluations = [
        published_benchmark(stored.run, stored.artifacts["model"], f"bench-{number:02d}", number, image)
        for number in range(15)
    ]
    return stored


def published_benchmark(run: Run, model: Manifest, name: str, number: int, image: str) -> Manifest:
    title = f"Benchmark {number + 1}"
    base = score_row("coref", 0.45 + 0.02 * number) | {"benchmark": name, "official": 0.5, "metric": "mantis"}
    skills = [base | {"skill": f"task-{task}", "label": f"Task {task + 1} of it"} for task in range(10)]
    models = {"GPT-4V": 62.7, "Mantis-CLIP": 55.8, "Idefics2": 48.9, "VILA-8B": 51.2, "Kosmos2": 30.4, "Random": 23.0}
    paper = [
        {"model": each, "accuracy": accuracy, "source": "Mantis, arXiv 2405.01483v2", "comparable": number != 3}
        for each, accuracy in models.items()
        if each != "VILA-8B" or number < 5
    ]
    overall = base | {"skill": "overall", "label": title, "aggregation": "macro", "missing": number, "paper": paper}
    gallery = [
        gallery_rows("coref")[0]
        | {"benchmark": name, "skill": row["skill"], "label": row["label"], "id": f"{row['skill']}-{kind}"}
        | {"correct": kind < 2, "parsed": kind < 4, "images": [image] * (1 + 7 * (number == 7))}
        for row in skills
        for kind in range(6)
    ]
    address = f"evaluations/{model.fingerprint}/{name}/{{}}"
    prefix = address.format(fingerprint([run.id, f"evaluate-{name}"]))
    run.store.put(f"{prefix}/scores.json", json.dumps([overall, *skills]).encode())
    run.store.put(f"{prefix}/gallery.json", json.dumps(gallery).encode())
    summary: dict[str, Number] = {"answers_generated": 3000, "answer_seconds": 61.5}
    return commit(run, Kind.EVALUATION, address, f"evaluate-{name}", summary, {"model": model})
