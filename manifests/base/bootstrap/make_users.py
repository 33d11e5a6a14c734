"""Create the bucket, MinIO's users with minimal permissions, and MLflow's user. The script can run repeatedly.

It leaves an external store or tracking server alone: its operator creates the users.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio, MinioAdmin
from minio.commonconfig import Filter
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule
from minio.versioningconfig import ENABLED, VersioningConfig

NAMESPACE = os.environ["NAMESPACE"]
SECRETS = Path(os.environ["SECRETS"])  # the mounted Secrets: <name>/user, <name>/password, <name>/endpoint
BUCKET = "mantis"
OLD_DAYS = 7  # for which MinIO keeps what was deleted or replaced
# A training writes these every few seconds. MinIO refuses an object with 10,000 versions.
SIGNS_OF_LIFE = ("*/heartbeat.json", "*/progress.json")
PATIENCE = 240.0  # seconds for the services to start
OBJECTS = f"arn:aws:s3:::{BUCKET}/*"
READ = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [OBJECTS]}
LIST = {
    "Effect": "Allow",
    "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
    "Resource": [f"arn:aws:s3:::{BUCKET}"],
}
WRITE = {
    "Effect": "Allow",
    "Action": ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
    "Resource": [OBJECTS],
}
# Steps that evaluate, report and keep records read everything, and write below these folders alone. A store may lie
# below a prefix of the bucket. So data, checkpoints and models are safe from them.
RESULT_FOLDERS = ("runs", "external-models", "evaluations", "responses", "reports", "deployments")
WRITE_RESULTS = WRITE | {
    "Resource": [f"arn:aws:s3:::{BUCKET}/{place}{folder}/*" for folder in RESULT_FOLDERS for place in ("", "*/")]
}
# MinIO lets s3:DeleteObject delete old versions, too, unless a policy denies it. So a stolen key or a wrong command
# destroys nothing for OLD_DAYS.
KEEP = {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": [OBJECTS]}
USERS = (
    ("store", [READ, LIST, WRITE, KEEP]),
    ("store-results", [READ, LIST, WRITE_RESULTS, KEEP]),
    ("store-read", [READ, LIST]),
)


def value(name: str) -> str:
    """Read a value of a mounted Secret."""
    return (SECRETS / name).read_text().strip()


def is_ours(service: str, endpoint: str) -> bool:
    """Whether an address belongs to a Service of this namespace."""
    host = (urlsplit(endpoint).hostname or "").split(".")
    return host[:2] in ([service], [service, NAMESPACE])


def patiently(what: str, work: Callable[[], None]) -> None:
    """Run `work`, and repeat it until the service answers, for at most PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            work()
        except (OSError, urllib.error.URLError, MinioAdminException) as error:
            if time.monotonic() > until:
                raise
            print(f"{what} is not there yet: {str(error).splitlines()[0][:120]}")
            time.sleep(3)
        else:
            print(f"{what}: done")
            return


def set_up_minio() -> None:
    """Create the bucket with its rule for old versions, policies and users."""
    address = urlsplit(value("store/endpoint"))
    host, secure = address.netloc, address.scheme == "https"
    user, password = value("minio-root/user"), value("minio-root/password")
    client = Minio(host, access_key=user, secret_key=password, secure=secure)
    try:
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)
        keep_old_versions(client)
    except Exception as error:  # an error of urllib3 or MinIO: the server is starting
        raise OSError(str(error)) from error
    admin = MinioAdmin(endpoint=host, credentials=StaticProvider(user, password), secure=secure)
    for secret, statements in USERS:
        name = value(f"{secret}/user")
        policy = {"Version": "2012-10-17", "Statement": statements}
        admin.policy_add(f"{name}-policy", policy=policy)
        admin.user_add(name, value(f"{secret}/password"))
        admin.policy_set(f"{name}-policy", user=name)


def keep_old_versions(client: Minio) -> None:
    """Keep old versions of objects for OLD_DAYS. The root account alone may change this."""
    client.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED, excluded_prefixes=list(SIGNS_OF_LIFE)))
    old = NoncurrentVersionExpiration(noncurrent_days=OLD_DAYS)
    rule = Rule(
        "Enabled",
        rule_filter=Filter(prefix=""),
        rule_id="old-versions",
        noncurrent_version_expiration=old,
        expiration=Expiration(expired_object_delete_marker=True),
    )
    client.set_bucket_lifecycle(BUCKET, LifecycleConfig([rule]))


def set_up_mlflow() -> None:
    """Create the user that logs runs; an existing one gets the password of the Secret."""
    user = {"username": value("mlflow/user"), "password": value("mlflow/password")}
    try:
        ask_mlflow("POST", "users/create", user)
    except urllib.error.HTTPError as error:
        if "RESOURCE_ALREADY_EXISTS" not in error.read().decode(errors="replace"):
            raise
        ask_mlflow("PATCH", "users/update-password", user)


def ask_mlflow(method: str, path: str, body: dict[str, str]) -> None:
    """Call MLflow once as its administrator."""
    credentials = base64.b64encode(f"admin:{value('mlflow-server/password')}".encode()).decode()
    request = urllib.request.Request(
        f"{value('mlflow/endpoint')}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
        method=method,
    )
    urllib.request.urlopen(request, timeout=30).close()


def main() -> None:
    """Create the users of each server that belongs to this namespace."""
    for service, endpoint, work in (
        ("minio", value("store/endpoint"), set_up_minio),
        ("mlflow", value("mlflow/endpoint"), set_up_mlflow),
    ):
        if is_ours(service, endpoint):
            patiently(service, work)
        else:
            print(f"{service}: {endpoint} is not ours and is left alone")


if __name__ == "__main__":
    main()
