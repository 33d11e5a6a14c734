"""What every reader yields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A row as its file has it, or, where `missing` says why it cannot be had, as much of it as there is."""

    origin: str
    row: Mapping[str, Any] = field(repr=False)
    missing: str = ""
