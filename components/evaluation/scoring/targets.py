"""What a response is judged against: everything that scoring needs of a sample, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mantis.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# multiple-choice and true-false are answered with an option's letter, short with a word or two, number with a number,
# keywords with a text in which keywords are looked for.
Kind = Literal["multiple-choice", "true-false", "short", "number", "keywords"]
CHOICES: tuple[Kind, ...] = ("multiple-choice", "true-false")
KINDS = frozenset(get_args(Kind))


@dataclass(frozen=True, kw_only=True)
class Target:
    """`answers`: the right option's letter where the kind is a choice, else every text that somebody gave as right.

    `details` are what one metric alone asks for, e.g. the decimals of a MathVista number.
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
        """The right answer as a person reads it."""
        if self.kind in CHOICES or not self.answers:
            return "".join(self.answers[:1])
        return max(self.answers, key=self.answers.count)  # the answer that most annotators gave

    def to_json(self) -> dict[str, Any]:
        """As it stands in a line of responses."""
        return {
            "kind": self.kind,
            "options": list(self.options),
            "answers": list(self.answers),
            "details": dict(self.details),
        }


def parse_target(raw: Any, *, origin: str) -> Target:
    """A target from a line of responses.

    Raises:
        InputError: it is none; `origin` says where it stood.
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
            remedy="Name the benchmark's files, so that targets are read there.",
        ) from None
