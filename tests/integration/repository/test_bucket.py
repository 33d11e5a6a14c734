"""The bucket that make-users creates in MinIO: nobody who has the keys of steps and ranks can destroy a result."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error
from minio.versioningconfig import SUSPENDED, VersioningConfig

from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY, running_minio
from tests.helpers.bootstrap import READER, RESULTS, WRITER, make_users

BUCKET = "mantis"
RESULT = "checkpoints/abc/step-00000008/COMMIT"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_minio(tmp_path_factory.mktemp("minio")) as url:
        for _ in range(2):  # the Job may run again
            make_users(tmp_path_factory.mktemp("secrets"), url)
        yield url


def client(url: str, keys: tuple[str, str] = (ACCESS_KEY, SECRET_KEY)) -> Minio:
    return Minio(url.removeprefix("http://"), *keys, secure=False, region="us-east-1")


def put(url: str, key: str, *contents: bytes) -> None:
    for content in contents:
        client(url, WRITER).put_object(BUCKET, key, io.BytesIO(content), len(content))


def versions(url: str, key: str) -> list[Any]:
    return list(client(url).list_objects(BUCKET, prefix=key, include_version=True, recursive=True))


def test_a_deleted_or_replaced_result_stays_as_an_old_version(server: str) -> None:
    put(server, RESULT, b"first", b"second")
    client(server, WRITER).remove_object(BUCKET, RESULT)
    with pytest.raises(S3Error, match="NoSuchKey"):
        client(server, WRITER).stat_object(BUCKET, RESULT)
    old = [each.version_id for each in versions(server, RESULT) if not each.is_delete_marker]
    contents = {client(server).get_object(BUCKET, RESULT, version_id=version).read() for version in old}
    assert contents == {b"first", b"second"}


@pytest.mark.parametrize("keys", [WRITER, RESULTS, READER])
def test_no_key_of_steps_or_servers_removes_an_old_version_or_the_rule(server: str, keys: tuple[str, str]) -> None:
    theirs, key = client(server, keys), f"reports/{keys[0]}/manifest.json"
    put(server, key, b"first", b"second")
    version = versions(server, key)[-1].version_id
    attacks = (
        lambda: theirs.remove_object(BUCKET, key, version_id=version),
        lambda: theirs.set_bucket_versioning(BUCKET, VersioningConfig(SUSPENDED)),
        lambda: theirs.delete_bucket_lifecycle(BUCKET),
        lambda: theirs.remove_bucket(BUCKET),
    )
    for attack in attacks:
        with pytest.raises(S3Error, match="Access Denied"):
            attack()
    assert len(versions(server, key)) == 2


def test_old_versions_go_after_a_week_and_current_objects_never(server: str) -> None:
    found = client(server).get_bucket_lifecycle(BUCKET)
    assert found is not None
    (rule,) = found.rules
    assert rule.status == "Enabled"
    assert rule.noncurrent_version_expiration.noncurrent_days == 7
    assert rule.expiration.days is None
    assert rule.expiration.date is None


def test_the_signs_of_life_of_a_training_leave_no_versions(server: str) -> None:
    """A heartbeat comes every two seconds, and MinIO refuses an object with 10,000 versions."""
    for key in ("checkpoints/abc/heartbeat.json", "team/checkpoints/abc/progress.json"):
        put(server, key, b"1", b"2", b"3")
        assert len(versions(server, key)) == 1
