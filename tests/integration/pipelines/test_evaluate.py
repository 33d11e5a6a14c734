"""`mantis evaluate`, `mantis benchmark export` and `mantis rescore`, as a person types them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.evaluation.generation.chat_endpoint import KEY
from mantis.artifacts.manifest import Manifest, commit_manifest
from mantis.runs.lineage import find_artifact, walk
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from pipelines.cli.main import app
from pipelines.execution.preflight import keep_recipe
from tests.helpers.openai_server import openai_server
from tests.helpers.paths import ROOT

NEEDED = {
    "skill", "samples", "missing", "accuracy", "low", "high", "chance", "official", "strict"
}  # fmt: skip


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


@pytest.fixture
def mantis(local_store: LocalStore, eval_source: Path) -> Callable[..., Any]:
    """Run a command on the store of the test, with samples of coloured squares."""

    def call(*arguments: Any, source: bool = True) -> Any:
        words = [*map(str, arguments), "--store", local_store.url, *(["--source", str(eval_source)] if source else [])]
        return CliRunner().invoke(app, words)

    return call


def scored(done: Any) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page_of(store: LocalStore, run: str) -> str:
    return store.get(f"reports/{run}/report.md").decode()


def test_a_folder_of_an_unknown_family_is_evaluated(
    mantis: Callable[..., Any], chat_model_folder: Path, local_store: LocalStore
) -> None:
    given = ("evaluate", chat_model_folder, "--benchmark", "demo-multi", "--limit", 20)
    found = scored(mantis(*given, "--json"))
    assert (found["benchmark"], found["model"]) == ("demo-multi", str(chat_model_folder))
    assert [row["drawn_from"] for row in found["scores"]] == [16, 16, 16, 12]
    assert sum(row["samples"] for row in found["scores"]) == 20
    for row in found["scores"]:
        assert row.keys() >= NEEDED
        assert row["low"] <= row["accuracy"] <= row["high"]
    evaluation = find_artifact(local_store, next(entry.key for entry in local_store.list("evaluations")))
    assert evaluation.summary["answers_generated"] == 20
    kinds = {link.manifest.kind.value: link.manifest for link in walk(local_store, evaluation)}
    assert kinds["external-model"].summary["source"] == chat_model_folder.as_uri()
    assert "demo-multi: the scores are of a stratified sample" in page_of(local_store, found["run"])
    again = mantis(*given)
    assert again.exit_code == 0
    assert "5 of 16" in again.output
    assert "stratified sample" in again.output
    assert found["run"] in mantis("status", source=False).output


def test_a_benchmark_of_a_file_anywhere(
    mantis: Callable[..., Any], chat_model_folder: Path, eval_source: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine"
    shutil.copytree(eval_source / "demo-multi", own / "squares")
    rows = json.loads((own / "squares" / "test.json").read_text())
    (own / "squares" / "test.json").write_text(json.dumps([row | {"skill": "colour"} for row in rows[:8]]))
    (own / "squares.yaml").write_text(
        "title: Squares\nkind: short\nmetric: mantis\nskills: {colour: {label: Colours}}\n"
        "prompts: {direct: {templates: {short: '{question}'}}}\n"
    )
    for by_folder in (True, False):
        with openai_server() as server:
            named: list[Any] = [chat_model_folder] if by_folder else ["--endpoint", server.url, "--model", "m"]
            given = ("evaluate", *named, "--benchmark", own / "squares.yaml", "--json")
            found = scored(mantis(*given, source=False))
        assert found["benchmark"] == "squares"
        assert [(row["label"], row["samples"]) for row in found["scores"]] == [("Colours", 8)]
    exported = mantis("benchmark", "export", own / "squares.yaml", tmp_path / "out", source=False)
    assert exported.exit_code == 0, exported.output
    answers = [line | {"response": "red"} for line in lines_of(tmp_path / "out" / "requests.jsonl")]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    back = ("rescore", tmp_path / "answers.jsonl", "--benchmark", own / "squares.yaml", "--json", "-")
    assert scored(mantis(*back, source=False))["scores"][0]["samples"] == 8


def test_controls_choose_among_valid_answers(mantis: Callable[..., Any], chat_model_folder: Path) -> None:
    given = ("evaluate", chat_model_folder, "--benchmark", "demo-multi", "--limit", 8, "--json")
    rows = scored(mantis(*given, "--set", "evaluation.controls=[blind]"))["scores"]
    assert all(row["blind"] is not None and row["shuffled"] is None for row in rows)


def test_a_model_of_the_store_is_asked_as_in_its_run(
    mantis: Callable[..., Any], local_store: LocalStore, eval_run: Run, stored_model: Manifest
) -> None:
    from components.evaluation.step import evaluate

    commit_manifest(local_store, stored_model)
    keep_recipe(local_store, eval_run.id, eval_run.recipe)
    before = evaluate(eval_run, "demo-multi", stored_model)
    for address in ("models/abc", local_store.uri("models/abc"), local_store.root / "models" / "abc"):
        found = scored(mantis("evaluate", address, "--benchmark", "demo-multi", "--json"))
        key = next(entry.key for entry in local_store.list("evaluations") if before.key not in entry.key)
        assert find_artifact(local_store, key).summary["answers_generated"] == 0
        assert [row["accuracy"] for row in found["scores"]] == [
            row["accuracy"] for row in json.loads(local_store.get(f"{before.key}/scores.json"))["scores"]
        ]


def test_an_endpoint_is_evaluated_by_one_command(
    mantis: Callable[..., Any], local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.evaluation.generation.chat_endpoint.LONGEST_WAIT", 0.02)
    monkeypatch.setenv(KEY, "secret")
    with openai_server(failures=0.4, key="secret") as server:
        given = ("evaluate", "--endpoint", server.url, "--model", "org/some-model", "--benchmark", "demo-multi")
        flaky = scored(mantis(*given, "--json"))
        assert len(server.answered) == 60
        assert len(server.failed) == 5
        assert mantis(*given).exit_code == 0
        assert sum(server.answered.values()) == 60  # the second command asked nothing
    with openai_server() as server:
        calm = scored(mantis("evaluate", "--endpoint", server.url, *given[3:], "--json"))
    assert flaky["model"] == "org/some-model"
    assert flaky["scores"] == calm["scores"]
    assert 0 < sum(row["accuracy"] for row in calm["scores"]) < 4
    stored = b"".join(local_store.get(entry.key) for entry in local_store.list("") if entry.size < 1_000_000)
    assert b"secret" not in stored


def test_each_model_and_each_setting_has_a_run_of_its_own(mantis: Callable[..., Any], local_store: LocalStore) -> None:
    """A name may mean another model at another address, and no report may replace that of another model."""

    def run_of(url: str, *changes: str) -> str:
        given = ("evaluate", "--endpoint", url, "--model", "m", "--benchmark", "demo-multi", "--limit", 4, "--json")
        return str(scored(mantis(*given, *changes))["run"])

    with openai_server() as first, openai_server() as second:
        changed = [run_of(first.url, *each) for each in (("--request", "temperature=0.5"), ("--set", "seed=7"))]
        runs = [run_of(first.url), run_of(second.url), *changed]
        assert run_of(first.url) == runs[0]
    assert len(set(runs)) == 4
    for run in runs:
        assert "demo-multi" in page_of(local_store, run)


def test_refused_questions_are_missing(mantis: Callable[..., Any]) -> None:
    refused: list[str] = []

    def refuse(text: str) -> int:
        refused.append(text)
        return 400 if len(refused) % 6 == 0 else 0

    with openai_server(refuse=refuse) as server:
        given = ("evaluate", "--endpoint", server.url, "--model", "m", "--benchmark", "demo-multi", "--json")
        rows = scored(mantis(*given))["scores"]
    assert sum(row["missing"] for row in rows) == 10
    assert sum(row["samples"] for row in rows) == 50


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "A model is missing"),
        (("--endpoint", "http://127.0.0.1:1/v1"), "A model is missing"),
        (("models/abc", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m"), "two are named"),
        (("models/no-such",), "is no run, no registered model and no model in"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--request", "model=x"), "sets no field"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--set", "training.epochs=2"), "does not belong"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--set", "evaluation.controls=[blind]"),
         "cannot be held to valid answers"),
    ],
)  # fmt: skip
def test_wrong_options_are_explained(mantis: Callable[..., Any], arguments: tuple[str, ...], problem: str) -> None:
    done = mantis("evaluate", *arguments, "--benchmark", "demo-multi")
    assert done.exit_code == 1
    assert problem in done.output


def test_a_folder_without_a_model_is_explained(mantis: Callable[..., Any], tmp_path: Path) -> None:
    done = mantis("evaluate", tmp_path, "--benchmark", "demo-multi")
    assert done.exit_code == 1
    assert "holds no config.json" in done.output


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_exported_requests_come_back_as_scores(mantis: Callable[..., Any], tmp_path: Path) -> None:
    with openai_server() as server:
        given = ("evaluate", "--endpoint", server.url, "--model", "m", "--benchmark", "demo-multi", "--json")
        wanted = scored(mantis(*given))["scores"]
        asked = {json.dumps(body["messages"]): body for body in server.bodies}
    folder = tmp_path / "export"
    done = mantis("benchmark", "export", "demo-multi", folder, "--openai", "m")
    assert done.exit_code == 0, done.output
    requests, batch = lines_of(folder / "requests.jsonl"), lines_of(folder / "openai.jsonl")
    assert {json.dumps(line["body"]["messages"]) for line in batch} == set(asked)
    assert all(asked[json.dumps(line["body"]["messages"])] == line["body"] for line in batch)
    for line in requests:
        assert line["prompt"].count("<image>") == len(line["images"])
        assert all((folder / image).read_bytes() for image in line["images"])
        assert "red" not in {str(value) for name, value in line.items() if name != "prompt"}  # no answer is told
    from tests.helpers.openai_server import answer_to

    texts = [answer_to(line["body"]) for line in batch]
    plain = [{"id": line["id"], "benchmark": line["benchmark"], "response": text} for line, text in
             zip(requests, texts, strict=True)]  # fmt: skip
    results = [
        {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "error": None,
         "response": {"status_code": 200, "body": {"choices": [{"message": {"content": text}}]}}}
        for number, (line, text) in enumerate(zip(batch, texts, strict=True))
    ]  # fmt: skip
    for number, answers in enumerate((plain, results)):
        file = tmp_path / f"answers-{number}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in answers))
        found = scored(mantis("rescore", file, "--model", "m", "--json", "-"))
        assert (found["benchmark"], found["model"]) == ("demo-multi", "m")
        # A file of answers does not tell how they were made, so all but the conditions are the same.
        assert [row | {"conditions": {}} for row in found["scores"]] == [row | {"conditions": {}} for row in wanted]
        assert all(row["conditions"] == {"scoring": "official"} for row in found["scores"])
    results[0] |= {"response": None, "error": {"code": "batch_expired"}}
    file.write_text("".join(json.dumps(line) + "\n" for line in results))
    assert sum(row["missing"] for row in scored(mantis("rescore", file, "--json", "-"))["scores"]) == 1


def test_a_sample_is_exported_and_scored_as_one(mantis: Callable[..., Any], tmp_path: Path) -> None:
    assert mantis("benchmark", "export", "demo-multi", tmp_path, "--limit", 12).exit_code == 0
    answers = [line | {"response": "red"} for line in lines_of(tmp_path / "requests.jsonl")]
    assert len(answers) == 12
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in answers))
    rows = scored(mantis("rescore", file, "--limit", 12, "--json", "-"))["scores"]
    assert sum(row["samples"] for row in rows) == 12
    assert {row["missing"] for row in rows} == {0}
    assert {row["drawn_from"] for row in rows} == {16, 12}
    whole = scored(mantis("rescore", file, "--json", "-"))["scores"]
    assert sum(row["missing"] for row in whole) == 48


def test_answers_that_name_no_benchmark_or_two_are_explained(mantis: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "q1", "response": "red"}\n')
    assert "does not name its benchmark" in mantis("rescore", file).output
    file.write_text('{"id": "1", "benchmark": "a", "response": ""}\n{"id": "1", "benchmark": "b", "response": ""}\n')
    assert "answers to a, b" in mantis("rescore", file).output


def test_export_rescore_and_an_endpoint_need_no_torch(
    eval_source: Path, local_store: LocalStore, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "q1", "benchmark": "demo-multi", "response": "red"}\n')
    shared = ["--source", str(eval_source), "--store", local_store.url]
    with openai_server() as server:
        commands = [
            ["benchmark", "export", "demo-multi", str(tmp_path / "out"), "--openai", "m", *shared],
            ["rescore", str(answers), *shared],
            ["evaluate", "--endpoint", server.url, "--model", "m", "--benchmark", "demo-multi", *shared],
        ]
        code = (
            "import json, sys; from typer.testing import CliRunner; from pipelines.cli.main import app\n"
            "for given in json.loads(sys.argv[1]):\n"
            "    done = CliRunner().invoke(app, given)\n"
            "    assert done.exit_code == 0, done.output\n"
            "    print([name for name in ('torch', 'transformers', 'deepspeed') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.stdout.splitlines() == ["[]"] * 3, done.stderr


def test_answers_are_scored_by_the_rule_of_the_profile(local_store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    row = {"id": "1", "skill": "compare", "question": "A cat?", "images": [], "options": ["yes", "no"], "answer": "B"}
    (tmp_path / "pets/test.json").write_text(json.dumps([row]))
    (tmp_path / "pets.yaml").write_text(
        "title: Pets\nkind: multiple-choice\nmetric: blink\nskills: {compare: {label: Compare}}\nprompts:\n"
        "  official: {templates: {multiple-choice: '{question}'}}\n"
        "  lmms-eval: {templates: {multiple-choice: '{question}'}, metric: blink-lmms-eval}\n"
    )
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "1", "response": "Answer: (B)"}\n')
    given = ["rescore", str(answers), "--benchmark", str(tmp_path / "pets.yaml"), "--store", local_store.url]
    for profile, right in ((), 1.0), (("--profile", "official"), 1.0), (("--profile", "lmms-eval"), 0.0):
        rows = scored(CliRunner().invoke(app, [*given, *profile, "--json", "-"]))["scores"]
        assert [row["official"] for row in rows] == [right], profile
    wrong = CliRunner().invoke(app, [*given, "--profile", "offical"])
    assert "evaluation.profile = 'offical' is no profile" in wrong.output
