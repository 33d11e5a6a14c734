"""Parse YAML files of several documents with libyaml, which is ten times as fast as PyYAML's own parser."""

from typing import Any

import yaml

from mantis.config.bounded_yaml import LOADER


def documents(text: str) -> list[Any]:
    """The documents of a YAML text; empty ones are None."""
    return list(yaml.load_all(text, Loader=LOADER))
