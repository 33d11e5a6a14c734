"""Credentials of an S3 store from each source, and their renewal, for our client and for Lance."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from mantis.errors import ConfigError, StoreError
from mantis.store.credentials import s3_access
from mantis.store.lance_tables import commit_fragments, open_table, write_fragments, write_table
from mantis.store.opening import open_store
from tests.helpers.s3_server import S3Server, s3_server

REGION = "eu-west-1"
SCHEMA = pa.schema([("number", pa.int64())])


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [each for each in os.environ if each.startswith("AWS_") or each == "SSL_CERT_FILE"]:
        monkeypatch.delenv(name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(region=REGION) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_REGION", REGION)
        yield running


def with_keys(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    access, secret, token, _ = server.issue()
    patch.setenv("AWS_ACCESS_KEY_ID", access)
    patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    patch.setenv("AWS_SESSION_TOKEN", token)


def with_container(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials/pod")


def with_instance(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)


def with_identity(server: S3Server, patch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("first\n")
    patch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    patch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/mantis")


@pytest.fixture(params=["keys", "container", "instance", "identity"])
def source(request: pytest.FixtureRequest, server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "keys":
        with_keys(server, monkeypatch)
    elif request.param == "container":
        with_container(server, monkeypatch)
    elif request.param == "instance":
        with_instance(server, monkeypatch)
    else:
        with_identity(server, monkeypatch, tmp_path / "token")
    return str(request.param)


def batches(server: S3Server | None = None) -> Iterator[pa.RecordBatch]:
    for start in range(0, 40, 10):
        if server is not None:
            server.expire()
        yield pa.record_batch([pa.array(range(start, start + 10))], schema=SCHEMA)


def test_each_source_satisfies_a_server_that_checks_region_and_token(source: str, server: S3Server) -> None:
    store = open_store("s3://bucket/runs")
    store.put("object", b"bytes")
    assert store.get("object") == b"bytes"
    assert [entry.key for entry in store.list("")] == ["object"]
    assert write_table(store, "t.lance", SCHEMA, batches()) == 40
    assert open_table(store, "t.lance").take([7, 30]).to_pylist() == [{"number": 7}, {"number": 30}]
    assert server.refused == []
    assert set(server.used) == {"token-0"}, "credentials that are valid for an hour serve both clients"


@pytest.mark.parametrize("source", ["container", "instance", "identity"], indirect=True)
def test_credentials_that_end_are_renewed_during_a_run(source: str, server: S3Server) -> None:
    server.announced = timedelta(seconds=5)
    store = open_store("s3://bucket/runs")
    store.put("object", b"bytes")
    server.expire()
    assert store.get("object") == b"bytes"
    fragments = write_fragments(store, "t.lance", SCHEMA, batches(server))
    server.expire()
    assert commit_fragments(store, "t.lance", SCHEMA, fragments) == 40
    assert write_table(store, "u.lance", SCHEMA, batches(server)) == 40
    table = open_table(store, "t.lance")
    for row in (3, 39):
        server.expire()
        assert table.take([row]).to_pylist() == [{"number": row}]
    assert server.refused == []
    assert len(set(server.used)) > 4


def test_keys_that_ended_say_so(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keys(server, monkeypatch)
    store = open_store("s3://bucket/runs")
    server.expire()
    with pytest.raises(StoreError, match="ExpiredToken") as caught:
        store.put("object", b"bytes")
    assert "AWS_SESSION_TOKEN" in caught.value.remedy


def test_the_identity_is_read_again_at_each_renewal(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_identity(server, monkeypatch, tmp_path / "token")
    server.announced = timedelta(seconds=5)
    store = open_store("s3://bucket/runs")
    store.put("object", b"bytes")
    (tmp_path / "token").write_text("second\n")
    server.expire()
    assert store.get("object") == b"bytes"
    asked = list(dict.fromkeys(server.asked))
    assert asked == [f"AssumeRoleWithWebIdentity {token} arn:aws:iam::1:role/mantis" for token in ("first", "second")]


def test_a_service_that_is_away_leaves_the_old_credentials_until_they_end(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_container(server, monkeypatch)
    monkeypatch.setattr("mantis.store.credentials.RETRIES", 0)
    server.announced = timedelta(seconds=90)
    store = open_store("s3://bucket/runs")
    store.put("object", b"bytes")
    server.broken = True
    with caplog.at_level(logging.WARNING):
        assert store.get("object") == b"bytes"
    assert "still valid" in caplog.text
    monkeypatch.setattr("mantis.store.credentials._ends_within", lambda *_: True)
    with pytest.raises(StoreError, match="container gives no credentials") as caught:
        store.get("object")
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in caught.value.remedy


def test_the_token_of_an_identity_is_in_no_message(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mantis.store.credentials.RETRIES", 0)
    with_identity(server, monkeypatch, tmp_path / "token")
    (tmp_path / "token").write_text("very-secret")
    server.broken = True
    with pytest.raises(StoreError, match="gives no credentials") as caught:
        open_store("s3://bucket/runs").get("object")
    assert "very-secret" not in str(caught.value)
    (tmp_path / "token").unlink()
    with pytest.raises(StoreError, match="token cannot be read"):
        open_store("s3://bucket/runs").get("object")


def test_another_region_is_named_in_the_remedy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keys(server, monkeypatch)
    monkeypatch.delenv("AWS_REGION")
    store = open_store("s3://bucket/runs")
    with pytest.raises(StoreError) as caught:
        store.get("object")
    assert caught.value.remedy == f"Set AWS_REGION={REGION}."
    with pytest.raises(StoreError) as caught:
        store.stat("object")
    assert "AWS_REGION (us-east-1 now)" in caught.value.remedy


def test_the_default_region_counts_where_no_region_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_access().region == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert s3_access().region == "eu-central-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert s3_access().region == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "")
    assert s3_access().region == "eu-central-1"


def test_keys_go_before_an_identity_and_an_identity_before_a_container(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_container(server, monkeypatch)
    with_identity(server, monkeypatch, tmp_path / "token")
    open_store("s3://bucket/runs").put("object", b"bytes")
    assert [asked.split()[0] for asked in server.asked] == ["AssumeRoleWithWebIdentity"]
    with_keys(server, monkeypatch)
    open_store("s3://bucket/runs").put("object", b"bytes")
    assert len(server.asked) == 1


@pytest.mark.parametrize("source", ["container", "instance", "identity"], indirect=True)
def test_only_a_request_asks_for_credentials(server: S3Server, source: str) -> None:
    store = open_store("s3://bucket/runs")
    assert server.asked == []
    store.put("object", b"bytes")
    assert server.asked


def test_without_any_source_requests_are_anonymous(server: S3Server) -> None:
    store = open_store("s3://bucket/runs")
    with pytest.raises(StoreError, match="anonymous") as caught:
        store.put("object", b"bytes")
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy
    with pytest.raises(StoreError, match="anonymous"):
        open_table(store, "t.lance")


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://host/minio", "more than a host"),
        ("http://host?region=x", "more than a host"),
        ("http://host#s3", "more than a host"),
        ("http://somebody:secret@host", "user or a password"),
        ("minio:9000", "no URL"),
        ("http://", "no URL"),
        ("http://host:port", "no URL"),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(endpoint: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match=problem) as caught:
        open_store("s3://bucket/runs")
    assert "secret" not in str(caught.value)
    assert caught.value.remedy


def test_a_slash_behind_the_endpoint_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000/")
    assert s3_access().endpoint == "http://host:9000"


def test_half_a_pair_of_variables_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(ConfigError, match="without AWS_SECRET_ACCESS_KEY"):
        s3_access()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(ConfigError, match="without AWS_ROLE_ARN"):
        s3_access()


def test_certificates_are_a_file_that_both_clients_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="AWS_CA_BUNDLE is set without SSL_CERT_FILE"):
        s3_access()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="is no file"):
        s3_access()
    (tmp_path / "ca.pem").write_text("")
    assert s3_access().secure
