"""Reads a JSON list of rows with image files beside it: generated tasks and home-made benchmarks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.readers.raw import Raw
from mantis.errors import InputError


def raw_rows(folder: Path, files: tuple[str, ...]) -> Iterator[Raw]:
    """Yield every row of the only file in `files`.

    Raises:
        InputError: the file is missing, is not JSON, or holds no list of objects.
    """
    file = folder / files[0]
    for number, row in enumerate(_json_list(file)):
        if not isinstance(row, dict):
            raise InputError(
                f"{file}, row {number} is {type(row).__name__}, not an object.", remedy="Write an object per sample."
            )
        yield Raw(origin=f"{file}, row {number}", row=row)


def _json_list(file: Path) -> list[Any]:
    try:
        raw = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}.",
            remedy="Set evaluation.source to a folder that holds, for each benchmark, a folder with this file.",
        ) from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.", remedy="Correct the file.") from None
    if not isinstance(raw, list) or not raw:
        raise InputError(f"{file} holds no list of samples.", remedy="Write a JSON list with an object per sample.")
    return raw
