"""Parses YAML that a person or another program wrote, with bounds on its size.

An alias repeats a whole branch, so 358 bytes can stand for gigabytes. Nested brackets end in Python's recursion limit.
"""

from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

LONGEST: Final = 1 << 20  # characters
DEEPEST: Final = 40  # levels of lists and mappings
MOST_VALUES: Final = 100_000  # with each alias written out
SCALAR: Final = 64  # characters that count as a value more


class _BoundedLoader(yaml.SafeLoader):
    """SafeLoader that stops at DEEPEST levels, and counts values with aliases written out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values: dict[int, int] = {}  # number of values in a node, by the node's id

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        alias = self.check_event(yaml.AliasEvent)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._values:
            raise yaml.YAMLError("an alias stands for the branch that it is in")
        if node is not None and id(node) not in self._values:
            self._values[id(node)] = self._count(node)
            if self._values[id(node)] > MOST_VALUES:
                raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return node

    def _count(self, node: Node) -> int:
        if isinstance(node, ScalarNode):
            return 1 + len(node.value) // SCALAR
        inner: list[Node] = []
        if isinstance(node, SequenceNode):
            inner = node.value
        elif isinstance(node, MappingNode):
            inner = [one for pair in node.value for one in pair]
        return 1 + sum(self._values[id(one)] for one in inner)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of at most LONGEST characters, DEEPEST levels and MOST_VALUES values.

    Raises:
        yaml.YAMLError: the text is not YAML, or it breaks a bound. The message is short.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than {LONGEST:,}")
    return yaml.load(text, Loader=_BoundedLoader)
