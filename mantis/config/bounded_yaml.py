"""Parses YAML that a person or another program wrote, with bounds on its size.

An alias repeats a whole branch, so 358 bytes can stand for gigabytes. Nested brackets end in Python's recursion limit.
"""

from typing import Any, Final

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent

LONGEST: Final = 1 << 20  # characters
DEEPEST: Final = 40  # levels of lists and mappings
MOST_VALUES: Final = 100_000  # with each alias written out
SCALAR: Final = 64  # characters that count as a value more
# libyaml parses ten times as fast as PyYAML's own parser. PyYAML's wheels have it.
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Bounds:
    """Follows the events of a document, and counts its values with aliases written out. Nothing is built yet."""

    def __init__(self) -> None:
        self._open: list[tuple[str | None, int]] = []  # of each open branch: its anchor, and its values so far
        self._values: dict[str, int | None] = {}  # number of values in a branch, by its anchor; None while it is open

    def follow(self, event: Event) -> None:
        """Take the next event.

        Raises:
            yaml.YAMLError: the document breaks a bound.
        """
        if isinstance(event, CollectionStartEvent):
            self._enter(event.anchor)
            self._open.append((event.anchor, 1))
        elif isinstance(event, ScalarEvent):
            self._enter(None)
            self._add(event.anchor, 1 + len(event.value) // SCALAR)
        elif isinstance(event, AliasEvent):
            self._enter(None)
            self._add(None, self._of_alias(event))
        elif isinstance(event, CollectionEndEvent):
            self._add(*self._open.pop())

    def _enter(self, anchor: str | None) -> None:
        if len(self._open) >= DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        if anchor is not None:
            self._values[anchor] = None

    def _of_alias(self, event: AliasEvent) -> int:
        values = self._values.get(str(event.anchor), 0)  # the loader refuses an alias without an anchor
        if values is None:
            raise yaml.YAMLError("an alias stands for the branch that it is in")
        return values

    def _add(self, anchor: str | None, values: int) -> None:
        if values > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        if anchor is not None:
            self._values[anchor] = values
        if self._open:
            outer, before = self._open[-1]
            self._open[-1] = (outer, before + values)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of at most LONGEST characters, DEEPEST levels and MOST_VALUES values.

    Raises:
        yaml.YAMLError: the text is not YAML, or it breaks a bound. The message is short.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than {LONGEST:,}")
    bounds = _Bounds()
    for event in yaml.parse(text, Loader=LOADER):
        bounds.follow(event)
    return yaml.load(text, Loader=LOADER)
