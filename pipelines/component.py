"""KFP components of the run itself: its first and its last task."""

from kfp import dsl

from components.core.images import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> str:
    """Check recipe, store, source and benchmarks; the run's id."""
    from components.core.steps import reported
    from pipelines import preflight as first

    with reported():
        return first.preflight(run_recipe, run_overrides, run_name, store_url).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> None:
    """Whatever happened: close the MLflow run with the right status and write the run's summary."""
    from components.core.steps import reported
    from pipelines import finish as last

    with reported():
        last.finish(run_recipe, run_overrides, run_name, store_url)
