"""A real PostgreSQL on loopback, as the user postgres if the tests run as root, which it refuses."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from tests.helpers.loopback import free_port
from tests.helpers.waiting import HANG_SECONDS

USER, PASSWORD, DATABASE = "mlflow", "a % pass/word@", "mlflow"
DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path:
    """The folder of initdb and pg_ctl, which Debian keeps off PATH."""
    found = shutil.which("pg_ctl") or next(iter(sorted(DEBIAN.glob("*/bin/pg_ctl"), reverse=True)), None)
    if found is None:
        pytest.skip("no `pg_ctl`: MLflow on PostgreSQL is not tested (Debian's package postgresql has it)")
    return Path(found).resolve().parent


@contextmanager
def postgresql() -> Iterator[str]:
    """A server with an empty database; yields its address for SQLAlchemy."""
    folder, port = programs(), free_port()
    user = "postgres" if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="postgresql-") as scratch:
        data, secret = Path(scratch) / "data", Path(scratch) / "password"
        secret.write_text(PASSWORD)
        if user:
            for path in (Path(scratch), secret):
                shutil.chown(path, user)

        def run(program: str, *arguments: object) -> None:
            command = [str(folder / program), *map(str, arguments)]
            subprocess.run(command, cwd=scratch, user=user, check=True, stdout=subprocess.DEVNULL, timeout=HANG_SECONDS)

        run("initdb", f"--pgdata={data}", f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={scratch} -c fsync=off"
        run("pg_ctl", "start", "--wait", f"--pgdata={data}", f"--log={scratch}/log", f"--options={options}")
        try:
            there = {"PGPASSWORD": PASSWORD}
            create = ["createdb", "--host=127.0.0.1", f"--port={port}", f"--username={USER}", DATABASE]
            subprocess.run([folder / create[0], *create[1:]], env=os.environ | there, check=True, timeout=HANG_SECONDS)
            yield f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/{DATABASE}"
        finally:
            run("pg_ctl", "stop", "--mode=immediate", "--wait", f"--pgdata={data}")
