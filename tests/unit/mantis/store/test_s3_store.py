"""The store in a bucket: the keys of its objects, and what an answer of the server means for a person."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from minio.error import S3Error

from mantis.errors import NotFoundError, StoreError
from mantis.store.credentials import S3Access, _pool
from mantis.store.opening import default_store_url, local_copy, open_store
from mantis.store.s3 import PASSING, MinioStore, _connected, _remedy
from tests.helpers.s3_server import S3Server, s3_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(region="") as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "password")
        yield running


@pytest.mark.parametrize("prefix", ["", "team/x"])
def test_objects_lie_below_the_prefix(server: S3Server, prefix: str, tmp_path: Path) -> None:
    store = MinioStore(bucket="mantis", prefix=prefix)
    assert store.url == ("s3://mantis/team/x" if prefix else "s3://mantis")
    below = f"{prefix}/" if prefix else ""
    (tmp_path / "source").write_bytes(b"of a file")
    store.put("a/object", b"0123456789")
    store.put_file("a/inner/file", tmp_path / "source")
    store.commit("b/COMMIT", b"whole", after=["a/object"])
    assert {key: data for key, (data, _) in server.objects.items()} == {
        f"{below}a/object": b"0123456789",
        f"{below}a/inner/file": b"of a file",
        f"{below}b/COMMIT": b"whole",
    }
    assert store.get("a/object") == b"0123456789"
    assert [store.get_range("a/object", *span) for span in ((0, 2), (3, 4), (2, 0))] == [b"01", b"3456", b""]
    store.get_file("a/inner/file", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"of a file"
    found = store.stat("a/object")
    assert found is not None
    assert (found.key, found.size) == ("a/object", 10)
    listed = store.children("a")[0][0]
    assert found.version == listed.version == hashlib.md5(b"0123456789").hexdigest()
    assert found.written > 1e9
    assert [entry.key for entry in store.list("a")] == ["a/inner/file", "a/object"]
    assert [entry.key for entry in store.list("")] == ["a/inner/file", "a/object", "b/COMMIT"]
    files, folders = store.children("a")
    assert ([file.key for file in files], folders) == (["a/object"], ("a/inner",))
    assert store.children("") == ((), ("a", "b"))
    store.delete("a/object")
    assert store.stat("a/object") is None
    assert (store.uri("a/b c"), store.lance_uri("a/b #c")) == (f"{store.url}/a/b c", f"{store.url}/a/b%20%23c")
    with pytest.raises(NotFoundError, match=r"/a/object does not exist \(NoSuchKey\)"):
        store.get("a/object")


def test_a_folder_s_own_mark_is_none_of_its_children(server: S3Server) -> None:
    store = MinioStore(bucket="mantis", prefix="")
    server.objects["a/"] = (b"", 0.0)
    store.put("a/object", b"x")
    assert [file.key for file in store.children("a")[0]] == ["a/object"]


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("mantis.store.s3.RETRIES", 0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "password")
    with pytest.raises(StoreError, match=r"s3://mantis/x/key: http://127\.0\.0\.1:9 does not answer \(MaxRetryError"):
        open_store("s3://mantis/x").get("key")


def test_an_unknown_authority_has_its_own_remedy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MinioStore(bucket="mantis", prefix="")

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib3.exceptions.HTTPError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get the issuer")

    monkeypatch.setattr(store._client, "get_object", refuse)
    with pytest.raises(StoreError, match="signed by an unknown authority") as caught:
        store.get("key")
    assert caught.value.remedy.startswith("Set SSL_CERT_FILE")


def refused(code: str | None, message: str | None = "") -> S3Error:
    answer: Any = SimpleNamespace(status=400, headers={}, data=b"")
    return S3Error(answer, code, message, "", "", "")


@pytest.mark.parametrize(
    ("code", "message", "anonymous", "remedy"),
    [
        (
            "AuthorizationHeaderMalformed",
            "the region is wrong; expecting 'eu-west-1'",
            False,
            "Set AWS_REGION=eu-west-1.",
        ),
        ("AccessDenied", "expecting eu-west-1 here", True, "Set AWS_REGION=eu-west-1."),
        ("PermanentRedirect", None, False, "Set AWS_REGION to the region of the bucket; requests are signed for here."),
        ("BadRequest", "", False, "Check AWS_REGION (here now) and that keys"),
        ("ExpiredToken", "", False, "Set new keys with their AWS_SESSION_TOKEN."),
        ("AccessDenied", "", True, "Requests are anonymous: set AWS_ACCESS_KEY_ID"),
        ("AccessDenied", "", False, "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and the user's policy."),
        ("InvalidAccessKeyId", "", True, "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and the user's policy."),
        ("SlowDown", "", False, "See the server's log."),
        (None, None, False, "See the server's log."),
    ],
)
def test_what_a_refusal_means(code: str | None, message: str | None, anonymous: bool, remedy: str) -> None:
    provider: Any = None if anonymous else "a provider"
    access = S3Access(endpoint="https://example.org", region="here", find_provider=lambda: provider)
    assert _remedy(refused(code, message), access).startswith(remedy)


def test_a_refusal_is_told_with_its_code(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MinioStore(bucket="mantis", prefix="x")

    def refuse(*_: Any, **__: Any) -> None:
        raise refused("SlowDown", "please wait")

    monkeypatch.setattr(store._client, "stat_object", refuse)
    with pytest.raises(StoreError, match=r"s3://mantis/x/key: SlowDown: please wait\.") as caught:
        store.stat("key")
    assert caught.value.remedy == "See the server's log."


def test_a_range_beyond_the_end_is_empty_and_another_refusal_is_not(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MinioStore(bucket="mantis", prefix="x")
    codes = ["InvalidRange", "SlowDown"]

    def refuse(*_: Any, **__: Any) -> None:
        raise refused(codes.pop(0))

    monkeypatch.setattr(store._client, "get_object", refuse)
    assert store.get_range("key", 10, 1) == b""
    with pytest.raises(StoreError, match="SlowDown"):
        store.get_range("key", 10, 1)


def test_the_client_waits_and_tries_again_as_the_module_says() -> None:
    access = S3Access(endpoint="https://example.org:9", region="here", find_provider=lambda: None)
    client = _connected(access)
    assert client._base_url._url.netloc == "example.org:9"
    assert client._base_url.is_https
    pool = client._http.connection_pool_kw
    assert (pool["timeout"].connect_timeout, pool["timeout"].read_timeout, pool["maxsize"]) == (5.0, 60.0, 32)
    retries = pool["retries"]
    assert (retries.total, retries.backoff_factor, retries.status_forcelist) == (5, 0.5, PASSING)
    for asked, waited in (("60", 5.0), ("2", 2.0), (None, None)):
        response = urllib3.HTTPResponse(status=503, headers={"Retry-After": asked} if asked else {})
        assert retries.new().get_retry_after(response) == waited
        assert _pool().connection_pool_kw["retries"].get_retry_after(response) == waited  # for the service of roles
    assert client._region_map == {} or client._base_url.region == "here"


def test_a_local_copy_is_the_local_folder_or_one_below_another(server: S3Server, tmp_path: Path) -> None:
    local = open_store(f"file://{tmp_path}/store")
    local.put("models/m/a", b"x")
    assert local_copy(local, "models/m", tmp_path / "elsewhere") == tmp_path / "store" / "models/m"
    assert not (tmp_path / "elsewhere").exists()
    remote = open_store("s3://mantis/x")
    remote.put("models/m/a", b"x")
    copy = local_copy(remote, "models/m", tmp_path / "elsewhere")
    assert copy == tmp_path / "elsewhere" / "models/m"
    assert (copy / "a").read_bytes() == b"x"


def test_a_store_without_an_address_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANTIS_STORE", raising=False)
    assert default_store_url() == (tmp_path / ".mantis").as_uri()
    monkeypatch.setenv("MANTIS_STORE", "s3://mantis/x")
    assert default_store_url() == "s3://mantis/x"
