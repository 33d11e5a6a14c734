"""YAML that kubectl reads as Python wrote it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

# Go's parser reads these as numbers and truth values; PyYAML writes them without quotes, because its own does not.
OTHERWISE_READ = re.compile(r"[-+]?(\d[\d_]*\.?|\.?\d)[\d_]*([eE][-+]?\d+)?|0[box][\da-fA-F_]+|[yYnN]")


class _Dumper(yaml.SafeDumper):
    """Quotes every string that another parser would read as something else."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "'" if OTHERWISE_READ.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def kubernetes_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """Write objects of Kubernetes as YAML documents. Strings such as `1e-05` and `y` are quoted."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False)
