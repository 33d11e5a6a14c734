"""Writes your own benchmark files into a recipe, so that every step of the run reads the same text."""

from collections.abc import Mapping
from typing import Any

import yaml

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark, own_name, read_benchmark_file
from components.evaluation.benchmarks.benchmark_mirror import keep_files, revision_of_source
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.evaluation_settings import is_benchmark_file
from mantis.config.overrides import set_field
from mantis.errors import ConfigError
from mantis.store.base import ObjectStore
from pipelines.execution.resolve import recipe_text

BENCHMARKS = "evaluation.benchmarks"
OWN = "evaluation.own_benchmarks"


def with_own_benchmarks(recipe: str, overrides: Mapping[str, str], store: ObjectStore | None = None) -> dict[str, str]:
    """The overrides of a run, with the content of each YAML file that `evaluation.benchmarks` names.

    The files of such a benchmark go into `store`, and the recipe names their revision. Without a store, only the
    revision is computed. So the recipe and the id of its run are the same either way.

    Raises:
        ConfigError: a file cannot be read, or its name is taken or given twice.
        EvaluationError: the content of a file is wrong.
        InputError: the samples' folder lacks a file.
    """
    settings = _evaluation(recipe, overrides)
    named = settings.get("benchmarks")
    files = [each for each in named or () if isinstance(each, str) and is_benchmark_file(each)]
    if not isinstance(named, list) or not files:
        return dict(overrides)
    names = [own_name(each) if each in files else each for each in named]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{BENCHMARKS} has {', '.join(twice)} twice.", remedy="Remove one, or rename the file of the benchmark."
        )
    own = settings.get("own_benchmarks")
    described = {own_name(file): _described(file, store) for file in files}
    content = {**(own if isinstance(own, dict) else {}), **described}
    return {**overrides, BENCHMARKS: _text(names), OWN: _text(content)}


def _described(file: str, store: ObjectStore | None) -> dict[str, Any]:
    """The content of a benchmark's file, with the revision of its samples in place of the folder."""
    raw, benchmark = read_benchmark_file(file), load_benchmark(file)
    source = raw.pop("source", "")
    if not source:
        return raw
    if store is None:
        return {**raw, "stored": revision_of_source(benchmark)}
    return {**raw, "stored": keep_files(store, benchmark).key.rpartition("/")[2]}


def _evaluation(recipe: str, overrides: Mapping[str, str]) -> dict[str, Any]:
    """The section `evaluation` before any check; empty where the recipe has another form, which is refused later."""
    text, _ = recipe_text(recipe)
    try:
        raw = parse_yaml(text)
    except yaml.YAMLError:
        return {}
    if not isinstance(raw, dict):
        return {}
    for name, value in overrides.items():
        set_field(raw, name, value)
    section = raw.get("evaluation")
    return section if isinstance(section, dict) else {}


def _text(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 20).strip()
