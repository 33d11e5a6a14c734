"""The store in a bucket of Google Cloud Storage or a container of Azure Blob Storage, through obstore.

obstore and Lance are built on the same library, so both read the same variables (`GOOGLE_*`, `AZURE_*`) and renew the
credentials that end. It is the extra `clouds` of this package.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mantis.errors import ConfigError, NotFoundError, StoreError
from mantis.store.base import StoredObject
from mantis.store.store_url import bucket_of, scheme_of

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

    Client = AzureStore | GCSStore | MemoryStore | S3Store

SCHEMES = {"gs": "GCSStore", "az": "AzureStore"}  # to the class of obstore.store
ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
LANCE = {"allow_http": "true"}  # emulators speak HTTP; the addresses of the services themselves are fixed


class CloudStore:
    """Objects below `prefix` in the bucket of `client`, an object store of obstore.

    Args:
        account: the account of Azure that has the container. Names of Google's buckets need none: no two are the same.
    """

    def __init__(
        self, client: "Client", *, url: str, prefix: str, account: str = "", lance: Mapping[str, str] = LANCE
    ) -> None:
        self.url = url.rstrip("/")
        self._client, self._prefix, self._account, self._lance = client, prefix, account, lance

    @property
    def place(self) -> str:
        return f"{self._account} {self.url}".lstrip()

    def put(self, key: str, data: bytes) -> None:
        with self._refusals(key):
            self._client.put(self._name(key), data)

    def put_file(self, key: str, path: Path) -> None:
        with self._refusals(key):
            self._client.put(self._name(key), path)

    def commit(self, key: str, data: bytes, *, after: Sequence[str]) -> None:
        self.put(key, data)  # the service makes each object durable before it answers

    def get(self, key: str) -> bytes:
        with self._refusals(key):
            return bytes(self._client.get(self._name(key)).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if not length:
            return b""  # obstore refuses an empty range, and one that begins behind the end
        try:
            with self._refusals(key):
                return bytes(self._client.get_range(self._name(key), start=start, length=length))
        except NotFoundError:
            raise
        except StoreError:
            found = self.stat(key)
            if found is not None and start >= found.size:
                return b""
            raise

    def get_file(self, key: str, path: Path) -> None:
        with self._refusals(key):
            blocks = self._client.get(self._name(key)).stream()
        with path.open("wb") as target, self._refusals(key):
            for block in blocks:
                target.write(block)

    def stat(self, key: str) -> StoredObject | None:
        try:
            with self._refusals(key):
                return _entry(key, self._client.head(self._name(key)))
        except NotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._refusals(prefix):
            found = [each for part in self._client.list(self._name(prefix) or None) for each in part]
        yield from sorted((_entry(self._key(each["path"]), each) for each in found), key=lambda entry: entry.key)

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        with self._refusals(prefix):
            found = self._client.list_with_delimiter(self._name(prefix) or None)
        files = sorted((_entry(self._key(each["path"]), each) for each in found["objects"]), key=lambda each: each.key)
        return tuple(files), tuple(sorted(self._key(each).rstrip("/") for each in found["common_prefixes"]))

    def delete(self, key: str) -> None:
        try:
            with self._refusals(key):
                self._client.delete(self._name(key))
        except NotFoundError:
            pass

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def lance_uri(self, key: str) -> str:
        return quote(self.uri(key), safe=":/")  # Lance takes it for a URL, and decodes it

    def lance_options(self) -> dict[str, str]:
        return dict(self._lance)

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key) if part)

    def _key(self, name: str) -> str:
        return name.removeprefix(f"{self._prefix}/") if self._prefix else name

    @contextmanager
    def _refusals(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError:
            raise NotFoundError(f"{self.uri(key)} does not exist.", remedy="Run the step that makes it.") from None
        except (BaseError, ValueError, OSError) as error:
            raise StoreError(
                f"{self.uri(key)}: {_reason(error)}.",
                remedy="Check the variables of the credentials and the rights; `mantis doctor` tries the store.",
            ) from None


def open_cloud_store(url: str) -> CloudStore:
    """The store at `gs://bucket/prefix` or `az://container/prefix`; the credentials come from the environment.

    Raises:
        ConfigError: obstore is not installed, or the environment names no account.
    """
    bucket, prefix = bucket_of(url)
    account = os.environ.get(ACCOUNT, "") if scheme_of(url) == "az" else ""
    try:
        from obstore import store as clients
        from obstore.exceptions import BaseError
    except ImportError:
        raise ConfigError(
            f"store = {url!r} needs the package obstore.", remedy="Run pip install 'mantis-kfp[clouds]'."
        ) from None
    made: Any = getattr(clients, SCHEMES[scheme_of(url)])
    try:
        client = made(bucket, client_options={"allow_http": True})
        return CloudStore(client, url=url, prefix=prefix, account=account)
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"store = {url!r}: {_reason(error)}.",
            remedy=f"Set GOOGLE_APPLICATION_CREDENTIALS, or {ACCOUNT} and its credentials.",
        ) from None


def _reason(error: Exception) -> str:
    """The first line of an error without the queries of its URLs, which may hold the signature of Azure."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"\?[^ ]*", "", first).rstrip(".")


def _entry(key: str, found: Any) -> StoredObject:
    return StoredObject(
        key=key,
        size=found["size"],
        version=(found["e_tag"] or "").strip('"'),
        written=found["last_modified"].timestamp(),
    )
