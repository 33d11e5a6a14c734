"""The evaluation step: one benchmark, one model."""

from contextlib import ExitStack

from components.evaluation.benchmarks.benchmark_catalog import (
    Benchmark,
    known_benchmarks,
    load_benchmark,
    load_decoding,
)
from components.evaluation.benchmarks.benchmark_mirror import check_mirrors
from components.evaluation.readers.benchmark_source import open_benchmark_source
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, Number
from mantis.artifacts.source_names import GENERATED, MIRROR
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run, StepSpec, failure_recorded, run_step

REVISION = 2  # raise when the same inputs would give other responses or scores


def resolve_benchmarks(run: Run) -> list[str]:
    """The benchmarks of the recipe, in its order.

    Raises:
        ConfigError: there are none, one does not exist, or the decoding profile does not.
        EvaluationError: the file of one is wrong.
    """
    return [benchmark.name for benchmark in _benchmarks(run)]


def _benchmarks(run: Run) -> list[Benchmark]:
    settings = run.recipe.evaluation
    if not settings.benchmarks:
        raise ConfigError("evaluation.benchmarks is empty.", remedy=f"Benchmarks: {', '.join(known_benchmarks())}.")
    load_decoding(settings.decoding)
    return [load_benchmark(name, prompt=settings.prompt) for name in settings.benchmarks]


def check_benchmarks(run: Run) -> None:
    """The recipe's benchmarks are known and, as far as that is told without reading them, can be read.

    Raises:
        ConfigError, EvaluationError: as `resolve_benchmarks`; or a published benchmark is to be generated.
        InputError: mirrors are missing; names all of them.
    """
    settings, benchmarks = run.recipe.evaluation, _benchmarks(run)
    published = [benchmark.name for benchmark in benchmarks if benchmark.hub is not None]
    if settings.source == MIRROR:
        check_mirrors(run.store, benchmarks)
    elif settings.source == GENERATED and published:
        raise ConfigError(
            f"evaluation.source = 'generated', and {', '.join(published)} cannot be generated.",
            remedy="Set evaluation.source = mirror, or to the folder that holds a folder for each benchmark.",
        )


def evaluate(run: Run, benchmark: str, model: Manifest) -> Manifest:
    """Responses, scores and gallery of `model` on `benchmark`; goes on with the responses that are there.

    Raises:
        ConfigError, EvaluationError: as `resolve_benchmarks`.
        InputError: the benchmark's samples cannot be read.
    """
    settings = run.recipe.evaluation
    step = f"evaluate-{benchmark}"
    with ExitStack() as opened:
        with failure_recorded(run, step):
            described = load_benchmark(benchmark, prompt=settings.prompt)
            decoding = load_decoding(settings.decoding)
            source = opened.enter_context(open_benchmark_source(run.recipe, described, run.store))
        task = StepSpec(
            step=step,
            kind=ArtifactKind.EVALUATION,
            revision=REVISION,
            config={
                "benchmark": described.revision(),
                "source": source.identity,
                "model": run.recipe.model.identity(),  # its prompt profile, which the weights do not tell
                "decoding": decoding.model_dump(),
                "evaluation": settings.identity("layout", "scoring", "controls"),
                "recipe": run.recipe.identity("seed"),
            },
            inputs={"model": model},
            parts={"model": model.fingerprint, "benchmark": benchmark},
        )

        def work(prefix: str) -> dict[str, Number]:
            read = source.read()  # before torch is there: generated samples are made in forked processes
            from components.evaluation.evaluator import Evaluation

            evaluation = Evaluation(
                run=run,
                benchmark=described,
                decoding=decoding,
                samples=read.samples,
                missing=read.missing,
                model=model,
            )
            return evaluation.make(prefix)

        return run_step(run, task, work)
