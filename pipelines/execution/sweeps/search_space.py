"""The values of `--over`: lists of values, and ranges from which a search takes any value."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mantis.config.overrides import split_outside
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.runs.trials import SweepTrial, TrialState, quiet_study

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"(?P<low>{NUMBER})\.\.(?P<high>{NUMBER})(?P<log>:log)?")
WHOLE = re.compile(r"[+-]?\d+")
DIGITS = 3  # significant digits of a suggested number
OPTUNA_STATES = {TrialState.STARTED: "RUNNING", TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED"}
RANDOM = 5  # trials that the sampler draws at random before it follows the losses

Over = Mapping[str, Sequence[str]]  # by dotted field: the texts of its values, or of one range
Value = float | int | str


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included; `log`: equal ratios are equally likely."""

    low: float | int
    high: float | int
    log: bool


def parse_over(given: Sequence[str]) -> dict[str, list[str]]:
    """Read `FIELD=VALUE,VALUE,...` or `FIELD=LOW..HIGH`. A comma within brackets or quotes belongs to its value.

    Raises:
        ConfigError: a text has no `=` or an empty value, or a field is named twice.
    """
    over: dict[str, list[str]] = {}
    for text in given:
        field, equals, listed = text.partition("=")
        values = [value.strip() for value in split_outside(listed, ",")]
        if not equals or not field.strip() or not all(values):
            raise ConfigError(f"--over {text!r} is no list of values.", remedy="Write --over FIELD=VALUE,VALUE.")
        if field.strip() in over:
            raise ConfigError(f"--over names {field.strip()} twice.", remedy="Write all its values in one --over.")
        over[field.strip()] = values
    return over


def over_of(text: str) -> dict[str, list[str]]:
    """Read the field `over` of KFP's form: what `parse_over` reads, with blanks or lines between the fields.

    Raises:
        ConfigError: as `parse_over`.
    """
    return parse_over([word for word in split_outside(text, " \t\r\n") if word])


def trials_of(text: str) -> int:
    """Read the field `trials` of KFP's form; 0 if it is empty, which means a grid.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    if not text.strip():
        return 0
    if not text.strip().isdecimal() or int(text) == 0:
        raise ConfigError(f"trials = {text!r} is no number of trials.", remedy="Write trials = 8, or leave it empty.")
    return int(text)


def range_of(field: str, values: Sequence[str]) -> Range | None:
    """The range that `--over` gives to `field`; None for a list of values.

    Raises:
        ConfigError: a range stands beside other values, is empty, or has a lower end that `:log` cannot take.
    """
    found = [match for value in values if (match := RANGE.fullmatch(value))]
    if not found:
        return None
    ends = [int(end) if WHOLE.fullmatch(end) else float(end) for end in (found[0]["low"], found[0]["high"])]
    if all(WHOLE.fullmatch(found[0][name]) for name in ("low", "high")):
        made = Range(low=int(ends[0]), high=int(ends[1]), log=found[0]["log"] is not None)
    else:
        made = Range(low=float(ends[0]), high=float(ends[1]), log=found[0]["log"] is not None)
    wrong = "" if len(values) == 1 else "a range stands alone, without other values"
    wrong = wrong or ("" if made.low < made.high else "its lower end must be below its upper end")
    wrong = wrong or ("" if made.low > 0 or not made.log else "its lower end must be above 0 for :log")
    if wrong:
        raise ConfigError(
            f"--over {field}={','.join(values)}: {wrong}.",
            remedy="Write --over FIELD=LOW..HIGH or FIELD=LOW..HIGH:log.",
        )
    return made


def ends_of(over: Over) -> list[tuple[str, str]]:
    """All fields with their values, and the two ends of ranges: what must be valid before a search starts."""
    found = []
    for field, values in over.items():
        given = range_of(field, values)
        found += [(field, value) for value in (values if given is None else map(as_text, (given.low, given.high)))]
    return found


def suggest(over: Over, trials: Sequence[SweepTrial], *, number: int, seed: int) -> dict[str, Value]:
    """Suggest the values of trial `number`, by Optuna's TPE.

    They follow from the seed, the number and the other trials. So a search that runs one trial after another goes on
    after a kill as if it had not been killed. A trial that runs at the same time counts as a bad one (a "constant
    liar"), so that this one explores other values.
    """
    import optuna

    drawn = int(fingerprint([seed, number])[:8], 16)
    study = quiet_study(sampler=optuna.samplers.TPESampler(seed=drawn, n_startup_trials=RANDOM, constant_liar=True))
    space = {field: _distribution(field, values) for field, values in over.items()}
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[OPTUNA_STATES[trial.state]],
                value=trial.loss,
                params=trial.values,
                distributions=space,
                intermediate_values=dict(trial.points),
            )
        )
    suggested = study.ask(space).params
    return {field: _rounded(value, range_of(field, over[field])) for field, value in suggested.items()}


def as_text(value: Value) -> str:
    """The YAML text of a value: a number with an exponent has a decimal point, which YAML asks for."""
    text = str(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _distribution(field: str, values: Sequence[str]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given = range_of(field, values)
    if given is None:
        return CategoricalDistribution(list(values))
    if isinstance(given.low, int) and isinstance(given.high, int):
        return IntDistribution(given.low, given.high, log=given.log)
    return FloatDistribution(given.low, given.high, log=given.log)


def _rounded(value: Value, given: Range | None) -> Value:
    """A readable number within the range; anything else as it is."""
    if given is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), given.low), given.high)
