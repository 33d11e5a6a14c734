"""From an address to its store: `file:///path` on a laptop, `s3://bucket/prefix` on MinIO."""

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from mantis.errors import ConfigError
from mantis.store.base import ObjectStore, download_tree
from mantis.store.local import LocalStore


def open_store(url: str) -> ObjectStore:
    """The store at `url`; nothing is written yet. credentials.py says where the keys of an `s3://` store come from.

    Raises:
        ConfigError: the URL has another scheme, names no bucket, or AWS_ENDPOINT_URL is no URL.
    """
    parsed = urlparse(url)
    if parsed.scheme in ("", "file"):
        return LocalStore(Path(unquote(parsed.path)))
    if parsed.scheme == "s3":
        from mantis.store.s3 import MinioStore  # a local run does not wait for MinIO's client

        return MinioStore(bucket=parsed.netloc, prefix=parsed.path.strip("/"))
    raise ConfigError(
        f"store = {url!r} has the scheme {parsed.scheme!r}.", remedy="Use file:///absolute/path or s3://bucket/prefix."
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
