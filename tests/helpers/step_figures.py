"""The figures of a step, for tests of what rows, callbacks and metrics make of them."""

from components.training.monitoring.step_metrics import StepFigures

FIGURES = StepFigures(
    loss=1.0,
    learning_rate=0.1,
    gradient_norm=1.0,
    samples=4,
    tokens=40,
    micro_steps=2,
    idle=0.1,
    seconds=0.5,
    data_seconds=0.1,
    flops=6e9,
    tokens_computed=50,
    patches=20,
    patches_computed=25,
)
