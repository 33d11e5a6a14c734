"""Evaluates a model on this machine, without cluster or recipe: for `mantis evaluate`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, load_benchmark
from components.evaluation.readers.benchmark_reader import Samples
from components.evaluation.readers.benchmark_source import open_benchmark_source
from components.evaluation.step import check_benchmarks, evaluate_model
from components.evaluation.stratified_sample import stratified
from components.reporting.step import report
from mantis.artifacts.manifest import Manifest, commit_manifest, read_manifest
from mantis.artifacts.source_names import GENERATED, MIRROR
from mantis.config.model_settings import ModelSettings
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.runs.step_runner import Run, record_existing
from mantis.store.base import ObjectStore
from pipelines.execution.own_benchmarks import with_own_benchmarks
from pipelines.execution.preflight import check_name, keep_recipe
from pipelines.execution.resolve import fitting, resolve_run

if TYPE_CHECKING:
    from mantis.generation.answerer import AnsweringModel

CHANGEABLE = ("evaluation.", "seed")  # what --set may change: a model to evaluate has no other settings
LONGEST_NAME = 40  # characters of a model's name in the name of a run


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The options of `mantis evaluate`. `source` empty: each benchmark's own. `overrides`: dotted fields."""

    benchmarks: Sequence[str]
    source: str = ""
    limit: int | None = None
    overrides: Mapping[str, str]
    name: str = ""


def evaluate_on(
    store: ObjectStore, model: "AnsweringModel", title: str, request: EvaluationRequest
) -> tuple[Run, list[Manifest]]:
    """Evaluate `model` on every benchmark, and write a report. Results and responses in the store are reused.

    Returns the run, whose id follows from model and settings, and an evaluation for each benchmark.

    Raises:
        ConfigError: an option has a wrong value. Nothing was started.
        InputError: samples of a benchmark are not there.
        EvaluationError: the model cannot answer.
    """
    from mantis.generation.answering_models import FamilyModel

    settings = model.settings if isinstance(model, FamilyModel) else None
    recipe = recipe_of(store, title, request, settings)
    made = fingerprint([recipe.identity(), model.manifest.fingerprint, model.identity()])[:8]
    run_id = request.name or fitting(f"{recipe.name}-eval-{made}", f"name = {recipe.name!r}")
    if request.name:
        resolve_run("demo", {}, request.name)  # checks the form of the name
    run = Run(id=run_id, store=store, recipe=recipe)
    asked = [replace(run, recipe=each) for each in _recipe_for_each_benchmark(recipe, request.source)]
    check_name(run)
    for each in asked:
        check_benchmarks(each)
    if read_manifest(store, model.manifest.key) is None:
        commit_manifest(store, model.manifest)
    keep_recipe(store, run.id, recipe)
    record_existing(run, "model", lambda: model.manifest)
    evaluations = [evaluate_model(each, each.recipe.evaluation.benchmarks[0], model) for each in asked]
    report(run, evaluations)
    return run, evaluations


@contextmanager
def opened_samples(
    store: ObjectStore, request: EvaluationRequest, *, pictures: bool
) -> Iterator[tuple[Recipe, Benchmark, Samples]]:
    """Read the samples of the only benchmark of `request`. Their images can be read until the context ends.

    Raises:
        ConfigError: an option has a wrong value.
        InputError: samples of the benchmark are not there.
    """
    recipe = _recipe_for_each_benchmark(recipe_of(store, "samples", request), request.source)[0]
    check_benchmarks(Run(id="", store=store, recipe=recipe))
    benchmark = _benchmark_of(recipe, recipe.evaluation.benchmarks[0])
    with open_benchmark_source(recipe, benchmark, store, pictures=pictures) as source:
        yield recipe, benchmark, source.read()


def export_benchmark(store: ObjectStore, request: EvaluationRequest, folder: Path, model: str) -> list[Path]:
    """Write the questions of a benchmark for another engine, and return the files with the requests.

    `model` empty: no requests in OpenAI's form. It raises the errors of `opened_samples` and `BenchmarkExport.write`.
    """
    from components.evaluation.benchmark_export import BenchmarkExport

    with opened_samples(store, request, pictures=True) as (recipe, benchmark, read):
        settings = recipe.evaluation
        drawn = stratified(read.samples, benchmark, limit=settings.limit, seed=recipe.seed)
        export = BenchmarkExport(benchmark=benchmark, settings=settings, folder=folder, model=model)
        return export.write(drawn)


def recipe_of(
    store: ObjectStore, title: str, request: EvaluationRequest, settings: ModelSettings | None = None
) -> Recipe:
    """Write the request as a recipe, so that run, report and lineage show it.

    Files of benchmarks are written into it, and their samples go into `store`.

    Raises:
        ConfigError: a field has a wrong value, or is none of the evaluation's.
        MantisError: as in `with_own_benchmarks`.
    """
    foreign = [field for field in request.overrides if not field.startswith(CHANGEABLE)]
    if foreign:
        raise ConfigError(f"--set {foreign[0]} does not belong to an evaluation.", remedy="Set evaluation.FIELD=VALUE.")
    evaluation: dict[str, Any] = {
        "benchmarks": list(request.benchmarks),
        "source": request.source or MIRROR,
        "limit": request.limit,
        "controls": [],  # a look at a model asks each sample once
    }
    raw = {"name": _slug(title), "description": f"Evaluation of {title}.", "evaluation": evaluation}
    if settings is not None:
        raw["model"] = settings.model_dump(mode="json")
    text = yaml.safe_dump(raw)
    overrides = with_own_benchmarks(text, request.overrides, store)
    return parse_recipe(text, origin="the command's options", overrides=overrides)


def _recipe_for_each_benchmark(recipe: Recipe, source: str) -> list[Recipe]:
    """The recipe with one benchmark each, and the source of its samples."""
    recipes = []
    for name in recipe.evaluation.benchmarks:
        benchmark = _benchmark_of(recipe, name)
        own = source or (GENERATED if benchmark.generated else MIRROR)
        evaluation = recipe.evaluation.model_copy(update={"source": own, "benchmarks": (name,)})
        recipes.append(recipe.model_copy(update={"evaluation": evaluation}))
    return recipes


def _benchmark_of(recipe: Recipe, name: str) -> Benchmark:
    settings = recipe.evaluation
    return load_benchmark(name, profile=settings.profile, own=settings.own_benchmarks)


def _slug(title: str) -> str:
    """A name for recipes and runs, from the last part of a path or a model's name."""
    last = title.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.")[:LONGEST_NAME].strip("-.") or "model"
