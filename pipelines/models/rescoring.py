"""Scores stored responses again, or those of another engine: for `mantis rescore` and for Python programs."""

from dataclasses import dataclass
from pathlib import Path

from components.evaluation.answer_file import benchmark_of_answers, read_answers
from components.evaluation.benchmarks.benchmark_catalog import Benchmark, load_benchmark
from components.evaluation.rescore import Rescored, rescore_evaluation, rescore_file
from components.evaluation.scoring.score_response import Scoring
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import read_manifest
from mantis.artifacts.store_addresses import key_of
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import ConfigError
from mantis.runs.step_runner import open_run
from mantis.store.base import ObjectStore
from pipelines.execution.model_evaluation import EvaluationRequest, opened_samples


@dataclass(frozen=True, kw_only=True)
class AnswerRequest:
    """Which samples a file of answers is compared with.

    Args:
        benchmark: the benchmark's name; empty if the lines name it.
        source: as `evaluation.source`; empty for the mirror.
        limit: the size of a stratified sample; None for all.
    """

    benchmark: str = ""
    source: str = ""
    limit: int | None = None


def rescored_file(
    store: ObjectStore, file: Path, asked: AnswerRequest, *, scoring: Scoring, profile: str = ""
) -> tuple[Benchmark, Rescored]:
    """Score a JSONL file with ids and responses. Returns the benchmark and the scores.

    Raises:
        ConfigError: neither the lines nor the request name a benchmark.
        InputError: a line, or the samples, cannot be read.
    """
    answers = read_answers(file)
    name = asked.benchmark or benchmark_of_answers(answers)
    if not name:
        raise ConfigError(
            f"{file} does not name its benchmark, and --benchmark is missing.",
            remedy="Name the benchmark that it answers.",
        )
    overrides = {"evaluation.profile": profile} if profile else {}
    request = EvaluationRequest(benchmarks=[name], source=asked.source, overrides=overrides)
    with opened_samples(store, request, pictures=False) as (recipe, described, samples):
        made = rescore_file(answers, described, samples, scoring, seed=recipe.seed, limit=asked.limit)
    return described, made


def rescored_evaluation(
    store: ObjectStore, address: str, *, scoring: Scoring, profile: str = ""
) -> tuple[Benchmark, str, Rescored]:
    """Score the responses of an evaluation in the store. Returns the benchmark, the model's fingerprint, the scores.

    Raises:
        ConfigError: the address is none of an evaluation.
        InputError: it holds no responses.
    """
    key = key_of(store, address)
    parts = ArtifactKind.EVALUATION.pattern.parse(key)
    if parts is None:
        raise ConfigError(
            f"{key!r} is no evaluation.", remedy=f"Name {ArtifactKind.EVALUATION.pattern.text}, or a JSONL file."
        )
    asked = _settings_of_run(store, key)
    described = load_benchmark(parts["benchmark"], profile=profile or asked.profile, own=asked.own_benchmarks)
    return described, parts["model"], rescore_evaluation(store, key, described, scoring, seed=0)


def _settings_of_run(store: ObjectStore, evaluation: str) -> EvaluationSettings:
    """The settings of the run that made this evaluation, or the defaults if there is no such run any more."""
    manifest = read_manifest(store, evaluation)
    try:
        return EvaluationSettings() if manifest is None else open_run(manifest.made_by.run, store.url).recipe.evaluation
    except ConfigError:  # the run was deleted
        return EvaluationSettings()
