"""Settings of the demo for a whole run of its DAG in a short time: one skill, one benchmark, no controls."""

LITTLE = (
    "--set=data.generated_conversations=320",
    "--set=data.skills=[single]",
    "--set=evaluation.benchmarks=[demo-single]",
    "--set=evaluation.samples_per_skill=10",
    "--set=evaluation.controls=[]",
    "--set=training.global_batch_size=4",
    "--set=training.checkpoint_every=2",
)
