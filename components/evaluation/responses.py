"""Stored responses: parts of a fixed number of samples that are written once and never changed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from components.core.errors import IntegrityError
from components.core.store import ObjectStore

PART = 512  # samples; what a kill costs at most

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Response:
    """A line of `responses/<condition>-<part>.jsonl`; `correct` is by the recipe's scoring profile.

    `images` are the pictures that were shown: [{"path", "sha256"}]. `understood`: strict scoring could make something
    of the response.
    """

    id: str
    skill: str
    question: str
    images: list[dict[str, str]]
    response: str
    answer: str
    correct: bool
    strict: bool
    understood: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part's key in the store and the places of its samples."""

    key: str
    places: list[int]


def parts(prefix: str, condition: str, places: list[int]) -> Iterator[Part]:
    """`places` cut into parts, always in the same way."""
    for number, start in enumerate(range(0, len(places), PART)):
        key = f"{prefix}/responses/{condition}-{number:05d}.jsonl"
        yield Part(key=key, places=places[start : start + PART])


def stored_or_made(
    store: ObjectStore, part: Part, ids: list[str], make: Callable[[], list[Response]]
) -> list[Response]:
    """The part's responses: read where it is there, else made and written.

    Raises:
        IntegrityError: what is there answers other samples than `ids`.
    """
    if store.stat(part.key) is None:
        made = make()
        lines = [json.dumps(asdict(response), ensure_ascii=False) for response in made]
        store.put(part.key, ("\n".join(lines) + "\n").encode())
        return made
    try:
        found = [Response(**json.loads(line)) for line in store.get(part.key).decode().splitlines()]
    except (ValueError, TypeError):
        found = []
    if [response.id for response in found] != ids:
        raise IntegrityError(
            f"{store.uri(part.key)} does not hold the responses that were written there.",
            remedy="Delete it; the same command makes it again.",
        )
    return found
