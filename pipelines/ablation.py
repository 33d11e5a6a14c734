"""The skill ablation: prepare data once, then train, convert and evaluate every arm, then compare the arms."""

from kfp import dsl

from pipelines.arm_loop import prepare_run_and_compare
from pipelines.component import finish_arms, preflight_arms
from pipelines.execution.form.descriptions import COMMON, TRAINING
from pipelines.execution.platform import pipeline, short


@pipeline(
    name="ablation",
    display_name="Mantis: skill ablation",
    description="Trains one model per skill of `data.skills`, each with the skills before it: `[coref]`, then "
    "`[coref, compare]` and so on. Every arm is a run of its own, with a report. One more report compares the arms on "
    f"the same samples. Subsets are prepared once. {TRAINING} {COMMON}",
)
def ablation(
    recipe: str = "ablation-siglip",
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
    overrides: str = "",
    mantis_run: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = dict(locals())  # every field of the form, by its name
    with dsl.ExitHandler(short(finish_arms(**asked)), name="run"):
        checked = short(preflight_arms(**asked))
        prepare_run_and_compare(checked.outputs["run"], store_url, checked.outputs["Output"])
