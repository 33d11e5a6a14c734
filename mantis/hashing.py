"""Compute content hashes and fingerprints."""

import hashlib
import json
from pathlib import Path
from typing import Any

FINGERPRINT_DIGITS = 24  # 96 bits: enough against accidental collisions, and short enough for a path


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which is read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of `value`: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return a short hash of a JSON value; equal values give equal fingerprints, whatever the order of their keys."""
    return sha256_bytes(canonical_json(value).encode())[:FINGERPRINT_DIGITS]
