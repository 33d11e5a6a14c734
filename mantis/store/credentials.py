"""Endpoint, region and credentials of an S3 store, from the environment: the only place that reads them.

They are never a parameter of a command or a pipeline, because parameters end up in databases. The variables are those
of the AWS SDKs (docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).
"""

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import urllib3
from minio.credentials import Credentials, IamAwsProvider, Provider, StaticProvider, WebIdentityProvider

from mantis.errors import ConfigError, StoreError

logger = logging.getLogger(__name__)

FindProvider = Callable[[], Provider | None]

PUBLIC_ENDPOINT = "https://s3.amazonaws.com"
PUBLIC_REGION = "us-east-1"
AMAZON = re.compile(r"(.+\.)?amazonaws\.com(\.cn)?")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
IDENTITY_FILE, ROLE = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"
CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
METADATA_ENDPOINT, METADATA_OFF = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_DISABLED"
RENEWED_BEFORE = timedelta(minutes=2)  # Lance asks for new credentials one minute before the end
CONNECT_SECONDS, READ_SECONDS, RETRIES = 2.0, 10.0, 3
LONGEST_WAIT = 5.0  # seconds before the next try, also if the server asks for more


class BoundedRetry(urllib3.Retry):
    """Retries that follow a server's wish to wait for LONGEST_WAIT at most.

    MinIO asks for a minute while it starts, and a start takes seconds.
    """

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Return the seconds to wait that the header Retry-After of `response` names, within the limit."""
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, LONGEST_WAIT)


@dataclass(frozen=True, kw_only=True)
class S3Access:
    """Access to the server of a store. `find_provider` may ask a service of the machine, so only a request calls it."""

    endpoint: str
    region: str
    find_provider: FindProvider = field(repr=False)

    @cached_property
    def provider(self) -> Provider | None:
        """The source of credentials; None: requests are anonymous."""
        return self.find_provider()

    @property
    def host(self) -> str:
        """The endpoint without its scheme."""
        return urlsplit(self.endpoint).netloc

    @property
    def server(self) -> str:
        """Host and port in lower case; empty for AWS, where every region has the same bucket under a name."""
        return "" if _is_amazon(self.endpoint) else self.host.lower()

    @property
    def secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return urlsplit(self.endpoint).scheme == "https"

    def lance_options(self) -> dict[str, str]:
        """The access as `storage_options` of Lance; `expires_at_millis` is there if the credentials end.

        Raises:
            StoreError: the service that hands out credentials does not answer.
        """
        options = {"aws_region": self.region, "allow_http": str(not self.secure).lower()}
        if self.endpoint != PUBLIC_ENDPOINT:  # Lance knows the address of each region of AWS
            options["aws_endpoint"] = self.endpoint
        if self.provider is None:
            return options | {"aws_skip_signature": "true"}
        held = self.provider.retrieve()
        options |= {"aws_access_key_id": held.access_key, "aws_secret_access_key": held.secret_key}
        if held.session_token:
            options["aws_session_token"] = held.session_token
        if held.expiration:
            options["expires_at_millis"] = str(int(held.expiration.replace(tzinfo=UTC).timestamp() * 1000))
        return options


class RenewingProvider(Provider):  # type: ignore[misc]  # minio has no types for its abstract base
    """Credentials that end, from the service `origin`: new ones replace them RENEWED_BEFORE their end.

    If the service does not answer, the old credentials serve until their end.
    """

    def __init__(self, origin: str, remedy: str, make: Callable[[], Provider]) -> None:
        self._origin, self._remedy, self._make = origin, remedy, make
        self._held: Credentials | None = None
        self._lock = threading.Lock()

    def retrieve(self) -> Credentials:
        """Credentials that are valid now.

        Raises:
            StoreError: the service gives none.
        """
        with self._lock:
            if self._held is None or _ends_within(self._held, RENEWED_BEFORE):
                self._held = self._renewed()
            return self._held

    def _renewed(self) -> Credentials:
        try:
            return self._make().retrieve()
        except (ValueError, KeyError, OSError, ElementTree.ParseError, urllib3.exceptions.HTTPError) as error:
            reason = _reason(error)
        if self._held is not None and not _ends_within(self._held, timedelta()):
            logger.warning("%s gives no new credentials (%s). The old ones are still valid.", self._origin, reason)
            return self._held
        raise StoreError(f"{self._origin} gives no credentials: {reason}.", remedy=self._remedy)


def _ends_within(held: Credentials, span: timedelta) -> bool:
    return held.expiration is not None and held.expiration.replace(tzinfo=UTC) - datetime.now(UTC) < span


def _reason(error: Exception) -> str:
    """Why a service gave nothing; minio's own message would print the request, which holds the token."""
    if status := re.search(r"HTTP status code (\d+)", str(error)):
        return f"it answers with status {status[1]}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read ({error.strerror})"
    unreadable = isinstance(error, KeyError | json.JSONDecodeError | ElementTree.ParseError)
    return "its answer cannot be read" if unreadable else f"it does not answer ({type(error).__name__})"


