"""A byte changed anywhere between a prediction and its source row is found, and the object is named."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from components.data.step import assemble, prepare, resolve_subsets
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest
from mantis.hashing import sha256_bytes
from mantis.runs.step_runner import Run, StepSpec, run_step
from mantis.synthetic import write_demo_data
from pipelines.cli.main import app
from pipelines.execution.preflight import preflight


def made(
    run: Run, step: str, kind: ArtifactKind, inputs: dict[str, Manifest], files: dict[str, bytes], **parts: str
) -> Manifest:
    """An artifact of a step that writes `files`: what lineage sees of training, conversion and evaluation."""
    task = StepSpec(step=step, kind=kind, revision=1, config={}, inputs=inputs, parts=parts)

    def work(prefix: str) -> Any:
        for name, data in files.items():
            run.store.put(f"{prefix}/{name}", data)
        return {}

    return run_step(run, task, work)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A run in `folder`, a prediction of it, and an image that the model was shown."""

    run: Run
    folder: Path
    prediction: str
    image: str


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Raw data, datasets and mixture as the steps make them; behind them a checkpoint, a model and a prediction."""
    folder = tmp_path_factory.mktemp("chain")
    raw = folder / "raw"
    write_demo_data(raw, seed=0, conversations=24, samples_per_skill=1, workers=1)
    benchmarks = (raw / "benchmarks").rename(folder / "benchmarks")
    overrides = {"data.source": str(raw), "data.workers": 1, "evaluation.source": str(benchmarks)}
    run = preflight("demo", overrides, "", (folder / "store").as_uri())
    mixture = assemble(run, [prepare(run, subset) for subset in resolve_subsets(run)])
    checkpoint = made(
        run,
        "train",
        ArtifactKind.CHECKPOINT,
        {"mixture": mixture},
        {"step-00000001/rank-0.pt": b"shard" * 99},
    )
    weights = {"model.safetensors": bytes(range(256)), "tokenizer.json": b"{}"}
    model = made(run, "convert", ArtifactKind.MODEL, {"checkpoint": checkpoint}, weights)
    sample = json.loads((benchmarks / "demo-multi" / "test.json").read_text())[0]
    shown = [
        {"path": path, "sha256": sha256_bytes((benchmarks / "demo-multi" / path).read_bytes())}
        for path in sample["images"]
    ]
    response = {"id": sample["id"], "question": sample["question"], "images": shown, "response": "red", "answer": "red"}
    evaluation = made(
        run,
        "evaluate-demo-multi",
        ArtifactKind.EVALUATION,
        {"model": model},
        {"responses/actual-0000.jsonl": json.dumps(response).encode() + b"\n", "scores.json": b"[]"},
        model=model.fingerprint,
        benchmark="demo-multi",
    )
    return Chain(run=run, folder=folder, prediction=f"{evaluation.key}#{sample['id']}", image=shown[0]["path"])


def walked(chain: Chain, *more: Any) -> Result:
    run, prediction = chain.run, chain.prediction
    return CliRunner().invoke(app, ["lineage", prediction, "--store", run.store.url, *more], env={"COLUMNS": "80"})


def test_an_untouched_chain_is_whole(chain: Chain) -> None:
    done = walked(chain)
    assert done.exit_code == 0, done.output
    assert "Every recorded byte is unchanged" in done.output
    for word in ("prediction", "evaluation", "model", "checkpoint", "mixture", "demo-multi", "demo-single"):
        assert word in done.output


OBJECTS = {
    "dataset table": "store/datasets/demo-multi/*/data.lance/data/*.lance",
    "dataset ledger": "store/datasets/demo-single/*/ledger.parquet",
    "mixture index": "store/mixtures/*/index.lance/data/*.lance",
    "tokenizer": "store/mixtures/*/tokenizer/tokenizer.json",
    "checkpoint": "store/checkpoints/*/step-00000001/rank-0.pt",
    "model": "store/models/*/model.safetensors",
    "response": "store/evaluations/*/demo-multi/*/responses/actual-0000.jsonl",
    "source image": "raw/demo-multi/images/000/000003-1.jpg",
    "another source image": "raw/demo-single/images/000/000001-1.jpg",
}


@pytest.mark.parametrize("pattern", OBJECTS.values(), ids=OBJECTS)
def test_a_flipped_byte_is_found_and_its_object_named(chain: Chain, pattern: str) -> None:
    folder = chain.folder
    path = sorted(folder.glob(pattern))[0]
    flipped(path, lambda: named(chain, path.relative_to(folder).as_posix().split("/", 1)[1]))


def test_a_flipped_byte_in_what_the_model_was_shown(chain: Chain) -> None:
    folder, image = chain.folder, chain.image
    flipped(folder / "benchmarks" / "demo-multi" / image, lambda: named(chain, f"demo-multi/{image}"))


def test_a_changed_word_in_the_source(chain: Chain) -> None:
    folder = chain.folder
    path = folder / "raw" / "demo-single" / "train.json"
    before = path.read_text()
    rows = json.loads(before)
    rows[3]["conversation"][0]["content"] += "?"
    path.write_text(json.dumps(rows))
    try:
        done = walked(chain)
        assert done.exit_code == 1
        assert "the text of its conversation has changed" in done.output
        assert "demo-single/train.json, row 3" in done.output
    finally:
        path.write_text(before)


def test_an_input_that_was_made_anew_is_named(chain: Chain) -> None:
    (path,) = chain.folder.glob("store/models/*/manifest.json")
    before = path.read_text()
    manifest = json.loads(before)
    try:
        path.write_text(json.dumps(manifest | {"fingerprint": "0" * 24}))
        done = walked(chain)
        assert done.exit_code == 1
        assert f"has the fingerprint {'0' * 24}, not {manifest['fingerprint']}" in done.output
        path.unlink()
        done = walked(chain)
        assert done.exit_code == 1
        assert f"{manifest['key']} is missing: it is an input of" in done.output
    finally:
        path.write_text(before)


def test_a_source_that_is_gone_is_said_and_is_no_change(chain: Chain) -> None:
    folder = chain.folder
    (folder / "raw").rename(folder / "away")
    try:
        done = walked(chain)
        assert done.exit_code == 0, done.output
        assert "its source cannot be compared" in done.output
        assert str(folder / "raw") in done.output  # whole, however narrow the terminal is
    finally:
        (folder / "away").rename(folder / "raw")


def named(chain: Chain, name: str) -> None:
    done = walked(chain)
    assert done.exit_code == 1, done.output
    said = [line for line in done.output.splitlines() if "changed" in line and name.rpartition("/")[2] in line]
    assert said, done.output


def flipped(path: Path, check: Callable[..., Any]) -> None:
    """Run `check` while one bit in the middle of the file is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        check()
    finally:
        path.write_bytes(before)
