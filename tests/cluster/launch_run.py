"""The step `train` of a run whose mixture is there, as a process that can be killed: launch_run.py STORE RUN."""

import sys

from components.core.artifacts import read_manifest
from components.core.errors import MantisError
from components.core.steps import open_run, read_record
from components.training.step import train

run = open_run(sys.argv[2], sys.argv[1])
record = read_record(run.store, run.id, "assemble")
mixture = read_manifest(run.store, record.key)
try:
    train(run, mixture)
except MantisError as error:
    sys.exit(f"failed: {error}")
