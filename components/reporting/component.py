"""KFP component of reporting."""

from kfp import dsl

from components.core.images import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def report(
    run: str,
    store_url: str,
    evaluations: dsl.Input[list[dsl.Artifact]],
    page: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
) -> None:
    """The run's report, as a page and as Markdown."""
    from pathlib import Path

    from components.core.artifacts import load_manifest
    from components.core.steps import open_run, reported
    from components.core.store import key_of
    from components.reporting import step

    with reported():
        opened = open_run(run, store_url)
        manifest = step.report(opened, [load_manifest(evaluation.path) for evaluation in evaluations])
        prefix = key_of(opened.store, manifest.uri)
        Path(page.path).write_bytes(opened.store.get(f"{prefix}/report.html"))
        Path(text.path).write_bytes(opened.store.get(f"{prefix}/report.md"))


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def compare(
    run: str,
    store_url: str,
    reports: dsl.Input[list[dsl.HTML]],
    page: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
) -> None:
    """The report of an ablation: its arms side by side, once each has a report of its own."""
    from pathlib import Path

    from components.core.steps import open_run, reported
    from components.core.store import key_of
    from components.reporting import step

    with reported():
        opened = open_run(run, store_url)
        prefix = key_of(opened.store, step.compare(opened).uri)
        Path(page.path).write_bytes(opened.store.get(f"{prefix}/report.html"))
        Path(text.path).write_bytes(opened.store.get(f"{prefix}/report.md"))
