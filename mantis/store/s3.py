"""The store in a bucket of MinIO or any other S3."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from mantis.errors import NotFoundError, StoreError
from mantis.store.base import TRANSFER_THREADS, StoredObject
from mantis.store.credentials import BoundedRetry, S3Access, s3_access

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS, RETRIES = 5.0, 60.0, 5
PASSING = (499, 500, 502, 503, 504)  # 499 is MinIO's ClientDisconnected: it answers so when it is stopped
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
DENIED = {"AccessDenied", "InvalidAccessKeyId", "InvalidToken", "InvalidTokenId", "SignatureDoesNotMatch"}
MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}


class MinioStore:
    """Objects below `prefix` in `bucket`; credentials.py gives endpoint and keys."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._access = s3_access()

    @property
    def place(self) -> str:
        return f"{self._access.server} {self.url}".lstrip()

    @cached_property
    def _client(self) -> Any:
        return _connected(self._access)

    def put(self, key: str, data: bytes) -> None:
        import io

        self._call(key, lambda name: self._client.put_object(self.bucket, name, io.BytesIO(data), len(data)))

    def put_file(self, key: str, path: Path) -> None:
        self._call(key, lambda name: self._client.fput_object(self.bucket, name, str(path)))

    def commit(self, key: str, data: bytes, *, after: Sequence[str]) -> None:
        self.put(key, data)  # the server makes each object durable before it answers

    def get(self, key: str) -> bytes:
        return self._call(key, lambda name: self._read(name))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._call(key, lambda name: self._read_range(name, start, length))

    def get_file(self, key: str, path: Path) -> None:
        self._call(key, lambda name: self._client.fget_object(self.bucket, name, str(path)))

    def stat(self, key: str) -> StoredObject | None:
        try:
            found = self._call(key, lambda name: self._client.stat_object(self.bucket, name))
        except NotFoundError:
            return None
        return _entry(key, found)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        root = f"{self.prefix}/" if self.prefix else ""
        below = root + (f"{prefix}/" if prefix else "")
        objects = self._call(
            prefix, lambda _: list(self._client.list_objects(self.bucket, prefix=below, recursive=True))
        )
        for item in objects:
            yield _entry(str(item.object_name).removeprefix(root), item)

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        root = f"{self.prefix}/" if self.prefix else ""
        below = root + (f"{prefix}/" if prefix else "")
        found = self._call(prefix, lambda _: list(self._client.list_objects(self.bucket, prefix=below)))
        keys = sorted((str(item.object_name).removeprefix(root), item) for item in found if item.object_name != below)
        files = tuple(_entry(key, item) for key, item in keys if not item.is_dir)
        return files, tuple(key.removesuffix("/") for key, item in keys if item.is_dir)

    def delete(self, key: str) -> None:
        self._call(key, lambda name: self._client.remove_object(self.bucket, name))

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def lance_uri(self, key: str) -> str:
        return quote(self.uri(key), safe=":/")  # Lance takes it for a URL, and decodes it

    def lance_options(self) -> dict[str, str]:
        return self._access.lance_options()

    def _read(self, name: str, **span: int) -> bytes:
        response = self._client.get_object(self.bucket, name, **span)
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    def _read_range(self, name: str, start: int, length: int) -> bytes:
        if not length:
            return b""  # MinIO's client takes a length of 0 for "to the end"
        try:
            return self._read(name, offset=start, length=length)
        except S3Error as error:
            if error.code == "InvalidRange":  # it begins at the object's end or beyond
                return b""
            raise

    def _call(self, key: str, request: Callable[[str], T]) -> T:
        name = f"{self.prefix}/{key}" if self.prefix else key
        try:
            return request(name)
        except S3Error as error:
            if error.code in MISSING:
                raise NotFoundError(
                    f"{self.uri(key)} does not exist ({error.code}).", remedy="Run the step that makes it."
                ) from None
            raise StoreError(
                f"{self.uri(key)}: {error.code}: {(error.message or '').rstrip('.')}.",
                remedy=_remedy(error, self._access),
            ) from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise StoreError(
                    f"{self.uri(key)}: the certificate of {self._access.endpoint} is signed by an unknown authority.",
                    remedy="Set SSL_CERT_FILE to a PEM file with the certificates of all authorities that you trust.",
                ) from None
            raise StoreError(
                f"{self.uri(key)}: {self._access.endpoint} does not answer ({type(error).__name__}).",
                remedy="Check AWS_ENDPOINT_URL and that the server runs; `mantis doctor` tries it.",
            ) from None


def _entry(key: str, item: Any) -> StoredObject:
    written = item.last_modified.timestamp() if item.last_modified else 0.0
    return StoredObject(key=key, size=int(item.size or 0), version=str(item.etag or ""), written=written)


def _connected(access: S3Access) -> Any:
    pool = urllib3.PoolManager(
        maxsize=2 * TRANSFER_THREADS,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=BoundedRetry(total=RETRIES, backoff_factor=0.5, status_forcelist=PASSING),
    )
    return Minio(access.host, credentials=access.provider, region=access.region, secure=access.secure, http_client=pool)


def _remedy(error: S3Error, access: S3Access) -> str:
    code, message = error.code or "", error.message or ""
    if expected := re.search(r"expecting '?([\w-]+)'?", message):
        return f"Set AWS_REGION={expected[1]}."
    if code in OTHER_REGION:
        return f"Set AWS_REGION to the region of the bucket; requests are signed for {access.region}."
    if code == "BadRequest":  # the answer to a HEAD request has no text
        return f"Check AWS_REGION ({access.region} now) and that keys which need AWS_SESSION_TOKEN have it."
    if code in FULL:
        return (
            "Enlarge the server's volume or the bucket's quota. `mantis gc` lists results that no run needs; "
            "a bucket with versions frees their space days after `--delete`."
        )
    if code in EXPIRED:
        return "Set new keys with their AWS_SESSION_TOKEN. A web identity or a role renews them by itself."
    if code == "AccessDenied" and access.provider is None:
        return "Requests are anonymous: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role."
    if code in DENIED:
        return (
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and the user's policy. "
            "Temporary keys need AWS_SESSION_TOKEN, too."
        )
    return "See the server's log."
