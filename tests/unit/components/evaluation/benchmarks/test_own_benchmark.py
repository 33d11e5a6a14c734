"""Your own benchmark is a YAML file anywhere."""

import json
from pathlib import Path

import pytest

from components.evaluation.benchmarks import benchmark_catalog, benchmark_mirror
from components.evaluation.benchmarks.benchmark_catalog import listed_benchmarks, load_benchmark, own_name
from components.evaluation.readers.benchmark_reader import read_benchmark
from components.evaluation.readers.benchmark_source import open_benchmark_source
from components.evaluation.step import check_benchmarks, evaluate
from mantis.artifacts.benchmark_images import benchmark_images
from mantis.artifacts.manifest import Manifest
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, EvaluationError, InputError
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.evaluation import WriteParquet
from tests.fixtures.own_benchmark import YAML, write_pets


def test_a_file_anywhere_has_its_samples_beside_it(pets: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark(str(pets))
    assert (benchmark.name, benchmark.title, benchmark.generated) == ("pets", "Pets", False)
    assert benchmark.source == str(pets.parent / "pets")
    made = read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path)
    assert [len(sample.pictures) for sample in made.samples] == [2, 2, 2, 2]


def test_the_path_of_a_file_may_be_relative(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets.parent)
    assert load_benchmark("./pets.yaml") == load_benchmark("pets.yaml") == load_benchmark(str(pets))
    pets.write_text("source: ../elsewhere\n" + YAML)
    assert Path(load_benchmark("pets.yaml").source).resolve() == (pets.parents[1] / "elsewhere").resolve()
    pets.write_text("source: s3://bucket/pets\n" + YAML)
    assert load_benchmark("pets.yaml").source == "s3://bucket/pets"


def test_a_file_of_a_store_has_its_samples_there(pets: Path, local_store: LocalStore, eval_recipe: Recipe) -> None:
    store = LocalStore(pets.parent)
    benchmark = load_benchmark(f"{store.url}/pets.yaml")
    assert benchmark.source == f"{store.url}/pets"
    with open_benchmark_source(eval_recipe, benchmark, local_store) as source:
        assert len(source.read().samples) == 4
    kept = benchmark_mirror.fetch(local_store, benchmark)
    assert kept == benchmark_mirror.fetch(local_store, load_benchmark(str(pets)))


def test_the_revision_does_not_follow_the_place(pets: Path, tmp_path: Path) -> None:
    copy = write_pets(tmp_path / "copy")
    there, here = load_benchmark(str(copy)), load_benchmark(str(pets))
    assert there.source != here.source
    assert there.revision() == here.revision()
    assert benchmark_mirror.revision_of_source(there) == benchmark_mirror.revision_of_source(here)
    (copy.parent / "pets" / "0-a.png").write_bytes((copy.parent / "pets" / "0-b.png").read_bytes())
    assert benchmark_mirror.revision_of_source(there) != benchmark_mirror.revision_of_source(here)


