"""Create MLflow's tables once in a process, and copy them into its further databases.

MLflow creates a database by a hundred migrations, two seconds of a core. Most tests of runs begin with an empty store.
"""

import importlib
import sqlite3
import tempfile
from contextlib import closing
from typing import Any

MODULE = "mlflow.store.db.utils"


def copy_tables_after_the_first() -> None:
    """Replace the function by which MLflow creates missing tables. Only an empty file of SQLite gets copies."""
    tables = importlib.import_module(MODULE)
    create = tables._initialize_tables
    kept: list[bytes] = []  # the first database, before anything is written to its tables

    def create_or_copy(engine: Any) -> None:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        if file in (None, "", ":memory:") or not tables._is_empty_database(engine):
            create(engine)
            return
        with closing(sqlite3.connect(file)) as made, closing(sqlite3.connect(":memory:")) as first:
            if kept:
                first.deserialize(kept[0])
                first.backup(made)
            else:
                create(engine)
                kept.append(made.serialize())

    vars(tables)["_initialize_tables"] = create_or_copy


def create_the_first() -> None:
    """Create the tables now, so that forks of this process copy them."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
