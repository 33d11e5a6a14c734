"""What an earlier version wrote into a store's MLflow database, after the store was renamed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mantis.errors import TrackingError
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_database import artifact_folder, forget_addresses
from mantis.tracking.mlflow_runs import RUN_TAG, open_tracked_run, record_run
from tests.helpers.paths import root_of


def test_a_database_with_addresses_follows_its_store(run: Run, tmp_path: Path) -> None:
    folder = root_of(run.store)
    folder.mkdir()
    former = "file:///former/place/models/.mantis"
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment(run.recipe.tracking.experiment, f"{former}/mlflow-artifacts")
    tags = {RUN_TAG: run.id, "mantis.store": former}
    old = client.create_run(experiment, run_name=run.id, tags=tags).info.run_id
    client.create_registered_model("demo")
    client.create_model_version("demo", source=f"{former}/models/0123", run_id=old)

    tracked = open_tracked_run(run)
    assert tracked.id == old
    assert client.get_run(old).info.artifact_uri == f"mlflow-artifacts:/{old}/artifacts"
    assert client.get_experiment(experiment).artifact_location == "mlflow-artifacts:/"
    assert client.get_model_version("demo", "1").source == "models/0123"

    report = tmp_path / "report.md"
    report.write_text("text")
    record_run(tracked, scores={}, tags={}, dataset=None, files=[report])
    assert (folder / "mlflow-artifacts" / old / "artifacts" / "report.md").read_text() == "text"
    assert client.get_run(old).data.tags["mantis.store"] == "."


def test_a_run_of_a_bucket_keeps_its_store(tmp_path: Path) -> None:
    """Runs of several buckets share the database in the current folder, so their tags tell them apart."""
    folder = tmp_path / ".mantis"
    folder.mkdir()
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    tagged = client.create_run(client.create_experiment("x"), tags={"mantis.store": "s3://a/b"}).info.run_id
    forget_addresses(folder)
    assert client.get_run(tagged).data.tags["mantis.store"] == "s3://a/b"


def test_locations_of_others_are_left_alone(tmp_path: Path) -> None:
    assert artifact_folder(tmp_path, "s3://bucket/1/artifacts") is None
    assert artifact_folder(tmp_path, "mlflow-artifacts://host/1/artifacts") is None


def test_a_database_with_some_of_its_tables_is_named(run: Run) -> None:
    """As a process leaves it that was killed while it made the tables."""
    database = root_of(run.store) / "mlflow.db"
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE params (run_uuid VARCHAR)")
        connection.execute("CREATE TABLE latest (run_uuid VARCHAR)")
        connection.execute("CREATE INDEX index_latest_metrics_run_uuid ON latest (run_uuid)")
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: .*already exists") as refused:
        open_tracked_run(run)
    assert "delete a damaged database" in str(refused.value)
