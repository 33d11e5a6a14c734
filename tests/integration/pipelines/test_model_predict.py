"""`mantis model predict`: rows of every form, the answers of evaluation, and a kill in the middle."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from mantis.artifacts.manifest import Manifest
from mantis.generation.answerer import Question
from mantis.store.local import LocalStore
from pipelines.cli.main import app
from tests.fixtures.evaluation import WriteParquet

PREDICT = ("model", "predict", "models/abc")
QUESTION = "What colour is the square?"
Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def predict(findable_model: Manifest, local_store: LocalStore) -> Predict:
    def call(file: Path, *words: str) -> list[dict[str, Any]]:
        given = [*PREDICT, str(file), "--store", local_store.url, "--max-tokens", "8", *words]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    return call


def rows_in(folder: Path, asked: list[tuple[Question, str]], write: Callable[[Question, list[str]], Any]) -> Path:
    """The questions as a file of JSON Lines, with images beside it."""
    folder.mkdir(exist_ok=True)
    lines = []
    for question, _ in asked:
        names = [f"{question.id}-{place}.jpg" for place in range(len(question.pictures))]
        for name, picture in zip(names, question.pictures, strict=True):
            (folder / name).write_bytes(picture.load())
        lines.append(json.dumps({"id": question.id} | write(question, names)))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "questions.jsonl"


def test_answers_are_those_of_evaluation(
    predict: Predict, evaluated: list[tuple[Question, str]], tmp_path: Path
) -> None:
    file = rows_in(tmp_path / "q", evaluated, lambda one, names: {"query": one.prompt, "images": names})
    lines = predict(file)
    assert [(line["id"], line["response"]) for line in lines] == [(one.id, text) for one, text in evaluated]
    assert [len(line["images"]) for line in lines] == [len(one.pictures) for one, _ in evaluated]


@pytest.mark.parametrize(
    "form", ["messages", "conversations", "texts", "prompt", "prompt-turns", "instruction", "parts"]
)
def test_rows_of_every_form_with_and_without_an_answer(predict: Predict, tmp_path: Path, form: str) -> None:
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    data = base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    asked = f"<image>{QUESTION}"
    turn, said = {"role": "user", "content": asked}, {"role": "assistant", "content": "red"}
    row, answer = {
        "messages": ({"messages": [turn]}, {"messages": [turn, said]}),
        "conversations": (
            {"conversations": [{"from": "human", "value": asked}]},
            {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": "red"}]},
        ),
        "texts": ({"texts": [{"user": asked}]}, {"texts": [{"user": asked, "assistant": "red"}]}),
        "prompt": ({"prompt": asked}, {"prompt": asked, "completion": "red"}),
        "prompt-turns": ({"prompt": [turn]}, {"prompt": [turn], "completion": [said]}),
        "instruction": ({"instruction": asked}, {"instruction": asked, "output": "red"}),
        "parts": (
            {"messages": [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]},
            {"messages": [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}, said]},
        ),
    }[form]
    beside = {} if form == "parts" else {"images": ["red.png"]}
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(row | beside) + "\n" + json.dumps(answer | beside) + "\n")
    without, with_answer = predict(file)
    assert without["response"] == with_answer["response"]
    assert "answer" not in without
    assert with_answer["answer"] == "red"
    assert without["question"] == with_answer["question"] == asked


def test_parquet_with_columns_of_other_names(predict: Predict, tmp_path: Path, write_parquet: WriteParquet) -> None:
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    image = {"bytes": (tmp_path / "red.png").read_bytes(), "path": "red.png"}
    write_parquet(
        tmp_path / "rows.parquet", [{"asked": QUESTION, "pics": [image]}, {"asked": QUESTION, "pics": [image]}]
    )
    lines = predict(tmp_path / "rows.parquet", "--column", "query=asked", "--column", "images=pics")
    assert [line["question"] for line in lines] == [f"<image>{QUESTION}"] * 2
    assert lines[0]["response"] == lines[1]["response"]


def test_a_row_that_cannot_be_asked_keeps_its_line(predict: Predict, tmp_path: Path) -> None:
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "red.png").read_bytes()[:60])
    rows: list[Any] = [
        {"query": QUESTION, "images": ["red.png"]},
        {"query": QUESTION, "images": ["missing.png"]},
        {"query": QUESTION, "images": ["broken.png"]},
        {"label": "red"},
        {"messages": [{"role": "assistant", "content": "red"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    lines = predict(file)
    assert [line["row"] for line in lines] == list(range(6))
    reasons = [line.get("reason") for line in lines[:5]]
    assert reasons == [None, "image-missing", "image-broken", "classification-row", "conversation-missing"]
    assert all(line["response"] is None for line in lines[1:5])


def test_a_file_without_questions_is_an_error(
    findable_model: Manifest, local_store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text('{"label": 3}\n')
    (tmp_path / "notes.docx").write_text("?")
    for name, problem in (
        ("empty.jsonl", "holds no question"),
        ("notes.docx", "no known form"),
        ("x.jsonl", "no file"),
    ):
        done = CliRunner().invoke(app, [*PREDICT, str(tmp_path / name), "--store", local_store.url])
        assert done.exit_code == 1
        assert problem in done.output
    done = CliRunner().invoke(app, [*PREDICT, str(tmp_path), "--column", "query", "--store", local_store.url])
    assert "--column 'query' maps no field" in done.output


def test_a_killed_prediction_continues(
    findable_model: Manifest, local_store: LocalStore, eval_source: Path, tmp_path: Path,
    mantis_environment: dict[str, str],
) -> None:  # fmt: skip
    rows = json.loads((eval_source / "demo-multi" / "test.json").read_text())
    file = eval_source / "demo-multi" / "questions.jsonl"
    asked = [{"query": f"{row['question']} {number}", "images": row["images"]} for number, row in enumerate(rows * 20)]
    file.write_text("\n".join(map(json.dumps, asked)))
    out = tmp_path / "answers.jsonl"
    words = [*PREDICT, str(file), "--max-tokens", "64", "--out", str(out)]
    command = [sys.executable, "-m", "pipelines.cli", *words, "--store", local_store.url]
    process = subprocess.Popen(command, env=mantis_environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not list(local_store.list("responses")):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    before = {entry.key for entry in local_store.list("responses")}
    kept = sum(len(local_store.get(key).splitlines()) for key in before)
    assert 0 < kept < len(asked)
    assert not out.exists()
    done = CliRunner().invoke(app, [*words, "--store", local_store.url])
    assert done.exit_code == 0, done.output
    after = [entry.key for entry in local_store.list("responses")]
    assert before < set(after)
    assert sum(len(local_store.get(key).splitlines()) for key in after) == len(asked)  # none was generated twice
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(len(asked)))
    assert all(isinstance(line["response"], str) for line in lines)
