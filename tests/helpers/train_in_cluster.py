"""The step `train` of a run whose mixture is there, as a process that can be killed: launch_run.py STORE RUN."""

import sys

from components.training.step import train
from mantis.artifacts.manifest import read_manifest
from mantis.errors import MantisError
from mantis.runs.step_runner import open_run, read_record

run = open_run(sys.argv[2], sys.argv[1])
record = read_record(run.store, run.id, "assemble")
mixture = read_manifest(run.store, record.key)
try:
    train(run, mixture)
except MantisError as error:
    sys.exit(f"failed: {error}")
