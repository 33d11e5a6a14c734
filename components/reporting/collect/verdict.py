"""Summarize the scores in plain words."""

from collections.abc import Sequence

from components.reporting.collect.report_schema import RunReport
from mantis.artifacts.scores import Score, suspicious_controls


def verdict(rows: Sequence[Score]) -> str:
    """Write a few sentences: the skills without readable answers, the number above chance, and the controls.

    `rows` may include those of whole benchmarks. They count where a control is above chance.
    """
    scores = [row for row in rows if not row.overall]
    if not scores:
        return "The run has no scores, so this report cannot judge the model."
    unreadable, readable = _unreadable(scores), [score for score in scores if not score.unreadable]
    if not readable:
        return f"{unreadable}, so this report cannot judge the model."
    return f"{unreadable}. {_judged(rows, readable)}" if unreadable else _judged(rows, readable)


def _unreadable(scores: Sequence[Score]) -> str:
    """The verdict on results whose answers were mostly not parsed; empty without such results."""
    found = [score for score in scores if score.unreadable]
    if not found:
        return ""
    unparsed, asked = sum(score.unparsed or 0 for score in found), sum(score.samples for score in found)
    some = f"all {len(scores)}" if len(found) == len(scores) else f"{len(found)} of {len(scores)}"
    which = "the one skill" if len(scores) == 1 else f"{some} skills"
    return f"Most responses of {which} hold no answer that could be read ({unparsed:,} of {asked:,})"


def _judged(rows: Sequence[Score], scores: Sequence[Score]) -> str:
    skills, controls = _skills(scores), " and ".join(sorted({name for score in rows for name in score.controls()}))
    suspicious = [f"{score.title} ({name})" for score, name in suspicious_controls(rows)]
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
