"""Copy the bucket and MLflow to another S3 service, or bring them back: `back_up.py back-up | restore`.

rclone copies. The copy has the folders `bucket` (as the bucket is now), `mlflow` (its databases and artifacts) and
`old/<time>` (everything that a later back-up replaced or deleted). So a wrong `mantis gc --delete` costs nothing until
KEEP_DAYS have passed.

rclone reads the remotes `from` and `to` from the environment: RCLONE_CONFIG_FROM_ENDPOINT and so on. Other variables:
BUCKET (of the store), COPY (bucket of the back-up), DATA (MLflow's volume), KEEP_DAYS, MLFLOW_BACKEND_STORE_URI.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

DATA = Path(os.environ.get("DATA", "/data"))
STORE = f"from:{os.environ['BUCKET']}"
COPY = f"to:{os.environ['COPY']}"
KEEP_DAYS = int(os.environ.get("KEEP_DAYS", "14"))
DATABASE = os.environ.get("MLFLOW_BACKEND_STORE_URI", "")
DUMP = "postgresql.dump"
# An object that is written again may keep its size, and MinIO's own time needs no further request.
CHANGED = ("--update", "--use-server-modtime")
ENTRANCE = "--s3-no-check-bucket"  # the keys may not create buckets


def rclone(*arguments: str) -> None:
    """Run rclone, with its summary in the log.

    Raises:
        subprocess.CalledProcessError: objects are missing after three tries.
    """
    subprocess.run(["rclone", "--stats=60s", "--stats-one-line", "-v", ENTRANCE, *arguments], check=True)


def back_up() -> None:
    """Copy what changed since the last back-up, and delete old versions that are too old."""
    old = f"{COPY}/old/{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    with tempfile.TemporaryDirectory() as scratch:
        dump_databases(Path(scratch))
        rclone("sync", scratch, f"{COPY}/mlflow/databases", f"--backup-dir={old}/mlflow/databases")
    if (DATA / "artifacts").is_dir():
        artifacts = f"--backup-dir={old}/mlflow/artifacts"
        rclone("sync", *CHANGED, str(DATA / "artifacts"), f"{COPY}/mlflow/artifacts", artifacts)
    # A checkpoint that is deleted meanwhile makes rclone list again. So a COMMIT in the copy has all of its files.
    rclone("sync", *CHANGED, STORE, f"{COPY}/bucket", f"--backup-dir={old}/bucket")
    rclone("delete", "--use-server-modtime", f"--min-age={KEEP_DAYS}d", f"{COPY}/old")


def restore() -> None:
    """Bring the last back-up into a bucket and a volume of MLflow that are empty, or that an attempt left half full."""
    rclone("copy", *CHANGED, f"{COPY}/bucket", STORE)
    rclone("copy", f"{COPY}/mlflow/artifacts", str(DATA / "artifacts"))
    with tempfile.TemporaryDirectory() as scratch:
        rclone("copy", f"{COPY}/mlflow/databases", scratch)
        for file in sorted(Path(scratch).glob("*.db")):
            for leftover in DATA.glob(f"{file.name}-*"):  # the journal of another database
                leftover.unlink()
            # The name appears with the last byte. MLflow's server must not run.
            (DATA / f"{file.name}.new").write_bytes(file.read_bytes())
            (DATA / f"{file.name}.new").rename(DATA / file.name)
        if (Path(scratch) / DUMP).exists():
            postgresql(
                "pg_restore", "--clean", "--if-exists", "--no-owner", "--exit-on-error", str(Path(scratch) / DUMP)
            )


def dump_databases(folder: Path) -> None:
    """Write whole copies of MLflow's databases to `folder` while the server works."""
    for path in sorted(DATA.glob("*.db")):
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(folder / path.name)) as target:
            source.backup(target)
        print(f"{path.name}: copied", flush=True)
    if DATABASE.startswith("postgresql"):
        postgresql("pg_dump", "--format=custom", f"--file={folder / DUMP}")


def postgresql(program: str, *arguments: str) -> None:
    """Run a client of PostgreSQL on MLflow's database. Its password stays out of the list of processes."""
    with passwords() as environment:
        where = ["--dbname=service=mlflow"]
        subprocess.run([program, *where, *arguments], check=True, env=os.environ | environment)


@contextmanager
def passwords() -> Iterator[dict[str, str]]:
    """The variable that names a file with the connection, which no other user can read."""
    from sqlalchemy import make_url

    url = make_url(DATABASE)
    given = {"host": url.host, "port": url.port, "dbname": url.database, "user": url.username, "password": url.password}
    lines = ["[mlflow]", *(f"{name}={value}" for name, value in given.items() if value is not None)]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("\n".join([*lines, *(f"{name}={value}" for name, value in url.query.items()), ""]))
        file.flush()
        yield {"PGSERVICEFILE": file.name}


if __name__ == "__main__":
    {"back-up": back_up, "restore": restore}[sys.argv[1]]()
