"""Train a run that is in the store, as its step does, in a process that tests kill.

`python -m tests.helpers.train_stored_run STORE RUN`. An error for people ends it with status 1.
"""

import sys

from components.training.step import mixture_of, train
from mantis.errors import MantisError
from mantis.logging import configure
from mantis.runs.step_runner import open_run


def main(store_url: str, run_id: str) -> None:
    configure()
    run = open_run(run_id, store_url)
    mixture = mixture_of(run)
    assert mixture is not None
    try:
        train(run, mixture)
    except MantisError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
