"""Whatever a person gets wrong: one paragraph that names it and the remedy, exit code 1, no traceback."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cli import Mantis


def refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--set", "training.learning_rat=1e-5"), ("training.learning_rat", "1e-05", "learning_rate")),
        (("demo", "--set", "training.global_batch_size=many"), ("training.global_batch_size", "'many'")),
        (("demo", "--set", "oops"), ("--set 'oops'", "=")),
        (("no-such-recipe",), ("no-such-recipe", "demo")),
        (("demo", "--set", "evaluation.benchmarks=[no-such-benchmark]"), ("no-such-benchmark", "demo-multi")),
        (("demo", "--set", "evaluation.benchmarks=[]"), ("evaluation.benchmarks",)),
        (("demo", "--set", "model.family=no-such-family"), ("no-such-family", "llava-clip")),
        (("demo", "--source", "no/such/folder"), ("no/such/folder",)),
        (("demo", "--store", "ftp://somewhere"), ("ftp", "s3://")),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else None,
)
def test_what_a_recipe_cannot_mean(
    mantis: Mantis, tmp_path: Path, arguments: tuple[Any, ...], words: tuple[Any, ...]
) -> None:
    refused(mantis("run", *arguments, cwd=tmp_path), *words)
    assert not (tmp_path / ".mantis" / "datasets").exists()  # before anything is computed


def test_a_store_that_cannot_be_written(mantis: Mantis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    refused(
        mantis("run", "demo", "--store", (tmp_path / "file").as_uri(), cwd=tmp_path), "cannot be written", "--store"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", ("train.json",)),
        ('{"id": 1}', ("train.json",)),
        (json.dumps([{"id": "a", "images": ["missing.jpg"], "conversation": []}]), ("train.json", "ledger")),
    ],
    ids=["broken JSON", "no list", "nothing kept"],
)
def test_a_source_that_cannot_be_read(mantis: Mantis, tmp_path: Path, text: str, words: tuple[Any, ...]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.json").write_text(text)
    done = mantis("run", "demo", "--source", source, cwd=tmp_path)
    refused(done, str(source), *[word for word in words if word != "ledger"])
    listed = mantis("status", cwd=tmp_path)
    if listed.returncode == 0:
        assert "done" not in listed.stdout


def test_status_and_lineage_of_what_is_not_there(mantis: Mantis, tmp_path: Path) -> None:
    refused(mantis("status", cwd=tmp_path), "holds no run")
    refused(mantis("status", "nothing", cwd=tmp_path), "nothing")
    refused(mantis("report", "nothing", cwd=tmp_path), "nothing")
    refused(mantis("compare", "nothing", "neither", cwd=tmp_path), "nothing")
    refused(mantis("lineage", (tmp_path / ".mantis" / "models" / "x").as_uri(), cwd=tmp_path), "no committed artifact")


def test_demo_data_does_not_write_into_a_full_folder(mantis: Mantis, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    refused(mantis("data", "generate", tmp_path, cwd=tmp_path), "not empty")
    assert os.listdir(tmp_path) == ["mine"]


def test_help_teaches(mantis: Mantis, tmp_path: Path) -> None:
    done = mantis("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in (
        "run",
        "status",
        "pipeline",
        "data",
        "lineage",
        "report",
        "compare",
        "ui",
        "doctor",
        "mantis run demo",
    ):
        assert word in done.stdout
