"""KFP components of evaluation."""

from kfp import dsl

from components.core.images import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def benchmarks(run: str, store_url: str) -> list[dict[str, str]]:
    """The benchmarks of the run, as the recipe names them, each with the run that wants it."""
    from components.core.steps import open_run, recorded, reported
    from components.evaluation.step import resolve_benchmarks

    with reported():
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
    scores: dsl.Output[dsl.Metrics],
) -> None:
    """One benchmark: every sample answered, scored, with intervals and controls."""
    from components.core.artifacts import load_manifest, save_manifest
    from components.core.steps import open_run, reported
    from components.evaluation import step

    with reported():
        manifest = step.evaluate(open_run(run, store_url), benchmark, load_manifest(model.path))
        save_manifest(manifest, evaluation.path)
        for name, value in manifest.summary.items():
            if isinstance(value, int | float):
                scores.log_metric(name, value)
