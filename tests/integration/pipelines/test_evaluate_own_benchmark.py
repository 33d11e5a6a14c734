"""`mantis evaluate` and `mantis benchmark export` take the file of a made-up benchmark, in JSON and in Parquet."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mantis.store.local import LocalStore
from pipelines.cli.main import app
from tests.fixtures.evaluation import WriteParquet
from tests.fixtures.own_benchmark import YAML


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_file_is_evaluated_by_one_command(
    pets: Path, chat_model_folder: Path, local_store: LocalStore, write_parquet: WriteParquet
) -> None:
    given = ("evaluate", chat_model_folder, "--benchmark", pets, "--json", "--store", local_store.url)
    done = call(*given)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["benchmark"] == "pets"
    assert [(row["skill"], row["samples"]) for row in found["scores"]] == [("overall", 4), ("compare", 4)]
    rows = json.loads((pets.parent / "pets/test.json").read_text())
    for row in rows:
        row["images"] = [{"bytes": (pets.parent / "pets" / name).read_bytes(), "path": name} for name in row["images"]]
    write_parquet(pets.parent / "pets/test.parquet", rows)
    pets.write_text("layout: parquet\nfiles: [test.parquet]\n" + YAML)
    again = json.loads(call(*given).stdout)
    assert [row["accuracy"] for row in again["scores"]] == [row["accuracy"] for row in found["scores"]]


def test_a_file_is_exported(pets: Path, local_store: LocalStore, tmp_path: Path) -> None:
    done = call("benchmark", "export", pets, tmp_path / "out", "--store", local_store.url)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").rglob("*.png"))) + len(list((tmp_path / "out").rglob("*.jpg"))) >= 8


@pytest.mark.parametrize("name", ["gone.yaml", "./gone.yaml"])
def test_a_missing_file_is_named(chat_model_folder: Path, local_store: LocalStore, name: str) -> None:
    done = call("evaluate", chat_model_folder, "--benchmark", name, "--store", local_store.url)
    assert done.exit_code == 1
    assert "gone.yaml" in str(done.exception) + done.output
