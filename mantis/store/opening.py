"""From an address to its store: `file:///path` on a laptop, `s3://bucket/prefix` on MinIO, or another cloud."""

import os
from pathlib import Path

from mantis.errors import ConfigError
from mantis.store.base import ObjectStore, download_tree
from mantis.store.local import LocalStore
from mantis.store.store_url import BUCKETS, bucket_of, folder_of, scheme_of


def open_store(url: str) -> ObjectStore:
    """The store at `url`; nothing is written yet. credentials.py says where the keys of an `s3://` store come from.

    Raises:
        ConfigError: the URL has another scheme or no valid name, or a variable of credentials.py is not valid.
        StoreError: a service that hands out credentials does not answer.
    """
    scheme = scheme_of(url)
    if scheme in ("", "file"):
        return LocalStore(folder_of(url))
    if scheme == "s3":
        from mantis.store.s3 import MinioStore  # a local run does not wait for MinIO's client

        bucket, prefix = bucket_of(url)
        return MinioStore(bucket=bucket, prefix=prefix)
    if scheme in BUCKETS:
        from mantis.store.cloud.cloud_store import open_cloud_store  # obstore is optional

        return open_cloud_store(url)
    raise ConfigError(
        f"store = {url!r} has the scheme {scheme!r}.",
        remedy="Use file:///absolute/path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.",
    )


def default_store_url() -> str:
    """MANTIS_STORE, or the folder .mantis where the command was started."""
    return os.environ.get("MANTIS_STORE") or (Path.cwd() / ".mantis").as_uri()


def local_copy(store: ObjectStore, prefix: str, temporary: Path) -> Path:
    """A folder with the objects under `prefix`: the local store's own folder, else a copy below `temporary`."""
    if isinstance(store, LocalStore):
        return store.root / prefix
    download_tree(store, prefix, temporary / prefix)
    return temporary / prefix
