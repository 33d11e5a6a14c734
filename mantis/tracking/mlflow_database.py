"""Keep the MLflow database of a local folder free of absolute addresses, so that the folder can be copied or moved.

MLflow fixes the artifact location of an experiment and of a run at creation, and its client changes neither. So the
database stores no address: `mlflow-artifacts:/<run>/artifacts` means ARTIFACTS/<run>/artifacts
beside the database. `mantis ui` starts MLflow's server with that folder. Without a server,
mantis/tracking/mlflow_runs.py writes there.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

from mantis.artifacts.layout import possible_keys
from mantis.errors import TrackingError

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
LOCATION = "mlflow-artifacts:/"
STORE_TAG, THIS_STORE = "mantis.store", "."


def artifact_folder(folder: Path, artifact_uri: str) -> Path | None:
    """Return the artifact folder of a run whose database is in `folder`; None if its URI names another place."""
    parsed = urlparse(artifact_uri)
    if parsed.scheme != "mlflow-artifacts" or parsed.netloc:
        return None
    return folder / ARTIFACTS / parsed.path.strip("/")


def forget_addresses(folder: Path) -> None:
    """Replace absolute addresses by relative ones in a database that an earlier version wrote.

    Raises:
        TrackingError: the database cannot be read or written.
    """
    database = folder / DATABASE
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            _forget_addresses(connection)
    except sqlite3.Error as error:
        raise damaged_database(folder, error) from None


def damaged_database(folder: Path, error: Exception) -> TrackingError:
    """Return the error that names the database of `folder` and a remedy; `error` is of sqlite3 or of SQLAlchemy."""
    return TrackingError(
        f"{folder / DATABASE} cannot be used: {getattr(error, 'orig', None) or error}.",
        remedy="Check the folder's permissions, or delete a damaged database: repeated runs send all data again.",
    )


def _forget_addresses(connection: sqlite3.Connection) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"experiments", "runs", "tags", "model_versions"} <= tables:  # MLflow is creating it at this moment
        return
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        _rewrite(connection, table, column, f"{column} LIKE 'file:%/{ARTIFACTS}%'", _location)
    for column in ("source", "storage_location"):
        condition = f"{column} LIKE 'file:%/models/%'"
        _rewrite(connection, "model_versions", column, condition, lambda uri: possible_keys(uri)[-1])
    # In this folder, only its own store wrote such a tag. A store in a bucket keeps its address.
    condition = f"key = '{STORE_TAG}' AND value LIKE 'file:%'"
    _rewrite(connection, "tags", "value", condition, lambda _: THIS_STORE)


def _rewrite(
    connection: sqlite3.Connection, table: str, column: str, condition: str, new: Callable[[str], str]
) -> None:
    old = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {condition}").fetchall()
    if old:  # without changes, take no write lock
        changes = [(new(value), row) for row, value in old]
        connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)


def _location(uri: str) -> str:
    return LOCATION + uri.rpartition(f"/{ARTIFACTS}")[2].strip("/")
