import base64
import io
import json

import pytest
from PIL import Image

from components.evaluation.benchmarks import benchmark_catalog
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.step import evaluate, resolve_benchmarks
from mantis.errors import ConfigError, IntegrityError
from mantis.runs.step_runner import Run


def lines(store, prefix, name):
    return [json.loads(line) for line in store.get(f"{prefix}/responses/{name}").decode().splitlines()]


def changed(run, **evaluation):
    settings = run.recipe.evaluation.model_copy(update=evaluation)
    return Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={"evaluation": settings}))


def test_what_is_written(run, model) -> None:
    manifest = evaluate(run, "demo-multi", model)
    prefix = manifest.key
    assert manifest.key.startswith("evaluations/abc/demo-multi/")
    assert manifest.inputs["model"].fingerprint == "abc"
    actual = lines(run.store, prefix, "actual-00000.jsonl")
    assert [line["id"] for line in actual] == [f"q{number}" for number in range(60)]
    assert {"id", "skill", "question", "images", "response", "answer", "correct", "strict"} <= set(actual[0])
    assert len(lines(run.store, prefix, "blind-00000.jsonl")) == 59
    rows = json.loads(run.store.get(f"{prefix}/scores.json"))["scores"]
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
    gallery = json.loads(gallery_of(run, manifest))["answers"]
    kinds = [(item["skill"], item["correct"]) for item in gallery]
    assert 4 <= len(kinds) <= 16
    assert all(kinds.count(kind) <= 2 for kind in kinds)
    pictures = [uri for item in gallery for uri in item["images"]]
    for uri in pictures:
        header, data = uri.split(",")
        assert header == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 48)


def journal_of(run):
    """Every raw response as it lies in the store, by object."""
    folder = run.store.root / "responses"
    return {path: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.rglob("*.jsonl")}


def test_a_rerun_makes_only_what_is_missing(run, model) -> None:
    prefix = evaluate(run, "demo-multi", model).key
    folder = run.store.root / prefix
    before = {path.name: path.read_bytes() for path in folder.rglob("*.json*")}
    kept = journal_of(run)
    assert len(kept) > 5
    lost = next(iter(kept))
    (folder / "manifest.json").unlink()
    lost.unlink()
    again = evaluate(run, "demo-multi", model)
    assert again.summary["answers_generated"] == len(kept[lost])
    after = {path.name: path.read_bytes() for path in folder.rglob("*.json*")}
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    keys = [line["key"] for lines in journal_of(run).values() for line in lines]
    assert len(keys) == len(set(keys)) == 60 + 59 + len(lines(run.store, prefix, "shuffled-00000.jsonl"))


def test_responses_are_reused_only_where_nothing_that_decides_them_changed(
    run, model, source, tmp_path, monkeypatch
) -> None:
    profiles = tmp_path / "decoding.yaml"
    profiles.write_text("greedy-short: {max_new_tokens: 8}\nshorter: {max_new_tokens: 7}\n")
    monkeypatch.setattr(benchmark_catalog, "DECODING", profiles)

    def generated(changed_run, changed_model=model):
        return evaluate(changed_run, "demo-multi", changed_model).summary["answers_generated"]

    plain = changed(run, controls=())
    assert generated(plain) == 60
    assert generated(changed(plain, scoring="strict")) == 0
    assert generated(changed(plain, controls=("blind",))) == 59
    assert generated(changed(plain, decoding="shorter")) == 60
    assert generated(changed(plain, layout="merge")) == 45  # a sample of one picture, or of none, is asked the same
    assert generated(plain, model.model_copy(update={"fingerprint": "another"})) == 60
    prompt = run.recipe.model.model_copy(update={"prompt": "llama3"})
    recipe = plain.recipe.model_copy(update={"model": prompt})
    assert generated(Run(id=run.id, store=run.store, recipe=recipe)) == 60
    file = source / "demo-multi" / "test.json"
    rows = json.loads(file.read_text())
    rows[3]["question"] = rows[3]["question"].replace("What", "Which")
    file.write_text(json.dumps(rows))
    assert generated(plain) == 1
    picture = source / "demo-multi" / rows[5]["images"][0]
    Image.new("RGB", (48, 48), "red").save(picture)
    assert generated(plain) == 1


def test_processes_share_the_work_and_give_the_same(run, model) -> None:
    alone = evaluate(run, "demo-multi", model)
    first = {path.name: path.read_bytes() for path in (run.store.root / alone.key).rglob("*.jsonl")}
    for path in [*journal_of(run), run.store.root / alone.key / "manifest.json"]:
        path.unlink()
    together = evaluate(changed(run, processes=3), "demo-multi", model)
    folder = run.store.root / together.key
    assert together.key == alone.key
    assert {path.name: path.read_bytes() for path in folder.rglob("*.jsonl")} == first
    keys = [line["key"] for lines in journal_of(run).values() for line in lines]
    assert len(keys) == len(set(keys))


def test_a_committed_result_is_reused(run, model) -> None:
    first = evaluate(run, "demo-multi", model)
    again = evaluate(changed(run, batch_tokens=64), "demo-multi", model)  # how, not what
    assert again == first


def test_what_decides_the_result_changes_its_address(run, model, source) -> None:
    uris = {evaluate(run, "demo-multi", model).key}
    uris.add(evaluate(changed(run, scoring="strict"), "demo-multi", model).key)
    uris.add(evaluate(changed(run, controls=()), "demo-multi", model).key)
    file = source / "demo-multi" / "test.json"
    file.write_text(file.read_text().replace("What colour", "Which colour"))
    uris.add(evaluate(run, "demo-multi", model).key)
    assert len(uris) == 4


def test_without_controls_they_are_not_scored(run, model) -> None:
    manifest = evaluate(changed(run, controls=()), "demo-multi", model)
    rows = json.loads(run.store.get(f"{manifest.key}/scores.json"))["scores"]
    assert all(row["blind"] is row["shuffled_p"] is None for row in rows)
    assert not any("blind" in name for name in manifest.summary)


def test_a_damaged_response_is_not_taken_for_one(run, model) -> None:
    manifest = evaluate(run, "demo-multi", model)
    (run.store.root / manifest.key / "manifest.json").unlink()
    damaged = next(iter(journal_of(run)))
    damaged.write_text("\n".join(damaged.read_text().splitlines()[:1]))
    with pytest.raises(IntegrityError, match=damaged.name):
        evaluate(run, "demo-multi", model)


@pytest.mark.parametrize("benchmark", ["demo-multi", "demo-single"])
def test_generated_benchmarks(run, model, benchmark) -> None:
    generated = changed(run, source="generated", samples_per_skill=8)
    manifest = evaluate(generated, benchmark, model)
    rows = json.loads(run.store.get(f"{manifest.key}/scores.json"))["scores"]
    assert {row["skill"] for row in rows} == set(load_benchmark(benchmark).skills)
    for row in rows:
        assert row["samples"] == 8
        options = {
            len(item["options"])
            for item in json.loads(gallery_of(run, manifest))["answers"]
            if item["skill"] == row["skill"]
        }
        assert options == {round(1 / row["chance"])}
    assert evaluate(generated, benchmark, model) == manifest
    assert evaluate(changed(generated, samples_per_skill=9), benchmark, model).key != manifest.key


def gallery_of(run, manifest):
    return run.store.get(f"{manifest.key}/gallery.json")


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
