"""The evaluation step: evaluates one model on one benchmark."""

import logging
from contextlib import ExitStack
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import (
    Benchmark,
    known_benchmarks,
    load_benchmark,
)
from components.evaluation.benchmarks.benchmark_mirror import check_mirrors
from components.evaluation.readers import held_out_reader
from components.evaluation.readers.benchmark_source import BenchmarkSource, open_benchmark_source
from components.evaluation.stratified_sample import population, stratified
from mantis.artifacts.held_out import BENCHMARK as HELD_OUT
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, Number
from mantis.artifacts.source_names import GENERATED, MIRROR
from mantis.errors import ConfigError
from mantis.generation.answerer import AnsweringModel
from mantis.generation.answering_models import FamilyModel
from mantis.runs.step_runner import Run, StepSpec, failure_recorded, run_step

logger = logging.getLogger(__name__)

REVISION = 4  # raise when the same responses would give other scores; the generator has its own for responses


def resolve_benchmarks(run: Run) -> list[str]:
    """List the benchmarks of the recipe, in its order. The held-out rows of `data.holdout` come last.

    Raises:
        ConfigError: the list is empty, or a benchmark or the profile does not exist.
        EvaluationError: the file of a benchmark is wrong.
    """
    held_out = [HELD_OUT] if run.recipe.data.holdout else []
    return [benchmark.name for benchmark in _benchmarks(run)] + held_out


def _benchmarks(run: Run) -> list[Benchmark]:
    settings = run.recipe.evaluation
    if not settings.benchmarks and not run.recipe.data.holdout:
        raise ConfigError("evaluation.benchmarks is empty.", remedy=f"Choose from {', '.join(known_benchmarks())}.")
    return [_load(run, name, run.recipe.model.family) for name in settings.benchmarks]


def _load(run: Run, name: str, family: str) -> Benchmark:
    recipe = run.recipe
    return load_benchmark(
        name,
        profile=recipe.evaluation.profile,
        family=family,
        own=recipe.evaluation.own_benchmarks,
    )


def check_benchmarks(run: Run) -> None:
    """Check that the recipe's benchmarks exist and that their sources fit, without reading any samples.

    A warning names each benchmark that lacks the recipe's profile, and the profile that is used instead.

    Raises:
        ConfigError, EvaluationError: as in `resolve_benchmarks`; or `generated` is set for a published benchmark.
        InputError: mirrors are missing. One error names all of them.
    """
    source, benchmarks = run.recipe.evaluation.source, _benchmarks(run)
    for benchmark in benchmarks:
        substitution = benchmark.resolved.substitution(benchmark.name)
        if substitution is not None:
            logger.warning("%s", substitution)
    check_mirrors(run.store, [each for each in benchmarks if each.stored or (source == MIRROR and not each.source)])
    homeless = [each.name for each in benchmarks if not (each.generated or each.stored or each.source)]
    if source == GENERATED and homeless:
        raise ConfigError(
            f"evaluation.source = 'generated', but {', '.join(homeless)} cannot be generated.",
            remedy="Set evaluation.source to mirror, or to a folder that holds a folder for each benchmark.",
        )


def evaluate(run: Run, benchmark: str, model: Manifest) -> Manifest:
    """Evaluate a model of the recipe's family on `benchmark`. It does and raises what `evaluate_model` does."""
    family = FamilyModel(manifest=model, settings=run.recipe.model)
    return evaluate_model(run, benchmark, family, described_by=run.recipe.model.identity())


def evaluate_model(
    run: Run, benchmark: str, model: AnsweringModel, *, described_by: dict[str, Any] | None = None
) -> Manifest:
    """Evaluate any `model` on `benchmark`: responses, scores and gallery. Responses in the store are reused.

    `described_by` enters the result's address beside the model's fingerprint; without it, `model.identity()` does.

    Raises:
        ConfigError: as in `resolve_benchmarks`; or the recipe asks for controls, and the model cannot be restricted.
        EvaluationError: as in `resolve_benchmarks`; or the model cannot answer.
        InputError: the benchmark's samples cannot be read.
    """
    settings = run.recipe.evaluation
    if settings.controls and not model.restricts:
        raise ConfigError(
            f"evaluation.controls = {', '.join(settings.controls)}, but this model cannot be held to valid answers.",
            remedy="Set evaluation.controls=[]. A control that may answer anything proves nothing.",
        )
    step = f"evaluate-{benchmark}"
    with ExitStack() as opened:
        with failure_recorded(run, step):
            described, source = _described(run, benchmark, model, opened)
        task = StepSpec(
            step=step,
            kind=ArtifactKind.EVALUATION,
            revision=REVISION,
            config={
                "benchmark": described.revision(),
                "source": source.identity,
                # e.g. the chat template, which the weights do not determine
                "model": described_by or {**model.identity(), "revision": model.revision},
                "decoding": described.resolved.decoding.model_dump(),
                "evaluation": settings.identity("layout", "scoring", "controls", "limit"),
                "recipe": run.recipe.identity("seed"),
            },
            inputs={"model": model.manifest},
            parts={"model": model.manifest.fingerprint, "benchmark": benchmark},
        )

        def work(prefix: str) -> dict[str, Number]:
            read = source.read()  # before torch is imported, since the generator forks processes
            from components.evaluation.evaluator import Evaluation

            samples = stratified(read.samples, described, limit=settings.limit, seed=run.recipe.seed)
            evaluation = Evaluation(
                run=run,
                benchmark=described,
                samples=samples,
                drawn_from=population(read.samples) if len(samples) < len(read.samples) else None,
                missing=read.missing,
                model=model,
            )
            summary = evaluation.make(prefix)
            if benchmark == HELD_OUT:
                from components.evaluation.held_out_scores import put_held_out_scores

                summary |= put_held_out_scores(run, prefix, model.manifest, described.resolved.decoding, samples)
            return summary

        return run_step(run, task, work)


def _described(run: Run, benchmark: str, model: AnsweringModel, opened: ExitStack) -> tuple[Benchmark, BenchmarkSource]:
    """The benchmark with its profile, and the source of its samples, open until `opened` ends."""
    if benchmark == HELD_OUT:
        mixture, rows = held_out_reader.held_out_mixture(run.store, model.manifest)
        held_out = opened.enter_context(held_out_reader.open_held_out_source(run.store, mixture, rows))
        return held_out_reader.held_out_benchmark(rows), held_out
    described = _load(run, benchmark, model.family)
    source = opened.enter_context(open_benchmark_source(run.recipe, described, run.store))
    return described, source