def test_parquet_needs_no_hub(pets: Path, tmp_path: Path, write_parquet: WriteParquet) -> None:
    rows = json.loads((pets.parent / "pets/test.json").read_text())
    for row in rows:
        row["images"] = [{"bytes": (pets.parent / "pets" / name).read_bytes(), "path": name} for name in row["images"]]
    listed = load_benchmark(str(pets))
    before = read_benchmark(Path(listed.source), listed, spool=tmp_path)
    write_parquet(pets.parent / "pets/test.parquet", rows)
    pets.write_text("layout: parquet\nfiles: [test.parquet]\n" + YAML)
    benchmark = load_benchmark(str(pets))
    made = read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path)
    assert [(each.id, each.prompt, each.target) for each in made.samples] == [
        (each.id, each.prompt, each.target) for each in before.samples
    ]
    write_parquet(pets.parent / "pets/test.parquet", [rows[0] | {"answer": "E"}])
    with pytest.raises(InputError, match=r"test.parquet, row 0: answer = 'E'"):
        read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Pets.yaml", YAML, "'Pets' is no valid name"),
        ("blink.yaml", YAML, "'blink' is the name of a shipped benchmark"),
        ("pets.yaml", YAML.replace("metric: mantis", "metric: magic"), r"pets.yaml: metric = 'magic'"),
        ("pets.yaml", "layout: parquet\n" + YAML, r"needs `files`.*\[test.parquet\]"),
        ("pets.yaml", "files: [a.json]\n" + YAML, "takes no `hub` and no `files`"),
        ("pets.yaml", "[", "not YAML"),
        ("pets.yaml", "- a", "list, not a mapping"),
        ("gone/pets.yaml", "", "No such file"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises((ConfigError, EvaluationError), match=message):
        load_benchmark(str(tmp_path / name))


def test_a_wrong_file_stops_no_other_of_a_listing(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pets.parent
    (folder / "broken.yaml").write_text("title: [")
    (folder / "wrong.yaml").write_text(YAML.replace("multiple-choice\n", "essay\n", 1))
    monkeypatch.setattr(benchmark_catalog, "FOLDER", folder)
    loaded, problems = listed_benchmarks()
    assert [each.name for each in loaded] == ["pets"]
    assert ["broken.yaml" in str(problem) or "wrong.yaml" in str(problem) for problem in problems] == [True, True]


def own_run(store: LocalStore, recipe: Recipe, **evaluation: object) -> Run:
    settings = Recipe.model_validate({**recipe.model_dump(mode="json"), "evaluation": evaluation})
    return Run(id="own-run", store=store, recipe=settings)


def test_its_files_in_a_store_are_its_source(pets: Path, local_store: LocalStore, eval_recipe: Recipe) -> None:
    benchmark = load_benchmark(str(pets))
    manifest = benchmark_mirror.fetch(local_store, benchmark)
    revision = manifest.key.rpartition("/")[2]
    assert manifest.key == f"sources/benchmarks/pets/{revision}"
    assert benchmark_mirror.fetch(local_store, benchmark) == manifest
    stored = benchmark.model_copy(update={"source": "", "stored": revision})
    with open_benchmark_source(eval_recipe, stored, local_store) as source:
        assert source.identity == {"mirror": manifest.fingerprint}
        assert len(source.read().samples) == 4
    local_store.delete(f"{manifest.key}/files/0-a.png")
    assert benchmark_mirror.fetch(local_store, benchmark) == manifest
    with pytest.raises(InputError, match="has no copy of pets"):
        benchmark_mirror.find_mirror(local_store, stored.model_copy(update={"stored": "0" * 64}))


def test_a_folder_without_the_file_of_the_samples_is_refused(pets: Path, local_store: LocalStore) -> None:
    (pets.parent / "pets" / "test.json").unlink()
    with pytest.raises(InputError, match=r"has no file test.json of pets"):
        benchmark_mirror.fetch(local_store, load_benchmark(str(pets)))
    nowhere = load_benchmark(str(pets)).model_copy(update={"source": ""})
    with pytest.raises(ConfigError, match=r"a folder pets/ beside its YAML file"):
        benchmark_mirror.fetch(local_store, nowhere)


def test_it_is_evaluated_from_the_store(
    pets: Path, local_store: LocalStore, eval_recipe: Recipe, stored_model: Manifest
) -> None:
    benchmark = load_benchmark(str(pets))
    revision = benchmark_mirror.fetch(local_store, benchmark).key.rpartition("/")[2]
    own = {"pets": {**benchmark_catalog.read_benchmark_file(str(pets)), "source": "", "stored": revision}}
    run = own_run(local_store, eval_recipe, benchmarks=["pets", "demo-single"], own_benchmarks=own)
    check_benchmarks(run)
    for path in (*(pets.parent / "pets").iterdir(), pets):
        path.unlink()
    rows = json.loads(local_store.get(f"{evaluate(run, 'pets', stored_model).key}/scores.json"))["scores"]
    assert [(row["skill"], row["samples"], row["missing"]) for row in rows] == [("overall", 4, 0), ("compare", 4, 0)]
    shown = {image.path for image in benchmark_images(run.recipe, local_store) if image.benchmark == "pets"}
    assert len(shown) == 8


def test_its_files_must_be_in_the_store(pets: Path, local_store: LocalStore, eval_recipe: Recipe) -> None:
    own = {"pets": {**benchmark_catalog.read_benchmark_file(str(pets)), "source": "", "stored": "0" * 64}}
    with pytest.raises(InputError, match=r"has no copy of pets.*YAML file"):
        check_benchmarks(own_run(local_store, eval_recipe, benchmarks=["pets"], own_benchmarks=own))


@pytest.mark.parametrize("named", ["./pets.yaml", "pets.yml", "s3://bucket/pets.yaml", "folder/pets"])
def test_a_recipe_that_steps_read_holds_no_file(named: str) -> None:
    with pytest.raises(ValueError, match=r"is a file.*evaluation.own_benchmarks"):
        Recipe.model_validate({"name": "own", "evaluation": {"benchmarks": [named]}})


def test_the_name_is_the_stem() -> None:
    assert own_name("s3://bucket/folder/my-pets.v2.yaml") == "my-pets.v2"


@pytest.mark.parametrize("path", ["../0-a.png", "/etc/hostname", "a/../../0-a.png", "..", "a\0b.png"])
def test_an_image_lies_below_the_folder(pets: Path, tmp_path: Path, path: str) -> None:
    file = pets.parent / "pets/test.json"
    rows = json.loads(file.read_text())
    rows[0]["images"][0] = path
    file.write_text(json.dumps(rows))
    (pets.parent / "0-a.png").write_bytes((pets.parent / "pets/0-a.png").read_bytes())
    benchmark = load_benchmark(str(pets))
    with pytest.raises(InputError, match=r"row 0: .*leads out of the benchmark's folder"):
        read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path)
