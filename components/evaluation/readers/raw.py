"""The raw row that every reader yields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A row as its file holds it. If `missing` gives a reason, the row may lack its images or other parts.

    `origin` names the file and the row for error messages.
    """

    origin: str
    row: Mapping[str, Any] = field(repr=False)
    missing: str = ""