def s3_access() -> S3Access:
    """The access that the environment gives. docs/reference/environment.md lists the variables and their order.

    Raises:
        ConfigError: a variable is not valid, or one of a pair is missing.
    """
    endpoint = _endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or PUBLIC_REGION
    _check_authorities(endpoint)
    return S3Access(endpoint=endpoint, region=region, find_provider=_source(endpoint, region))


def _endpoint() -> str:
    given = os.environ.get("AWS_ENDPOINT_URL") or PUBLIC_ENDPOINT
    try:
        parsed = urlsplit(given)
        valid = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"AWS_ENDPOINT_URL = {given!r} is no URL.", remedy="Use e.g. http://minio:9000.")
    if parsed.username is not None:
        raise ConfigError(
            "AWS_ENDPOINT_URL holds a user or a password.", remedy=f"Use {' and '.join(KEYS)} for credentials."
        )
    if parsed.path.strip("/") or parsed.query or parsed.fragment:
        raise ConfigError(
            f"AWS_ENDPOINT_URL = {given!r} has more than a host and a port.",
            remedy=f"S3 signs the path of a request. Serve S3 at {parsed.scheme}://{parsed.netloc} without a path.",
        )
    return f"{parsed.scheme}://{parsed.netloc}"


def _check_authorities(endpoint: str) -> None:
    """Refuse a file of certificates that cannot be read, or that one of the two clients would not read."""
    named = os.environ.get("SSL_CERT_FILE", "")
    if named and not Path(named).is_file():
        raise ConfigError(f"SSL_CERT_FILE = {named!r} is no file.", remedy="Name a PEM file of certificates.")
    if os.environ.get("AWS_CA_BUNDLE") and not named and endpoint.startswith("https:"):
        raise ConfigError(
            "AWS_CA_BUNDLE is set without SSL_CERT_FILE.",
            remedy="Set SSL_CERT_FILE to the same file: Lance reads certificates from there alone.",
        )


def _source(endpoint: str, region: str) -> FindProvider:
    """The first source that the environment names: keys, web identity, container, instance, or none: anonymous."""
    given = [name for name in KEYS if os.environ.get(name)]
    if len(given) == 1:
        missing = next(name for name in KEYS if name not in given)
        raise ConfigError(f"{given[0]} is set without {missing}.", remedy="Set both, or neither.")
    if given:
        access, secret = (os.environ[name] for name in KEYS)
        keys = StaticProvider(access, secret, os.environ.get("AWS_SESSION_TOKEN") or None)
        return lambda: keys
    amazon = _is_amazon(endpoint)
    if os.environ.get(IDENTITY_FILE):
        sts = os.environ.get("AWS_ENDPOINT_URL_STS") or (_sts(region) if amazon else endpoint)
        identity = _web_identity(sts.rstrip("/"), needs_role=amazon)
        return lambda: identity
    if any(os.environ.get(name) for name in CONTAINER):
        remedy = f"Check {' or '.join(CONTAINER)}, and that the role may be used here."
        role = RenewingProvider("The service of the container", remedy, lambda: IamAwsProvider(http_client=_pool()))
        return lambda: role
    asks = amazon or bool(os.environ.get(METADATA_ENDPOINT))
    return _instance if asks and os.environ.get(METADATA_OFF, "").lower() != "true" else lambda: None


def _is_amazon(endpoint: str) -> bool:
    return AMAZON.fullmatch(urlsplit(endpoint).hostname or "") is not None


def _sts(region: str) -> str:
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _web_identity(sts: str, *, needs_role: bool) -> RenewingProvider:
    file, role = os.environ[IDENTITY_FILE], os.environ.get(ROLE)
    if needs_role and not role:
        raise ConfigError(f"{IDENTITY_FILE} is set without {ROLE}.", remedy=f"Set {ROLE} to the role's ARN.")

    def token() -> dict[str, str]:
        return {"access_token": Path(file).read_text().strip()}  # Kubernetes writes a new token into the file

    return RenewingProvider(
        f"The security token service {sts}",
        f"Check {IDENTITY_FILE}, {ROLE} and the role's trust policy. AWS_ENDPOINT_URL_STS names another service.",
        lambda: WebIdentityProvider(
            jwt_provider_func=token,
            sts_endpoint=sts,
            role_arn=role,
            role_session_name=os.environ.get("AWS_ROLE_SESSION_NAME", "mantis"),
            http_client=_pool(),
        ),
    )


def _instance() -> RenewingProvider | None:
    """The role of the machine, if it has one."""
    found = RenewingProvider(
        "The metadata service of the instance",
        f"Check the role of the instance, or set {' and '.join(KEYS)}.",
        lambda: IamAwsProvider(
            custom_endpoint=os.environ.get(METADATA_ENDPOINT, "").rstrip("/") or None,
            http_client=_pool(retries=0 if not os.environ.get(METADATA_ENDPOINT) else RETRIES),
        ),
    )
    try:
        found.retrieve()
    except StoreError as error:
        logger.info("Requests to S3 are anonymous: no credentials are set. %s", error.problem)
        return None
    return found


def _pool(retries: int = RETRIES) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=BoundedRetry(total=retries, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
    )
