"""Create missing Secrets with random passwords. Existing Secrets stay unchanged.

The script runs as a Job in the namespace of TrainJobs. It also copies the keys of the steps to the namespaces in
STEP_NAMESPACES (separated by commas), where its account may create Secrets and change these. It updates its own
copies. A Secret of the same name that another account created stays unchanged.
"""

import base64
import json
import os
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST = os.environ["KUBERNETES_SERVICE_HOST"]
API = f"https://{f'[{HOST}]' if ':' in HOST else HOST}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1"
FOR_STEPS = ("mantis-store", "mantis-store-results", "mantis-mlflow")
LABELS = {"app.kubernetes.io/part-of": "mantis-kfp"}
TLS = os.environ.get("TLS") == "true"  # the component `tls`
# Certificates that clients trust. All pods mount this Secret at the same place, if it exists.
AUTHORITIES, AUTHORITIES_FILE = "mantis-authorities", "authorities.pem"
AUTHORITIES_PATH = f"/etc/mantis/{AUTHORITIES_FILE}"


def request(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the API server once.

    Raises:
        urllib.error.HTTPError: the server refuses.
    """
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
    if method == "PATCH":
        headers["Content-Type"] = "application/merge-patch+json"
    data = json.dumps(body).encode() if body else None
    call = urllib.request.Request(API + path, data=data, method=method, headers=headers)
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(call, context=context, timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


def ensure(namespace: str, name: str, values: dict[str, Any]) -> None:
    """Create a Secret with `values` (its `data` or `stringData`) unless one of that name exists."""
    try:
        request("POST", f"/namespaces/{namespace}/secrets", {"metadata": {"name": name, "labels": LABELS}, **values})
        print(f"{namespace}/{name} made")
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        print(f"{namespace}/{name} is there")


def copy(source: dict[str, Any], namespace: str) -> None:
    """Copy the Secret `source` to another namespace, or update its copy to the current values."""
    name, data = source["metadata"]["name"], source["data"]
    ensure(namespace, name, {"data": data})
    update(namespace, name, data)


def update(namespace: str, name: str, data: dict[str, str]) -> None:
    """Change a Secret of ours to `data`, in base64."""
    there = request("GET", f"/namespaces/{namespace}/secrets/{name}")
    ours = LABELS.items() <= there["metadata"].get("labels", {}).items()
    if ours and there["data"] != data:
        request("PATCH", f"/namespaces/{namespace}/secrets/{name}", {"data": data})
        print(f"{namespace}/{name} follows")


def found(namespace: str, name: str) -> dict[str, Any] | None:
    """The Secret; None if there is none."""
    try:
        return request("GET", f"/namespaces/{namespace}/secrets/{name}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def own_results(here: str) -> dict[str, str]:
    """The keys of an S3 service of yours for steps that write results alone; empty for the MinIO of this namespace.

    They are those of `mantis-store`, until you create the Secret with narrower ones.
    """
    store = found(here, "mantis-store")
    values = {key: base64.b64decode(value).decode() for key, value in store["data"].items()} if store else {}
    ours = [f"{scheme}://minio.{here}.svc:9000" for scheme in ("http", "https")]
    return {} if not values or values["AWS_ENDPOINT_URL"] in ours else values


def certificates(here: str) -> None:
    """Create the certificates of both servers, and let every client trust the authorities that signed them.

    A certificate of yours needs the key `ca.crt` beside it, as cert-manager writes it.
    """
    from make_certificates import SERVICES, bundle, hosts, issue

    for service, values in issue({each: hosts(each, here) for each in SERVICES}).items():
        ensure(here, f"mantis-{service}-tls", {"type": "kubernetes.io/tls", "stringData": values})
    signed = [request("GET", f"/namespaces/{here}/secrets/mantis-{service}-tls")["data"] for service in SERVICES]
    signers = [base64.b64decode(each["ca.crt"]).decode().strip() for each in signed]
    data = {AUTHORITIES_FILE: base64.b64encode(bundle(signers).encode()).decode()}
    ensure(here, AUTHORITIES, {"data": data})
    update(here, AUTHORITIES, data)
    trusted = request("GET", f"/namespaces/{here}/secrets/{AUTHORITIES}")["data"].get(AUTHORITIES_FILE, "")
    if not all(signer in base64.b64decode(trusted).decode() for signer in signers):
        sys.exit(f"Your Secret {here}/{AUTHORITIES} lacks ca.crt of a server. Add it to the key {AUTHORITIES_FILE}.")


def main() -> None:
    """Create all Secrets of the namespace, then the copies for steps."""
    here = (ACCOUNT / "namespace").read_text()
    if TLS:  # first, because a pod that has the addresses starts
        certificates(here)
    password = secrets.token_hex
    scheme = "https" if TLS else "http"
    region = {"AWS_ENDPOINT_URL": f"{scheme}://minio.{here}.svc:9000", "AWS_REGION": "us-east-1"}
    region |= {"SSL_CERT_FILE": AUTHORITIES_PATH} if TLS else {}
    trust = {"MLFLOW_TRACKING_SERVER_CERT_PATH": AUTHORITIES_PATH} if TLS else {}
    keys = {"AWS_ACCESS_KEY_ID": "mantis", "AWS_SECRET_ACCESS_KEY": password(20)}
    results = {"AWS_ACCESS_KEY_ID": "mantis-results", "AWS_SECRET_ACCESS_KEY": password(20)}
    database = password(20)
    reader = {"AWS_ACCESS_KEY_ID": "mantis-read", "AWS_SECRET_ACCESS_KEY": password(20)}
    wanted = {
        "mantis-minio-root": {"MINIO_ROOT_USER": "root-" + password(4), "MINIO_ROOT_PASSWORD": password(20)},
        "mantis-store": region | keys,
        "mantis-store-results": own_results(here) or region | results,
        "mantis-store-read": region | reader,
        "mantis-mlflow-server": {
            "MLFLOW_AUTH_ADMIN_PASSWORD": password(20),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": password(32),
        },
        "mantis-mlflow": {
            "MLFLOW_TRACKING_URI": f"{scheme}://mlflow.{here}.svc:5000",
            **trust,
            "MLFLOW_TRACKING_USERNAME": "mantis",
            "MLFLOW_TRACKING_PASSWORD": password(20),
        },
        "mantis-server": {"MANTIS_API_KEY": password(20)},
        "mantis-postgresql": {
            "POSTGRES_PASSWORD": database,
            "MLFLOW_BACKEND_STORE_URI": f"postgresql://mlflow:{database}@postgresql.{here}.svc:5432/mlflow",
        },
    }
    for name, values in wanted.items():
        ensure(here, name, {"stringData": values})
    for namespace in filter(None, os.environ.get("STEP_NAMESPACES", "").split(",")):
        for name in FOR_STEPS:
            copy(request("GET", f"/namespaces/{here}/secrets/{name}"), namespace)
        authorities = found(here, AUTHORITIES)
        if authorities:
            copy(authorities, namespace)


if __name__ == "__main__":
    main()
