"""Start a local MinIO for one measurement."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BUCKET = "mantis"
KEYS = {"MINIO_ROOT_USER": "benchmark", "MINIO_ROOT_PASSWORD": "benchmark-secret"}
START_SECONDS = 60


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yield the URL of a store in a server with its data in `folder`; the environment holds its credentials."""
    binary = shutil.which("minio")
    if binary is None:
        sys.exit("no `minio` on PATH: this row needs a MinIO server.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [binary, "server", "--quiet", "--address", address, str(folder)]
    server = subprocess.Popen(command, env=os.environ | KEYS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = dict(os.environ)
    user, password = KEYS.values()
    try:
        _make_bucket(address, server)
        os.environ.update(AWS_ENDPOINT_URL=f"http://{address}", AWS_ACCESS_KEY_ID=user, AWS_SECRET_ACCESS_KEY=password)
        yield f"s3://{BUCKET}/benchmark"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.terminate()
        server.wait(10)


def _make_bucket(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Make the bucket as soon as the server takes it."""
    import urllib3
    from minio import Minio
    from minio.error import MinioException

    user, password = KEYS.values()
    pool = urllib3.PoolManager(retries=False, timeout=2)  # a server that starts asks to wait for a minute
    client = Minio(address, user, password, secure=False, region="us-east-1", http_client=pool)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.make_bucket(BUCKET)
            return
        except (urllib3.exceptions.HTTPError, MinioException):
            time.sleep(0.1)
    raise RuntimeError(f"minio was not ready within {START_SECONDS} s (exit code {server.poll()})")
