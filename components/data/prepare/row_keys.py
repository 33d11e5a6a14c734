"""Judges the keys that the form of a row leaves over: used here, harmless, or unknown. known_keys.yaml lists them."""

import math
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import NestedKeys, is_there
from mantis.config.bounded_yaml import parse_yaml

FILE = Path(__file__).with_name("known_keys.yaml")
SHOWN_KEYS = 5  # in a message
FLAGS: dict[Any, bool] = {True: True, False: False}  # 1 and 0, too, since they equal True and False


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    harmless: frozenset[str]


class RowKeys(_Keys):
    """Keys of rows. `refused` has reasons of the ledger, each with the keys that give it."""

    weight: str
    refused: dict[str, frozenset[str]]


class TurnKeys(_Keys):
    """Keys of turns."""

    learned: tuple[str, ...]


@cache
def known_keys() -> tuple[RowKeys, TurnKeys]:
    """The known keys of rows, and those of turns."""
    raw = parse_yaml(FILE.read_text())
    return RowKeys.model_validate(raw["row"]), TurnKeys.model_validate(raw["turn"])


@cache
def nested_notes() -> frozenset[str]:
    """The harmless keys of content parts, images and videos."""
    return _Keys.model_validate(parse_yaml(FILE.read_text())["nested"]).harmless


def row_weight(unused: Mapping[str, Any], ignore: frozenset[str]) -> float:
    """The weight of a row's loss, from the keys that its form left over; 1 if none of them states it.

    Raises:
        RowRejected: a key is unknown or refused, or the weight is malformed.
    """
    if not unused:
        return 1.0
    keys, _ = known_keys()
    there = _there(unused, ignore)
    for reason, words in keys.refused.items():
        if found := [key for key in there if key in words]:
            raise RowRejected(reason, value=", ".join(found))
    _require_known("row", there, {keys.weight, *keys.harmless})
    return _weight(there[keys.weight]) if keys.weight in there else 1.0


def turn_learned(where: str, role: str, unused: Mapping[str, Any], ignore: frozenset[str]) -> bool:
    """Whether the loss counts a turn, by the keys that its form left over.

    Raises:
        RowRejected: a key is unknown, or a flag is malformed, contradicts another one, or asks to learn another turn
            than the assistant's.
    """
    if not unused:
        return True
    _, keys = known_keys()
    there = _there(unused, ignore)
    _require_known(where, there, {*keys.learned, *keys.harmless})
    flags = {key: _flag(where, key, there[key]) for key in keys.learned if key in there}
    if len(set(flags.values())) > 1:
        raise RowRejected("loss-malformed", value=f"{where}: {' and '.join(flags)} differ", threshold="one of them")
    learned = all(flags.values())
    if flags and learned and role != "assistant":
        threshold = "the assistant's turns alone are learned"
        raise RowRejected("loss-malformed", value=f"{where}: {next(iter(flags))} of the {role}", threshold=threshold)
    return learned


def require_nested_known(nested: Iterable[NestedKeys], ignore: frozenset[str]) -> None:
    """Check the keys that are not read of content parts, images and videos.

    Raises:
        RowRejected: a key is unknown.
    """
    for mapping in nested:
        _require_known(mapping.where, _there(mapping.unused, ignore), nested_notes())


def _there(unused: Mapping[str, Any], ignore: frozenset[str]) -> dict[str, Any]:
    """The keys with a value. A table that unites several sources has null or nothing under the keys of the others."""
    return {key: value for key, value in unused.items() if key not in ignore and is_there(value)}


def _require_known(where: str, there: Mapping[str, Any], known: Set[str]) -> None:
    if unknown := [str(key) for key in there if key not in known]:
        named = ", ".join(map(repr, unknown[:SHOWN_KEYS]))
        raise RowRejected("key-unknown", value=f"{where}: {named}", threshold="data.ignore names it")


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise RowRejected("weight-malformed", value=repr(value), threshold="a finite number above 0")
    return float(value)


def _flag(where: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool | int | float) or value not in FLAGS:
        raise RowRejected("loss-malformed", value=f"{where}: {key} = {value!r}", threshold="true or false")
    return FLAGS[value]
