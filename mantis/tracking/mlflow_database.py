"""The MLflow database in a folder: what it holds follows the folder when that is copied, moved or renamed.

MLflow fixes the artifact location of an experiment and of a run when it creates them, and its client changes neither.
So they hold no address here: `mlflow-artifacts:/<run>/artifacts` means ARTIFACTS/<run>/artifacts beside the database.
`mantis ui` starts MLflow's server with that folder. Without a server, mantis/tracking/mlflow_runs.py writes there.
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
    """Where the artifacts of a run lie whose database is in `folder`; None where its URI names another place."""
    parsed = urlparse(artifact_uri)
    if parsed.scheme != "mlflow-artifacts" or parsed.netloc:
        return None
    return folder / ARTIFACTS / parsed.path.strip("/")


def forget_addresses(folder: Path) -> None:
    """Make what an earlier version wrote into the database relative: it held the address of its store at that time.

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
        raise TrackingError(
            f"{database} cannot be used: {error}.",
            remedy="Check the folder's rights. A broken one can be deleted: runs that are started again send all.",
        ) from None


def _forget_addresses(connection: sqlite3.Connection) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"experiments", "runs", "tags", "model_versions"} <= tables:  # MLflow is just creating it
        return
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        _rewrite(connection, table, column, f"{column} LIKE 'file:%/{ARTIFACTS}%'", _location)
    for column in ("source", "storage_location"):
        condition = f"{column} LIKE 'file:%/models/%'"
        _rewrite(connection, "model_versions", column, condition, lambda uri: possible_keys(uri)[-1])
    # Only the store in this folder wrote such a tag here; a store in a bucket keeps its address.
    condition = f"key = '{STORE_TAG}' AND value LIKE 'file:%'"
    _rewrite(connection, "tags", "value", condition, lambda _: THIS_STORE)


def _rewrite(
    connection: sqlite3.Connection, table: str, column: str, condition: str, new: Callable[[str], str]
) -> None:
    old = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {condition}").fetchall()
    if old:  # else no lock for writing is taken
        changes = [(new(value), row) for row, value in old]
        connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)


def _location(uri: str) -> str:
    return LOCATION + uri.rpartition(f"/{ARTIFACTS}")[2].strip("/")
