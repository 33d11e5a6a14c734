"""Loads reasons.yaml: what each reason of a ledger means, and what a person can do."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mantis.config.bounded_yaml import parse_yaml

FILE = Path(__file__).with_name("reasons.yaml")


class Reason(BaseModel):
    """A reason of the ledger. `remedy` is a sentence.

    `counts` says whether a row that is dropped for it counts for `data.max_dropped`. A row that a limit of the recipe
    leaves out does not count, and neither does a second copy of a row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["dropped", "repaired", "noted"]
    meaning: str
    remedy: str = ""
    counts: bool = True


@cache
def reasons() -> dict[str, Reason]:
    """Every reason by its word, in the order of the file."""
    return {word: Reason.model_validate(fields) for word, fields in parse_yaml(FILE.read_text()).items()}


def reason_of(word: str) -> Reason:
    """The reason with this word.

    Raises:
        KeyError: reasons.yaml lacks it, which is an error of this program.
    """
    return reasons()[word]
