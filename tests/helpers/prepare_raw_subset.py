"""Prepare the subset `raw`, for tests that kill it.

`python -m tests.helpers.prepare_raw_subset STORE SOURCE FRAGMENT_ROWS WORKERS`
"""

import json
import sys

import lance  # noqa: F401 - what takes seconds is done before the clock of the kill starts

from components.data.prepare.prepare_subset import prepare_subset
from components.data.prepare.row_validator import limits_of
from components.data.sources.find import open_source
from mantis.config.data_settings import DataSettings, SubsetSettings
from mantis.logging import configure
from mantis.store.opening import open_store


def main(store: str, source: str, fragment_rows: str, workers: str) -> None:
    raw = SubsetSettings(name="raw", max_images=5)
    data = DataSettings(subsets=(raw,), max_turn_characters=10_000, max_image_pixels=10**7, max_image_bytes=10**7)
    configure()
    print("ready", flush=True)
    summary = prepare_subset(
        open_store(store),
        "made",
        "raw",
        open_source(source, "raw"),
        limits=limits_of(data, "raw"),
        workers=int(workers),
        fragment_rows=int(fragment_rows),
    )
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
