"""A file of `evaluation.benchmarks` is written into the recipe, and its samples into the store."""

from pathlib import Path

import pytest

from mantis.errors import ConfigError
from mantis.store.local import LocalStore
from pipelines.execution.own_benchmarks import with_own_benchmarks
from pipelines.execution.preflight import preflight
from pipelines.execution.resolve import resolve_run
from tests.fixtures.cli import Mantis
from tests.fixtures.own_benchmark import YAML


def recipe_with(*benchmarks: object) -> str:
    return f"name: own\nevaluation:\n  benchmarks: [{', '.join(map(str, benchmarks))}]\n"


def test_every_later_step_reads_the_same_text(pets: Path, local_store: LocalStore) -> None:
    text = recipe_with("demo-single", pets)
    given = with_own_benchmarks(text, {"seed": "3"}, local_store)
    pets.unlink()
    run, resolved = resolve_run(text, given, "")
    assert resolved.seed == 3
    assert resolved.evaluation.benchmarks == ("demo-single", "pets")
    assert resolved.evaluation.own_benchmarks["pets"]["title"] == "Pets"
    assert str(pets.parent) not in resolved.to_yaml()
    revision = resolved.evaluation.own_benchmarks["pets"]["stored"]
    assert local_store.stat(f"sources/benchmarks/pets/{revision}/files/test.json") is not None
    assert preflight(text, given, "", local_store.url).id == run


def test_the_run_is_the_same_without_a_store(pets: Path, local_store: LocalStore) -> None:
    text = recipe_with(pets)
    ids = {resolve_run(text, with_own_benchmarks(text, {}, store), "")[0] for store in (None, local_store)}
    assert len(ids) == 1
    pets.write_text(YAML.replace("Are both", "Are the two").replace("letter.", "letter!"))
    assert resolve_run(text, with_own_benchmarks(text, {}), "")[0] not in ids


def test_a_set_field_names_files_too(pets: Path) -> None:
    given = with_own_benchmarks("demo", {"evaluation.benchmarks": f"[{pets}]"})
    assert resolve_run("demo", given, "")[1].evaluation.benchmarks == ("pets",)


def test_a_file_without_samples_beside_it_reads_the_source_of_the_recipe(pets: Path) -> None:
    (pets.parent / "pets").rename(pets.parent / "samples")
    own = resolve_run("demo", with_own_benchmarks(recipe_with(pets), {}), "")[1].evaluation.own_benchmarks
    assert set(own["pets"]) & {"source", "stored"} == set()


def test_recipes_without_files_stay_as_they_are() -> None:
    for recipe in ("demo", recipe_with("demo-single"), "name: a\nevaluation: 3\n", "a: [\n", "- 1\n- 2\n"):
        assert with_own_benchmarks(recipe, {"seed": "1"}) == {"seed": "1"}


def test_a_name_may_occur_once(pets: Path) -> None:
    with pytest.raises(ConfigError, match="pets twice"):
        with_own_benchmarks(recipe_with(pets, "pets"), {})


def test_the_commands_take_the_file(pets: Path, mantis: Mantis, tmp_path: Path) -> None:
    store = f"--store=file://{tmp_path}/store"
    listed = mantis("benchmark", "list", pets, pets.parent / "gone.yaml", store, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "pets" in listed.stdout
    assert "gone.yaml" in listed.stdout + listed.stderr
    fetched = mantis("benchmark", "fetch", pets, store, cwd=tmp_path)
    assert "9 files" in fetched.stdout, fetched.stderr
    shown = mantis("benchmark", "show", pets, store, cwd=tmp_path)
    assert "in the store: " in shown.stdout
    recipe = mantis("recipe", "show", "demo", "--set", f"evaluation.benchmarks=[{pets}]", cwd=tmp_path)
    assert "own_benchmarks" in recipe.stdout, recipe.stderr
