import base64
import io
import json

import pytest
from PIL import Image

from components.core.errors import ConfigError, IntegrityError
from components.core.steps import Run
from components.core.store import key_of
from components.evaluation import responses
from components.evaluation.benchmarks import load_benchmark
from components.evaluation.step import evaluate, resolve_benchmarks


def lines(store, prefix, name):
    return [json.loads(line) for line in store.get(f"{prefix}/responses/{name}").decode().splitlines()]


def changed(run, **evaluation):
    settings = run.recipe.evaluation.model_copy(update=evaluation)
    return Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={"evaluation": settings}))


def test_what_is_written(run, model) -> None:
    manifest = evaluate(run, "demo-multi", model)
    prefix = key_of(run.store, manifest.uri)
    assert manifest.uri.startswith(run.store.uri("evaluations/abc/demo-multi/"))
    assert manifest.inputs["model"].fingerprint == "abc"
    actual = lines(run.store, prefix, "actual-00000.jsonl")
    assert [line["id"] for line in actual] == [f"q{number}" for number in range(60)]
    assert {"id", "skill", "question", "images", "response", "answer", "correct", "strict"} <= set(actual[0])
    assert len(lines(run.store, prefix, "blind-00000.jsonl")) == 59
    rows = json.loads(run.store.get(f"{prefix}/scores.json"))
    assert [row["skill"] for row in rows] == ["compare", "coref", "temporal", "reason"]
    assert sum(row["samples"] for row in rows) == 60
    for row in rows:
        own = [line for line in actual if line["skill"] == row["skill"]]
        assert row["accuracy"] == sum(line["correct"] for line in own) / len(own)
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert 0 <= row["blind_p"] <= 1
        assert manifest.summary[f"{row['skill']}/accuracy_low"] == row["low"]
    shuffled = lines(run.store, prefix, "shuffled-00000.jsonl")
    assert {line["response"] for line in shuffled} <= {"red", "blue", "green", "dark grey"}
    shown = {line["id"]: line["images"] for line in actual}
    assert all(line["images"] != shown[line["id"]] for line in shuffled)


def test_gallery_has_small_pictures_inside(run, model) -> None:
    manifest = evaluate(run, "demo-multi", model)
    gallery = json.loads(gallery_of(run, manifest))
    kinds = [(item["skill"], item["correct"]) for item in gallery]
    assert 4 <= len(kinds) <= 16
    assert all(kinds.count(kind) <= 2 for kind in kinds)
    pictures = [uri for item in gallery for uri in item["images"]]
    for uri in pictures:
        header, data = uri.split(",")
        assert header == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 48)


def test_a_rerun_makes_only_what_is_missing(run, model, monkeypatch) -> None:
    monkeypatch.setattr(responses, "PART", 25)
    prefix = key_of(run.store, evaluate(run, "demo-multi", model).uri)
    folder = run.store.root / prefix
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.json*")}
    assert sum(name.endswith(".jsonl") for name in before) == 9
    (folder / "manifest.json").unlink()
    (folder / "responses" / "shuffled-00002.jsonl").unlink()
    evaluate(run, "demo-multi", model)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.json*")}
    answers = [name for name in before if name.endswith(".jsonl")]
    assert [name for name in answers if before[name][0] != after[name][0]] == ["shuffled-00002.jsonl"]
    assert all(before[name][1] == after[name][1] for name in answers)
    assert before["scores.json"][1] == after["scores.json"][1]


def test_a_committed_result_is_reused(run, model) -> None:
    first = evaluate(run, "demo-multi", model)
    again = evaluate(changed(run, batch_tokens=64), "demo-multi", model)  # how, not what
    assert again == first


def test_what_decides_the_result_changes_its_address(run, model, source) -> None:
    uris = {evaluate(run, "demo-multi", model).uri}
    uris.add(evaluate(changed(run, scoring="strict"), "demo-multi", model).uri)
    uris.add(evaluate(changed(run, controls=()), "demo-multi", model).uri)
    file = source / "demo-multi" / "test.json"
    file.write_text(file.read_text().replace("What colour", "Which colour"))
    uris.add(evaluate(run, "demo-multi", model).uri)
    assert len(uris) == 4


def test_without_controls_they_are_not_scored(run, model) -> None:
    manifest = evaluate(changed(run, controls=()), "demo-multi", model)
    rows = json.loads(run.store.get(f"{key_of(run.store, manifest.uri)}/scores.json"))
    assert all(row["blind"] is row["shuffled_p"] is None for row in rows)
    assert not any("blind" in name for name in manifest.summary)


def test_a_damaged_part_is_not_taken_for_a_result(run, model) -> None:
    manifest = evaluate(run, "demo-multi", model)
    folder = run.store.root / key_of(run.store, manifest.uri)
    (folder / "manifest.json").unlink()
    part = folder / "responses" / "actual-00000.jsonl"
    part.write_text("\n".join(part.read_text().splitlines()[:10]))
    with pytest.raises(IntegrityError, match="actual-00000"):
        evaluate(run, "demo-multi", model)


@pytest.mark.parametrize("benchmark", ["demo-multi", "demo-single"])
def test_generated_benchmarks(run, model, benchmark) -> None:
    generated = changed(run, source="generated", samples_per_skill=8)
    manifest = evaluate(generated, benchmark, model)
    rows = json.loads(run.store.get(f"{key_of(run.store, manifest.uri)}/scores.json"))
    assert {row["skill"] for row in rows} == set(load_benchmark(benchmark).skills)
    for row in rows:
        assert row["samples"] == 8
        options = {
            len(item["options"]) for item in json.loads(gallery_of(run, manifest)) if item["skill"] == row["skill"]
        }
        assert options == {round(1 / row["chance"])}
    assert evaluate(generated, benchmark, model) == manifest
    assert evaluate(changed(generated, samples_per_skill=9), benchmark, model).uri != manifest.uri


def gallery_of(run, manifest):
    return run.store.get(f"{key_of(run.store, manifest.uri)}/gallery.json")


def test_resolve(run) -> None:
    assert resolve_benchmarks(run) == ["demo-multi"]
    with pytest.raises(ConfigError, match=r"evaluation.benchmarks.*demo-multi, demo-single"):
        resolve_benchmarks(changed(run, benchmarks=()))
    with pytest.raises(ConfigError, match=r"no-such.*demo-multi"):
        resolve_benchmarks(changed(run, benchmarks=("no-such",)))
    with pytest.raises(ConfigError, match="decoding"):
        resolve_benchmarks(changed(run, decoding="beam"))


def test_the_step_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, components.evaluation.step; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
