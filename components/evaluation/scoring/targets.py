"""The target of a response: the parts of a sample that scoring needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mantis.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The answer to each kind: multiple-choice and true-false an option's letter, short a word or two, number a number,
# keywords a text that is searched for keywords.
Kind = Literal["multiple-choice", "true-false", "short", "number", "keywords"]
CHOICES: tuple[Kind, ...] = ("multiple-choice", "true-false")
KINDS = frozenset(get_args(Kind))


@dataclass(frozen=True, kw_only=True)
class Target:
    """The right answers of a sample.

    `answers` holds the right option's letter if the kind is a choice, else every text that counts as right. `details`
    holds values for a single metric, e.g. the decimals of a MathVista number.
    """

    kind: Kind
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def letters(self) -> str:
        """The options' letters."""
        return LETTERS[: len(self.options)]

    def shown(self) -> str:
        """The right answer as text for a report."""
        if self.kind in CHOICES or not self.answers:
            return "".join(self.answers[:1])
        return max(self.answers, key=self.answers.count)  # the answer that most annotators gave

    def to_json(self) -> dict[str, Any]:
        """The target as JSON, for a line of responses."""
        return {
            "kind": self.kind,
            "options": list(self.options),
            "answers": list(self.answers),
            "details": dict(self.details),
        }


def parse_target(raw: Any, *, origin: str) -> Target:
    """Parse the target in a line of responses. `origin` names the line for the error.

    Raises:
        InputError: the value is no target.
    """
    try:
        if raw["kind"] not in KINDS:
            raise ValueError(f"kind = {raw['kind']!r}")
        return Target(
            kind=raw["kind"],
            options=tuple(raw["options"]),
            answers=tuple(raw["answers"]),
            details=raw["details"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{origin}: target is wrong ({type(error).__name__}: {error}).",
            remedy="Name the benchmark's files. Targets are then read from them.",
        ) from None
