"""Endpoint, region and keys of an S3 store, from the environment: the only place that reads them.

They are never a parameter of a command or a pipeline, because parameters end up in databases.
"""

import os
from dataclasses import dataclass, field
from urllib.parse import urlparse

from mantis.errors import ConfigError

PUBLIC_ENDPOINT = "https://s3.amazonaws.com"
PUBLIC_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class S3Access:
    """Access to the server of a store. Without keys, requests are anonymous."""

    endpoint: str
    region: str
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)

    @property
    def host(self) -> str:
        """The endpoint without its scheme."""
        return urlparse(self.endpoint).netloc

    @property
    def secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return urlparse(self.endpoint).scheme == "https"

    def lance_options(self) -> dict[str, str]:
        """The access as `storage_options` of Lance."""
        return {
            "aws_endpoint": self.endpoint,
            "aws_access_key_id": self.access_key or "",
            "aws_secret_access_key": self.secret_key or "",
            "aws_region": self.region,
            "allow_http": str(not self.secure).lower(),
        }


def s3_access() -> S3Access:
    """The access that AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY give.

    Raises:
        ConfigError: AWS_ENDPOINT_URL is no URL.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL", PUBLIC_ENDPOINT)
    parsed = urlparse(endpoint)
    if parsed.scheme not in ("http", "https") or not parsed.netloc:
        raise ConfigError(f"AWS_ENDPOINT_URL = {endpoint!r} is no URL.", remedy="Use e.g. http://minio:9000.")
    return S3Access(
        endpoint=endpoint,
        region=os.environ.get("AWS_REGION", PUBLIC_REGION),
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
    )
