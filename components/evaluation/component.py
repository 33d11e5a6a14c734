"""KFP components of evaluation."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def benchmarks(run: str, store_url: str) -> list[dict[str, str]]:
    """List the benchmarks of the run's recipe. Each entry holds the run and the name of one benchmark."""
    from components.evaluation.step import resolve_benchmarks
    from mantis.runs.step_runner import component_main, open_run, recorded

    with component_main():
        opened = open_run(run, store_url)
        with recorded(opened, "benchmarks"):
            return [{"run": run, "benchmark": benchmark} for benchmark in resolve_benchmarks(opened)]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def evaluate(
    run: str,
    store_url: str,
    benchmark: str,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
) -> None:
    """Evaluate the model on one benchmark: answer every sample, score the responses, and add intervals and controls."""
    from components.evaluation import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        evaluated = step.evaluate(opened, benchmark, load_manifest(model.path))
        hand_on(opened, evaluated, evaluation, part=benchmark)
