"""Train a run that is in the store, as its step does, in a process that tests kill.

`python -m tests.helpers.train_stored_run STORE RUN`. An error for people ends it with status 1.
"""

import sys

from components.training.step import train
from mantis.artifacts.manifest import read_manifest
from mantis.errors import MantisError
from mantis.runs.step_runner import open_run, read_record


def main(store_url: str, run_id: str) -> None:
    run = open_run(run_id, store_url)
    record = read_record(run.store, run.id, "assemble")
    assert record is not None
    mixture = read_manifest(run.store, key_of(run.store, record.uri))
    assert mixture is not None
    try:
        train(run, mixture)
    except MantisError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
