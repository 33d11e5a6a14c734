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
    scores: dsl.Output[dsl.Metrics],
) -> None:
    """Write the run's report as an HTML page and as Markdown, and its figures as one table for KFP's comparison."""
    from components.reporting import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        manifests = [load_manifest(evaluation.path) for evaluation in evaluations]
        made = step.report(opened, manifests)
        step.hand_over(opened.store, made, page.path, text.path)
        for name, value in step.headline_figures(opened, manifests).items():
            scores.log_metric(name, value)
        page.metadata["address"] = opened.store.uri(made.key)


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
