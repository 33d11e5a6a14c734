"""Errors that cross a boundary between parts, with a remedy for each.

The command line shows an error of this hierarchy as one paragraph without a traceback. It names the field or file, its
value, and the remedy. Any other exception is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MantisError(Exception):
    """Base of all errors that users see; `remedy` is the next action of the user."""

    exit_code = 1  # exit status of a command that this error ends

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


class ConfigError(MantisError):
    """A recipe, override or parameter is not valid."""


class InputError(MantisError):
    """A raw row, benchmark file or base model cannot be read in its format."""


class StoreError(MantisError):
    """The object store refuses access, cannot be reached, or is full."""


class NotFoundError(StoreError):
    """The store has no object at this key."""


class IntegrityError(MantisError):
    """The bytes of a file differ from the hash in its manifest or COMMIT."""


class VersionError(MantisError):
    """A later version of this program wrote the stored form. The form is intact: nothing may delete or replace it."""


class TrainingError(MantisError):
    """Training stopped: a rank died, the loss is not finite, or a checkpoint cannot be used."""


class ConversionError(MantisError):
    """A checkpoint cannot be converted, or the converted model differs from it."""


class EvaluationError(MantisError):
    """A benchmark, response or metric cannot be evaluated."""


class FamilyError(MantisError):
    """A model family breaks the contract of the protocol Family."""


class TrackingError(MantisError):
    """MLflow refuses access, or cannot be reached."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `Did you mean NAME? ` with the closest known name, as the start of a remedy; empty if no name is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}? " if close else ""
