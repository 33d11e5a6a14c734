"""Summarize the scores in plain words."""

from collections.abc import Sequence

from components.reporting.collect.report_schema import RunReport
from mantis.artifacts.scores import Score


def verdict(scores: Sequence[Score]) -> str:
    """Write one or two sentences: the number of skills above chance, and whether the controls stay at chance."""
    if not scores:
        return "The run has no scores, so this report cannot judge the model."
    skills, controls = _skills(scores), " and ".join(sorted({name for score in scores for name in score.controls()}))
    suspicious = [f"{score.title} ({name})" for score in scores for name in score.suspicious_controls()]
    if not controls:
        return f"{skills}. No controls were run, so the scores may not come from the images."
    if suspicious:
        who = "a control is" if len(suspicious) == 1 else f"{len(suspicious)} controls are"
        return (
            f"{skills}. But {who} above chance, so part of it does not come from the images: {', '.join(suspicious)}."
        )
    those = f"{controls} controls are" if " and " in controls else f"{controls} control is"
    if any(score.above_chance for score in scores):
        return f"{skills}; the {those} not."
    return f"{skills}. The {those} not above chance either."


def context(report: RunReport) -> str:
    """Write the extent of the training; empty if it is unknown."""
    training = report.training
    if training is None or training.steps is None or training.samples is None:
        return ""
    steps = "1 step" if training.steps == 1 else f"{training.steps:,} steps"
    return f"Trained for {steps} on {training.samples:,} samples."


def _skills(scores: Sequence[Score]) -> str:
    above, asked = sum(score.above_chance for score in scores), len(scores)
    if above == 0:
        none = "The one skill is not" if asked == 1 else f"None of the {asked} skills is"
        return f"{none} above chance: the model is no better than guessing"
    if above == asked:
        return "The one skill is above chance" if asked == 1 else f"All {asked} skills are above chance"
    return f"{above} of {asked} skills {'is' if above == 1 else 'are'} above chance"
