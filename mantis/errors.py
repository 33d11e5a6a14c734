"""The errors that cross a boundary between parts, and what a person should do about each.

An error of this hierarchy is shown as one paragraph without a traceback: it names the field or file, the
value found there, and the remedy. Anything else that is raised is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MantisError(Exception):
    """Base of all errors that are shown to a person; `remedy` says what to do next."""

    exit_code = 1  # of the command that ends with it

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


class ConfigError(MantisError):
    """A recipe, override or parameter that means nothing here."""


class InputError(MantisError):
    """Raw data, a benchmark file or a base model that cannot be read as what it claims to be."""


class StoreError(MantisError):
    """The object store refused, is away, or is full."""


class NotFoundError(StoreError):
    """No object at this key."""


class IntegrityError(MantisError):
    """Bytes that are not the ones a manifest or COMMIT promised."""


class VersionError(MantisError):
    """A stored form that a later version of this program wrote. It is whole: nothing may delete or replace it."""


class TrainingError(MantisError):
    """Training stopped: a rank died, the loss is not finite, or a checkpoint cannot be used."""


class ConversionError(MantisError):
    """A checkpoint that cannot be converted, or a converted model that is not equal to it."""


class EvaluationError(MantisError):
    """A benchmark, response or metric that cannot be evaluated."""


class FamilyError(MantisError):
    """A model family does not keep what the protocol Family promises."""


class TrackingError(MantisError):
    """MLflow refused or is away."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean NAME? ` with the closest known name, for the front of a remedy; empty if no name is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}? " if close else ""
