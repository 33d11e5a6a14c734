"""The KFP components of reporting."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def report(
    run: str,
    store_url: str,
    evaluations: dsl.Input[list[dsl.Artifact]],
    page: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
) -> bool:
    """Write the run's report as an HTML page and as Markdown. Return whether the run's recipe deploys its model."""
    from components.reporting import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        made = step.report(opened, [load_manifest(evaluation.path) for evaluation in evaluations])
        step.hand_over(opened.store, made, page.path, text.path)
        return opened.recipe.cluster.deploy


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def compare(
    run: str,
    store_url: str,
    reports: dsl.Input[list[dsl.HTML]],
    page: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
) -> None:
    """Compare the arms of an ablation side by side, after each arm has its own report."""
    from components.reporting import step
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        step.hand_over(opened.store, step.compare(opened), page.path, text.path)
