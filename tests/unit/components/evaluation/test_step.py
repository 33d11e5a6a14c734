import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.evaluation.benchmarks import benchmark_catalog
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.profiles import profile_catalog
from components.evaluation.step import check_benchmarks, evaluate, resolve_benchmarks
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, IntegrityError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from tests.helpers.paths import root_of

BLIND = 4  # different questions of the blind control: one text about one to four grey images
SHORTER = """
shorter: {title: a token less, prompts: [direct], images: interleaved, max_new_tokens: 7, stop: [end-of-text]}
"""


def lines(store: ObjectStore, prefix: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.get(f"{prefix}/responses/{name}").decode().splitlines()]


def changed(run: Run, **evaluation: Any) -> Run:
    settings = run.recipe.evaluation.model_copy(update=evaluation)
    return Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={"evaluation": settings}))


def test_what_is_written(eval_run: Run, stored_model: Manifest) -> None:
    manifest = evaluate(eval_run, "demo-multi", stored_model)
    prefix = manifest.key
    assert manifest.key.startswith("evaluations/abc/demo-multi/")
    assert manifest.inputs["model"].fingerprint == "abc"
    actual = lines(eval_run.store, prefix, "actual-00000.jsonl")
    assert [line["id"] for line in actual] == [f"q{number}" for number in range(60)]
    assert {"id", "skill", "question", "images", "response", "answer", "correct", "strict"} <= set(actual[0])
    assert len(lines(eval_run.store, prefix, "blind-00000.jsonl")) == 59
    rows = json.loads(eval_run.store.get(f"{prefix}/scores.json"))["scores"]
    assert [row["skill"] for row in rows] == ["compare", "coref", "temporal", "reason"]
    assert sum(row["samples"] for row in rows) == 60
    for row in rows:
        own = [line for line in actual if line["skill"] == row["skill"]]
        assert row["accuracy"] == sum(line["correct"] for line in own) / len(own)
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert 0 <= row["blind_p"] <= 1
        assert manifest.summary[f"{row['skill']}/accuracy_low"] == row["low"]
    shuffled = lines(eval_run.store, prefix, "shuffled-00000.jsonl")
    assert {line["response"] for line in shuffled} <= {"red", "blue", "green", "dark grey"}
    shown = {line["id"]: line["images"] for line in actual}
    assert all(line["images"] != shown[line["id"]] for line in shuffled)


def test_gallery_has_small_pictures_inside(eval_run: Run, stored_model: Manifest) -> None:
    manifest = evaluate(eval_run, "demo-multi", stored_model)
    gallery = json.loads(gallery_of(eval_run, manifest))["answers"]
    kinds = [(item["skill"], item["correct"]) for item in gallery]
    assert 4 <= len(kinds) <= 16
    assert all(kinds.count(kind) <= 2 for kind in kinds)
    pictures = [uri for item in gallery for uri in item["images"]]
    for uri in pictures:
        header, data = uri.split(",")
        assert header == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 48)


def journal_of(run: Run) -> dict[Path, list[dict[str, Any]]]:
    """Every raw response as it lies in the store, by object."""
    folder = root_of(run.store) / "responses"
    return {path: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.rglob("*.jsonl")}


def test_a_rerun_makes_only_what_is_missing(eval_run: Run, stored_model: Manifest) -> None:
    prefix = evaluate(eval_run, "demo-multi", stored_model).key
    folder = root_of(eval_run.store) / prefix
    before = {path.name: path.read_bytes() for path in folder.rglob("*.json*")}
    kept = journal_of(eval_run)
    assert len(kept) > 5
    lost = next(iter(kept))
    (folder / "manifest.json").unlink()
    lost.unlink()
    again = evaluate(eval_run, "demo-multi", stored_model)
    assert again.summary["answers_generated"] == len(kept[lost])
    after = {path.name: path.read_bytes() for path in folder.rglob("*.json*")}
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    keys = [line["key"] for lines in journal_of(eval_run).values() for line in lines]
    shuffled = len(lines(eval_run.store, prefix, "shuffled-00000.jsonl"))
    assert len(keys) == len(set(keys)) == 60 + BLIND + shuffled


