"""A real MinIO with temporary credentials, another region, and certificates of an own authority."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from minio import Minio
from minio.credentials import AssumeRoleProvider, Credentials
from minio.helpers import sha256_hash

from mantis.errors import StoreError
from mantis.store.lance_tables import open_table, write_table
from mantis.store.opening import open_store
from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY, running_minio
from tests.helpers.certificates import certified
from tests.helpers.loopback import running

REGION = "eu-west-1"
SHORTEST = 900  # seconds: no session of an STS may be shorter
SCHEMA = pa.schema([("number", pa.int64())])


class Sessions(ThreadingHTTPServer):
    """The service of a container that hands out sessions of a MinIO, as an agent beside a pod does."""

    daemon_threads = True

    def __init__(self, minio: str) -> None:
        super().__init__(("127.0.0.1", 0), SessionAnswer)
        self.minio = minio
        self.announced: timedelta | None = None  # from now to the announced end; None: the true end
        self.issued: list[Credentials] = []

    def issue(self) -> dict[str, str]:
        role = AssumeRoleProvider(sts_endpoint=self.minio, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        role._body = role._body.replace("DurationSeconds=3600", f"DurationSeconds={SHORTEST}")  # minio asks for an hour
        role._content_sha256 = sha256_hash(role._body)
        session = role.retrieve()
        self.issued.append(session)
        end = session.expiration.replace(tzinfo=UTC) if self.announced is None else datetime.now(UTC) + self.announced
        return {
            "AccessKeyId": session.access_key,
            "SecretAccessKey": session.secret_key,
            "Token": str(session.session_token),
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class SessionAnswer(BaseHTTPRequestHandler):
    server: Sessions

    def log_message(self, *_: str) -> None:
        pass

    def do_GET(self) -> None:
        body = json.dumps(self.server.issue()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sessions]:
    """A MinIO in another region than the usual one; the environment names its sessions and no key."""
    with running_minio(tmp_path / "data", MINIO_SITE_REGION=REGION) as url, running(Sessions(url)) as service:
        Minio(url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False, region=REGION).make_bucket("mantis")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{service.server_address[1]}/credentials"
        )
        yield service


def numbers(count: int, pause: float = 0.0) -> Iterator[pa.RecordBatch]:
    for start in range(0, count, 10):
        time.sleep(pause)
        yield pa.record_batch([pa.array(range(start, start + 10))], schema=SCHEMA)


def test_minio_serves_sessions_that_follow_each_other(sessions: Sessions) -> None:
    sessions.announced = timedelta(seconds=30)
    store = open_store("s3://mantis/runs")
    store.put("object", b"bytes")
    assert store.get("object") == b"bytes"
    assert write_table(store, "t.lance", SCHEMA, numbers(40)) == 40
    table = open_table(store, "t.lance")
    before = len(sessions.issued)
    assert table.take([39]).to_pylist() == [{"number": 39}]
    assert len(sessions.issued) > before > 2


def test_minio_names_the_region_that_it_expects(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(StoreError) as caught:
        open_store("s3://mantis/runs").get("object")
    assert caught.value.remedy == f"Set AWS_REGION={REGION}."


@pytest.mark.slow
def test_work_goes_on_after_the_first_session_ended(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("s3://mantis/runs")
    assert write_table(store, "t.lance", SCHEMA, numbers(40)) == 40
    table = open_table(store, "t.lance")
    first = sessions.issued[0]
    # One table is written from before the end of the first session until after it.
    assert write_table(store, "long.lance", SCHEMA, numbers(200, pause=(SHORTEST + 30) / 20)) == 200
    store.put("object", b"bytes")
    assert store.get("object") == b"bytes"
    assert table.take([39]).to_pylist() == [{"number": 39}]
    assert 2 <= len(sessions.issued) <= 4
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", first.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", first.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", str(first.session_token))
    with pytest.raises(StoreError, match=r"Expired|Invalid"):
        open_store("s3://mantis/runs").get("object")


def test_an_own_authority_is_named_by_ssl_cert_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = certified(folder)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with running_minio(tmp_path / "data", certificates=folder) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setattr("mantis.store.s3.RETRIES", 0)
        with pytest.raises(StoreError, match="certificate") as caught:
            open_store("s3://mantis/runs").get("object")
        assert "SSL_CERT_FILE" in caught.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        store = open_store("s3://mantis/runs")
        make_bucket = store._client.make_bucket  # type: ignore[attr-defined]  # it trusts the authority already
        make_bucket("mantis")
        store.put("object", b"bytes")
        assert write_table(store, "t.lance", SCHEMA, numbers(40)) == 40
        assert open_table(store, "t.lance").count_rows() == 40
