"""The Job make-users of the manifests, run against a MinIO on loopback."""

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest import mock

from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY
from tests.helpers.paths import ROOT

SCRIPT = ROOT / "manifests/base/bootstrap/make_users.py"
WRITER = ("mantis", "the secret key of the writer")
RESULTS = ("mantis-results", "the secret key of the steps that evaluate")
READER = ("mantis-read", "the secret key of the reader")


def make_users(folder: Path, url: str) -> Any:
    """Create bucket and users as the Job does, with its Secrets in `folder`; returns the script's module."""
    secrets = {
        "store/endpoint": url,
        "store/user": WRITER[0],
        "store/password": WRITER[1],
        "store-results/user": RESULTS[0],
        "store-results/password": RESULTS[1],
        "store-read/user": READER[0],
        "store-read/password": READER[1],
        "minio-root/user": ACCESS_KEY,
        "minio-root/password": SECRET_KEY,
    }
    for name, value in secrets.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
    with mock.patch.dict(os.environ, {"NAMESPACE": "mantis", "SECRETS": str(folder)}):
        specification = importlib.util.spec_from_file_location("make_users", SCRIPT)
        assert specification is not None
        assert specification.loader is not None
        module: Any = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    module.set_up_minio()
    return module
