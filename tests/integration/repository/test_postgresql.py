"""MLflow's runs and users in a real PostgreSQL, by the component manifests/own/postgresql/users."""

import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import yaml

from tests.helpers.backup import run_job
from tests.helpers.bootstrap import READER, make_users
from tests.helpers.paths import ROOT
from tests.helpers.postgresql import postgresql
from tests.helpers.tracking_server import settings, tracking_server
from tests.integration.repository.test_restore import client, copy, secrets

pytestmark = pytest.mark.slow
__all__ = ["copy"]

ADA = ("ada", "of 12 characters at least")


def with_users(folder: Path, database: str) -> dict[str, str]:
    """What the pod of the component has: the database, and the file that its init container writes."""
    (given,) = yaml.safe_load((ROOT / "manifests/own/postgresql/users/kustomization.yaml").read_text())["patches"]
    patch = yaml.safe_load(given["patch"])["spec"]["template"]["spec"]
    (init,) = patch["initContainers"]
    script = init["command"][-1].replace("/etc/mlflow/", f"{folder}/").replace("/tmp/auth.ini", f"{folder}/users.ini")
    settings(folder)  # writes auth.ini
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"MLFLOW_BACKEND_STORE_URI": database}, check=True)
    assert (folder / "users.ini").stat().st_mode & 0o077 == 0
    (entry,) = patch["containers"][0]["env"]
    return {"MLFLOW_BACKEND_STORE_URI": database, entry["name"]: str(folder / "users.ini")}


def fresh(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_runs_and_users_survive_the_loss_of_the_volume(tmp_path: Path) -> None:
    with postgresql() as database:
        folder = fresh(tmp_path / "first")
        with tracking_server(folder, given=with_users(folder, database)) as server:
            server.call("users/create", {"username": ADA[0], "password": ADA[1]})
            made = server.call("runs/create", {"experiment_id": "0", "run_name": "of before"})["run"]["info"]["run_id"]
        assert not list(folder.glob("*.db"))
        folder = fresh(tmp_path / "second")
        with tracking_server(folder, given=with_users(folder, database)) as server:
            found = server.call("runs/search", {"experiment_ids": ["0"]}, user=ADA)["runs"]
            assert [run["info"]["run_id"] for run in found] == [made]
            with pytest.raises(urllib.error.HTTPError, match="401"):
                server.call("runs/search", {"experiment_ids": ["0"]}, user=(ADA[0], "another password"))


def test_the_back_up_of_postgresql_restores_runs_and_users(tmp_path: Path, copy: str) -> None:
    from tests.fixtures.stores import running_minio

    with running_minio(tmp_path / "minio") as store:
        make_users(tmp_path / "secrets", store)
        assert client(store).bucket_exists("mantis")
        given = {name: dict(values) for name, values in secrets(store, copy).items()}
        assert given["mantis-store-read"]["AWS_ACCESS_KEY_ID"] == READER[0]
        with postgresql() as database:
            folder = fresh(tmp_path / "lost")
            with tracking_server(folder, given=with_users(folder, database)) as server:
                server.call("users/create", {"username": ADA[0], "password": ADA[1]})
                made = server.call("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
                run_job("back-up", given | {"mantis-mlflow-server": {"MLFLOW_BACKEND_STORE_URI": database}}, folder)
        with postgresql() as database:
            folder = fresh(tmp_path / "new")
            run_job("restore", given | {"mantis-mlflow-server": {"MLFLOW_BACKEND_STORE_URI": database}}, folder)
            with tracking_server(folder, given=with_users(folder, database)) as server:
                found = server.call("runs/search", {"experiment_ids": ["0"]}, user=ADA)["runs"]
                assert [run["info"]["run_id"] for run in found] == [made]
