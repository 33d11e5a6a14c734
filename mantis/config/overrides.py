"""Fields of a recipe by their dotted names, and those that a command sets: `--set a.b=value`."""

import contextlib
import re
from typing import Any

import yaml

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.validation_errors import shortened
from mantis.errors import ConfigError

OPENING, CLOSING = "[{(", "]})"
# A quoted text, which may lack its end, or one other character. Between double quotes, a backslash takes the meaning
# from the next character, as in YAML and JSON.
PIECE = re.compile(r'"(?:\\.|[^"\\])*"?' + r"|'[^']*'?" + "|.", re.DOTALL)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to their leaves, by dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    pairs = ((f"{prefix}.{key}" if prefix else str(key), inner) for key, inner in value.items())
    return {name: leaf for key, inner in pairs for name, leaf in flat(inner, key).items()}


def set_field(raw: dict[str, Any], dotted: str, value: str) -> None:
    """Set the field with the dotted name `dotted` in the mapping `raw`, in place. `value` is YAML.

    Raises:
        ConfigError: `value` is not YAML, or a parent of the field is a single value.
    """
    node: Any = raw
    *parents, last = dotted.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {dotted}: {parent} is a single value.", remedy="Set the field itself, as YAML.")
    try:
        parsed = parse_yaml(value)
    except yaml.YAMLError:
        raise ConfigError(
            f"--set {dotted}: {shortened(value)} is not YAML.", remedy="Quote the value, e.g. --set 'a.b=[1, 2]'."
        ) from None
    # YAML 1.1 parses 5e-6 as text, but it means a number.
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    node[last] = parsed


def split_outside(text: str, separators: str) -> list[str]:
    """Split `text` at each of the characters `separators` that stands outside of brackets and quotes."""
    parts, depth = [""], 0
    for piece in PIECE.findall(text):
        depth += (piece in OPENING) - (piece in CLOSING)
        if piece in separators and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return parts