def test_responses_are_reused_only_where_nothing_that_decides_them_changed(
    eval_run: Run, stored_model: Manifest, eval_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(profile_catalog.PROFILES.read_text() + SHORTER)
    monkeypatch.setattr(profile_catalog, "PROFILES", file)

    def generated(changed_run: Any, changed_model: Any = stored_model) -> Any:
        return evaluate(changed_run, "demo-multi", changed_model).summary["answers_generated"]

    plain = changed(eval_run, controls=())
    assert generated(plain) == 60
    assert generated(changed(plain, scoring="strict")) == 0
    assert generated(changed(plain, controls=("blind",))) == BLIND
    assert generated(changed(plain, profile="shorter")) == 60
    assert generated(changed(plain, layout="merge")) == 45  # a sample of one picture, or of none, is asked the same
    assert generated(plain, stored_model.model_copy(update={"fingerprint": "another"})) == 60
    prompt = eval_run.recipe.model.model_copy(update={"prompt": "llama3"})
    recipe = plain.recipe.model_copy(update={"model": prompt})
    assert generated(Run(id=eval_run.id, store=eval_run.store, recipe=recipe)) == 60
    file = eval_source / "demo-multi" / "test.json"
    rows = json.loads(file.read_text())
    rows[3]["question"] = rows[3]["question"].replace("What", "Which")
    file.write_text(json.dumps(rows))
    assert generated(plain) == 1
    picture = eval_source / "demo-multi" / rows[5]["images"][0]
    Image.new("RGB", (48, 48), "red").save(picture)
    assert generated(plain) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("metric: mantis", "metric: mirb"),
        ("kind: short", "kind: short\naggregation: macro"),
        ("chance: 0.5", "chance: 0.4"),
        ("file: test.json", "file: test.json\nsplit: another"),
    ],
)
def test_a_change_of_scoring_scores_again_and_generates_nothing(
    eval_run: Run, stored_model: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    first = evaluate(eval_run, "demo-multi", stored_model)
    text = (benchmark_catalog.FOLDER / "demo-multi.yaml").read_text()
    assert before in text
    if "mirb" in after:  # which reads the subset
        after += "\nfields: {details: {subset: skill}}"
    (tmp_path / "demo-multi.yaml").write_text(text.replace(before, after))
    monkeypatch.setattr(benchmark_catalog, "FOLDER", tmp_path)
    again = evaluate(eval_run, "demo-multi", stored_model)
    assert again.key != first.key
    assert again.summary["answers_generated"] == 0


def test_a_raised_revision_of_the_step_generates_nothing(
    eval_run: Run, stored_model: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(eval_run, "demo-multi", stored_model)
    monkeypatch.setattr("components.evaluation.step.REVISION", 1000)
    again = evaluate(eval_run, "demo-multi", stored_model)
    assert again.key != first.key
    assert again.summary["answers_generated"] == 0
    for name in ("scores.json", "responses/blind-00000.jsonl"):
        assert eval_run.store.get(f"{again.key}/{name}") == eval_run.store.get(f"{first.key}/{name}")


def test_processes_share_the_work_and_give_the_same(eval_run: Run, stored_model: Manifest) -> None:
    alone = evaluate(eval_run, "demo-multi", stored_model)
    first = {path.name: path.read_bytes() for path in (root_of(eval_run.store) / alone.key).rglob("*.jsonl")}
    for path in [*journal_of(eval_run), root_of(eval_run.store) / alone.key / "manifest.json"]:
        path.unlink()
    together = evaluate(changed(eval_run, processes=3), "demo-multi", stored_model)
    folder = root_of(eval_run.store) / together.key
    assert together.key == alone.key
    assert {path.name: path.read_bytes() for path in folder.rglob("*.jsonl")} == first
    keys = [line["key"] for lines in journal_of(eval_run).values() for line in lines]
    assert len(keys) == len(set(keys))


def test_a_committed_result_is_reused(eval_run: Run, stored_model: Manifest) -> None:
    first = evaluate(eval_run, "demo-multi", stored_model)
    again = evaluate(changed(eval_run, batch_tokens=64), "demo-multi", stored_model)  # how, not what
    assert again == first


def test_what_decides_the_result_changes_its_address(eval_run: Run, stored_model: Manifest, eval_source: Path) -> None:
    uris = {evaluate(eval_run, "demo-multi", stored_model).key}
    uris.add(evaluate(changed(eval_run, scoring="strict"), "demo-multi", stored_model).key)
    uris.add(evaluate(changed(eval_run, controls=()), "demo-multi", stored_model).key)
    file = eval_source / "demo-multi" / "test.json"
    file.write_text(file.read_text().replace("What colour", "Which colour"))
    uris.add(evaluate(eval_run, "demo-multi", stored_model).key)
    assert len(uris) == 4


def test_without_controls_they_are_not_scored(eval_run: Run, stored_model: Manifest) -> None:
    manifest = evaluate(changed(eval_run, controls=()), "demo-multi", stored_model)
    rows = json.loads(eval_run.store.get(f"{manifest.key}/scores.json"))["scores"]
    assert all(row["blind"] is row["shuffled_p"] is None for row in rows)
    assert not any("blind" in name for name in manifest.summary)


def test_a_damaged_response_is_not_taken_for_one(eval_run: Run, stored_model: Manifest) -> None:
    manifest = evaluate(eval_run, "demo-multi", stored_model)
    (root_of(eval_run.store) / manifest.key / "manifest.json").unlink()
    damaged = next(iter(journal_of(eval_run)))
    damaged.write_text("\n".join(damaged.read_text().splitlines()[:1]))
    with pytest.raises(IntegrityError, match=damaged.name):
        evaluate(eval_run, "demo-multi", stored_model)


@pytest.mark.parametrize("benchmark", ["demo-multi", "demo-single"])
def test_generated_benchmarks(eval_run: Run, stored_model: Manifest, benchmark: str) -> None:
    generated = changed(eval_run, source="generated", samples_per_skill=8)
    manifest = evaluate(generated, benchmark, stored_model)
    rows = json.loads(eval_run.store.get(f"{manifest.key}/scores.json"))["scores"]
    assert {row["skill"] for row in rows} == set(load_benchmark(benchmark).skills)
    for row in rows:
        assert row["samples"] == 8
        options = {
            len(item["options"])
            for item in json.loads(gallery_of(eval_run, manifest))["answers"]
            if item["skill"] == row["skill"]
        }
        assert options == {round(1 / row["chance"])}
    assert evaluate(generated, benchmark, stored_model) == manifest
    assert evaluate(changed(generated, samples_per_skill=9), benchmark, stored_model).key != manifest.key


def gallery_of(run: Run, manifest: Manifest) -> bytes:
    return run.store.get(f"{manifest.key}/gallery.json")


def test_resolve(eval_run: Run) -> None:
    assert resolve_benchmarks(eval_run) == ["demo-multi"]
    with pytest.raises(ConfigError, match=r"evaluation.benchmarks.*demo-multi, demo-single"):
        resolve_benchmarks(changed(eval_run, benchmarks=()))
    with pytest.raises(ConfigError, match=r"no-such.*demo-multi"):
        resolve_benchmarks(changed(eval_run, benchmarks=("no-such",)))
    with pytest.raises(ConfigError, match=r"evaluation.profile = 'beam'.*direct, official, lmms-eval"):
        resolve_benchmarks(changed(eval_run, profile="beam"))


def test_preflight_names_the_profile_that_is_used_instead(eval_run: Run, caplog: pytest.LogCaptureFixture) -> None:
    check_benchmarks(eval_run)
    assert not caplog.records
    check_benchmarks(changed(eval_run, profile="lmms-eval"))
    assert caplog.messages == ["demo-multi has no profile lmms-eval: the profile direct is used"]
    official = changed(eval_run, profile="lmms-eval", source="elsewhere", benchmarks=("nlvr2", "blink"))
    caplog.clear()
    check_benchmarks(official)
    assert caplog.messages == ["nlvr2 has no profile lmms-eval: the profile official is used"]
