"""The words and rows of a ranking and of trials, for HTML, Markdown and the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.reporting.arm_ranking import FieldEffect, RankedArm, Ranking
from components.reporting.render import formatting
from mantis.runs.arms import changes_in_words
from mantis.runs.trials import SweepTrial, TrialState
from mantis.statistics import Paired

NAMED = 3  # runs that a sentence names at most; more are counted, because the table of the ranking names them


def ranking_verdicts(ranking: Ranking) -> list[str]:
    """Say which arm is best, how sure that is, and which values are better."""
    return [*ranking_summary(ranking), *effect_verdicts(ranking)]


def ranking_summary(ranking: Ranking) -> list[str]:
    """Say which arm is best, and how sure that is. The number of sentences does not grow with that of the arms."""
    best, *others = ranking.arms
    benchmarks = "on" if len(ranking.benchmarks) == 1 else "as the mean over"
    first = (
        f"{_named(best)} has the highest accuracy of {len(ranking.arms)} runs: {formatting.percent(best.accuracy)} % "
        f"{benchmarks} {_listed(ranking.benchmarks)}."
    )
    return [first, *_certainty(ranking, others)]


def effect_verdicts(ranking: Ranking) -> list[str]:
    """Say of each two values of a field which one is better."""
    return [_effect(effect) for effect in ranking.effects]


def trial_verdicts(trials: Sequence[SweepTrial]) -> list[str]:
    """Say which trial of a search has the lowest held-out loss; nothing without complete trials."""
    complete = [trial for trial in trials if trial.loss is not None]
    if not complete:
        return []
    best = min(complete, key=lambda trial: trial.loss or 0.0)
    pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
    named = f"{best.run} ({changes_in_words(best.changes)})"
    return [
        f"{named} has the lowest held-out loss of {formatting.counted(len(complete), 'complete trial')}: "
        f"{formatting.short(best.loss)}. {pruned} of {formatting.counted(len(trials), 'trial')} "
        f"{'was' if pruned == 1 else 'were'} pruned."
    ]


def _certainty(ranking: Ranking, others: Sequence[RankedArm]) -> list[str]:
    tests = {each.arm.run: ranking.test_against_best(each.arm.run) for each in others}
    sure = [run for run, test in tests.items() if test is not None and test.significant and test.difference > 0]
    unsure = [run for run, test in tests.items() if test is not None and run not in sure]
    apart = [run for run, test in tests.items() if test is None]
    largest = max((test.corrected_p for run, test in tests.items() if test is not None and run in sure), default=None)
    said = []
    if sure:
        whole = "every other run" if len(sure) == len(tests) else _named_or_counted(sure, len(tests))
        said.append(f"It is significantly better than {whole} ({_at_most(largest)}).")
    if len(unsure) > NAMED and len(unsure) == len(tests):
        said.append(f"It is not significantly better than any of the {len(tests)} other runs.")
    elif unsure:
        said.append(f"The difference to {_named_or_counted(unsure, len(tests))} is not significant.")
    if apart:
        said.append(f"It shares no sample with {_named_or_counted(apart, len(tests))}, so they cannot be compared.")
    return said


def _named_or_counted(runs: Sequence[str], others: int) -> str:
    return _listed(runs) if len(runs) <= NAMED else f"{len(runs)} of the {others} other runs"


def _at_most(p: float | None) -> str:
    said = formatting.probability(p)
    return f"{said} at most" if "=" in said else said


def _effect(effect: FieldEffect) -> str:
    better, worse = (effect.value, effect.rather_than)
    if effect.paired.difference < 0:
        better, worse = worse, better
    how = "significantly better" if effect.paired.significant else "not significantly better"
    size = formatting.points(100 * abs(effect.paired.difference))
    p = formatting.probability(effect.paired.corrected_p)
    return (
        f"{effect.field} = {better} is {how} than {worse}: {size} points, {p}, over {len(effect.each)} pairs of runs."
    )


def rank_rows(ranking: Ranking) -> list[list[str]]:
    """The rows of the table RANKED."""
    return [
        [
            each.arm.run,
            changes_in_words(each.changes),
            formatting.short(held_out_loss(each.arm.summary)),
            formatting.percent(each.accuracy),
            _difference(ranking.test_against_best(each.arm.run)),
        ]
        for each in ranking.arms
    ]


def effect_rows(ranking: Ranking) -> list[list[str]]:
    """The rows of the table EFFECT."""
    return [
        [
            effect.field,
            effect.value,
            effect.rather_than,
            _difference(effect.paired),
            ", ".join(formatting.points(100 * difference) for difference in effect.each),
        ]
        for effect in ranking.effects
    ]


def trial_rows(trials: Sequence[SweepTrial]) -> list[list[str]]:
    """The rows of the table TRIAL."""
    rows = []
    for trial in trials:
        step, last = trial.points[-1] if trial.points else (None, None)
        pruned = trial.state is TrialState.PRUNED
        state = f"pruned after step {step:,}" if pruned and step is not None else trial.state.value
        loss = formatting.short(last if pruned else trial.loss)
        rows.append([str(trial.number + 1), trial.run, changes_in_words(trial.changes), state, loss])
    return rows


def ranking_data(ranking: Ranking | None) -> dict[str, Any] | None:
    """The ranking for JSON; accuracies and differences are shares, losses nats."""
    if ranking is None:
        return None
    return {
        "benchmarks": list(ranking.benchmarks),
        "arms": [
            {
                "run": each.arm.run,
                "changes": dict(each.changes),
                "accuracy": each.accuracy,
                "held_out_loss": held_out_loss(each.arm.summary),
            }
            for each in ranking.arms
        ],
        "pairs": [{"higher": pair.higher, "lower": pair.lower, **_test(pair.paired)} for pair in ranking.pairs],
        "effects": [
            {
                "field": effect.field,
                "value": effect.value,
                "rather_than": effect.rather_than,
                **_test(effect.paired),
                "each": list(effect.each),
            }
            for effect in ranking.effects
        ],
    }


def trial_data(trials: Sequence[SweepTrial]) -> list[dict[str, Any]]:
    """The trials for JSON."""
    return [trial.model_dump(mode="json", exclude={"schema_version"}) for trial in trials]


def held_out_loss(summary: Mapping[str, Any]) -> float | None:
    """The last held-out loss of a training, from its summary; None if there was no evaluation."""
    found = summary.get("last_held_out_loss")
    return None if found is None else float(found)


def _named(each: RankedArm) -> str:
    return f"{each.arm.run} ({changes_in_words(each.changes)})" if each.changes else each.arm.run


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _difference(paired: Paired | None) -> str:
    """Write `+3.2 (+1.1 to +5.4), p = 0.002`; empty without a test."""
    if paired is None:
        return ""
    middle, low, high = (formatting.points(100 * value) for value in (paired.difference, paired.low, paired.high))
    return f"{middle} ({low} to {high}), {formatting.probability(paired.corrected_p)}"


def _test(paired: Paired | None) -> dict[str, Any]:
    names = ("difference", "low", "high", "p", "corrected_p", "test", "significant")
    return {name: getattr(paired, name, None) for name in names}
