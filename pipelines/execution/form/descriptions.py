"""The parts that the descriptions of pipelines share. KFP's form shows fields without their meaning.

KFP reads a description as Markdown: outside of backticks, a pair of underscores vanishes.
"""

BLANK_FIELDS = "An empty field means: as the recipe says."
COMMON = (
    f"{BLANK_FIELDS} Fields: `recipe` is the name of a shipped recipe, a store URL or YAML text. `overrides` are "
    "changes of other fields with blanks between them, e.g. `training.seed=2 data.skills=[coref,compare]`. `store_url` "
    "is `s3://bucket/prefix`. `mantis_run` names the results in the store and in MLflow; if it is empty, the name "
    "follows from the recipe. KFP's own run name is free, and decides nothing."
)
TRAINING = (
    "Change `learning_rate` (5e-6), `epochs`, `batch_size` (samples of a step), `nodes` (of a TrainJob) and "
    "`benchmarks` (demo-multi, demo-single) directly."
)
