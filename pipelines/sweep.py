"""A sweep: prepare data once, then train, convert and evaluate an arm for each combination, then compare the arms."""

from kfp import dsl

from pipelines.arm_loop import prepare_run_and_compare, prepare_search_and_compare
from pipelines.component import finish_sweep, preflight_sweep
from pipelines.execution.form.descriptions import COMMON, TRAINING
from pipelines.execution.platform import pipeline, short


@pipeline(
    name="sweep",
    display_name="Mantis: sweep",
    description="Trains one model for each combination of values of recipe fields. Every arm is a run of its own, with "
    "a report. One more report says which arm is best and how sure that is. Data that arms share is prepared once. "
    "Set `over` to lists of values by dotted field, e.g. `training.learning_rate=2e-4,4e-4 training.seed=1,2`. If "
    "`trials` is a number, Optuna suggests the values of that many arms, looks for the lowest held-out loss, and "
    "prunes the hopeless arms. Then `over` may have a range, e.g. `training.learning_rate=1e-4..1e-3:log`. The other "
    f"fields are changes that all arms share. {TRAINING} {COMMON} `mantis pipeline submit --parallel` limits the arms "
    "that run at the same time.",
)
def sweep(
    recipe: str = "demo",
    over: str = "training.learning_rate=2e-4,4e-4",
    trials: str = "",
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
    with dsl.ExitHandler(short(finish_sweep(**asked)), name="run"):
        checked = short(preflight_sweep(**asked))
        run, subsets = checked.outputs["run"], checked.outputs["Output"]
        with dsl.If(trials == "", name="grid"):
            prepare_run_and_compare(run, store_url, subsets)
        with dsl.Else(name="search"):
            prepare_search_and_compare(run, store_url, subsets, trials)
