"""Train a run that is in the store, as its step would: `train_stored_run.py STORE RUN`; errors for people end it with 1."""

import sys

from components.training.step import train
from mantis.artifacts.manifest import read_manifest
from mantis.errors import MantisError
from mantis.runs.step_runner import open_run, read_record


def main(store_url: str, run_id: str) -> None:
    run = open_run(run_id, store_url)
    record = read_record(run.store, run.id, "assemble")
    try:
        train(run, read_manifest(run.store, record.key))
    except MantisError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
