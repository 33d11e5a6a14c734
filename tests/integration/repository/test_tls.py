"""A whole run against a MinIO and an MLflow that speak TLS, with the certificates and settings of manifests/tls."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from mantis.errors import StoreError
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import RUN_TAG
from mantis.tracking.reachability import TrackingAwayError, ask_again, check_reachable
from tests.fixtures.cli import Mantis
from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY, running_minio
from tests.helpers.backup import Secrets, run_job
from tests.helpers.bootstrap import READER, TLS, WRITER, SecretsInMemory, make_users
from tests.helpers.little_run import LITTLE
from tests.helpers.tracking_server import PASSWORD, patiently, tracking_server
from tests.helpers.waiting import HANG_SECONDS
from tests.integration.repository.test_restore import client, copy, keys_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
__all__ = ["copy"]

USER = {"mlflow/user": "mantis", "mlflow/password": "of 12 characters at least"}


def patches() -> dict[str, Any]:
    """The patches of the component by the name of what they change."""
    given = yaml.safe_load((TLS / "kustomization.yaml").read_text())["patches"]
    return {
        each["target"]["name"]: yaml.safe_load(each["patch"]) for each in given if "Pod" not in each["target"]["kind"]
    }


def write_certificates(secrets: SecretsInMemory, folder: Path) -> None:
    """The files that the pods mount: those of MinIO under `minio`, of MLflow under `mlflow`, and the authorities."""
    (minio_volume,) = patches()["minio"]["spec"]["template"]["spec"]["volumes"]
    (mlflow_volume,) = [each["value"] for each in patches()["mlflow"] if each["path"].endswith("/volumes/-")]
    for service, volume in (("minio", minio_volume), ("mlflow", mlflow_volume)):
        values = secrets.values(volume["secret"]["secretName"])
        for item in volume["secret"]["items"]:
            file = folder / service / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(values[item["key"]])
    (folder / "authorities.pem").write_text(secrets.values("mantis-authorities")["authorities.pem"])


class Encrypted:
    """Both servers, and what their clients get."""

    def __init__(self, store: str, tracking: str, authorities: Path, volume: Path) -> None:
        self.store, self.tracking, self.authorities, self.volume = store, tracking, authorities, volume

    def environment(self) -> dict[str, str]:
        login = {"MLFLOW_TRACKING_USERNAME": USER["mlflow/user"], "MLFLOW_TRACKING_PASSWORD": USER["mlflow/password"]}
        trust = dict.fromkeys(("SSL_CERT_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH"), str(self.authorities))
        return keys_of(self.store, WRITER) | {"MLFLOW_TRACKING_URI": self.tracking} | login | trust

    def secrets(self, copy: str) -> Secrets:
        trust = {"SSL_CERT_FILE": str(self.authorities)}
        kept = {"ENDPOINT": copy, "REGION": "us-east-1", "BUCKET": "copy"}
        return {
            "mantis-store-read": keys_of(self.store, READER) | trust,
            "mantis-backup": kept | {"ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY},
        }


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """MinIO and MLflow with TLS, after make-secrets and make-users have run."""
    folder = tmp_path_factory.mktemp("encrypted")
    for name in ("job", "certificates", "mlflow"):
        (folder / name).mkdir()
    secrets = SecretsInMemory(folder / "job", tls=True)
    secrets.run()
    certificates = folder / "certificates"
    write_certificates(secrets, certificates)
    authorities = certificates / "authorities.pem"
    (options,) = [each["value"] for each in patches()["mlflow"] if str(each["value"]).startswith("--uvicorn-opts")]
    options = options.replace("/etc/tls/", f"{certificates}/mlflow/")
    with (
        running_minio(folder / "minio", certificates=certificates / "minio") as store,
        tracking_server(folder / "mlflow", more=[options], authority=authorities) as tracking,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(authorities))
            users = make_users(folder / "users", store)
            set_up_mlflow(users, folder / "users", {**USER, "mlflow/endpoint": tracking.url})
        yield Encrypted(store, tracking.url, authorities, folder / "mlflow")


def set_up_mlflow(users: Any, folder: Path, values: Mapping[str, str]) -> None:
    """Create the user that logs runs, as the Job does."""
    for name, value in {**values, "mlflow-server/password": PASSWORD}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
    users.set_up_mlflow()


def test_a_client_without_the_authority_is_told_so(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in encrypted.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("SSL_CERT_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mantis.store.s3.RETRIES", 0)
    with pytest.raises(StoreError, match="signed by an unknown authority"):
        open_store("s3://mantis").get("object")
    ask_again(encrypted.tracking)
    with pytest.raises(TrackingAwayError, match="a certificate that is not trusted"):
        check_reachable(encrypted.tracking)


def test_no_server_answers_in_clear_text(encrypted: Encrypted) -> None:
    import urllib.request

    for url, path in ((encrypted.store, "/minio/health/ready"), (encrypted.tracking, "/health")):
        with pytest.raises(OSError, match=r"400|reset|closed|Remote end"):
            urllib.request.urlopen(url.replace("https:", "http:") + path, timeout=HANG_SECONDS)


def test_a_whole_run_over_tls(
    encrypted: Encrypted, mantis: Mantis, tmp_path: Path, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = encrypted.environment()
    done = mantis("run", "demo", "--name", "whole", *LITTLE, "--store", "s3://mantis", cwd=tmp_path, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://mantis")
    kinds = {entry.key.split("/")[0] for entry in store.list("")}
    assert {"datasets", "checkpoints", "models", "evaluations", "reports", "runs"} <= kinds
    tracked = in_mlflow()
    assert tracked.info.status == "FINISHED"
    assert "train/loss" in tracked.data.metrics
    assert any(artifact.path == "report.html" for artifact in MlflowClient().list_artifacts(tracked.info.run_id))

    run_job("back-up", encrypted.secrets(copy), encrypted.volume)
    copied = {str(each.object_name) for each in client(copy).list_objects("copy", recursive=True)}
    assert {f"bucket/{entry.key}" for entry in store.list("reports")} <= copied
    assert {"mlflow/databases/runs.db", "mlflow/databases/users.db"} <= copied


def in_mlflow() -> Any:
    """The run in MLflow, asked by a client that trusts the authority."""
    patiently(lambda: check_reachable(os.environ["MLFLOW_TRACKING_URI"]))
    asked = MlflowClient()
    experiments = [each.experiment_id for each in asked.search_experiments()]
    (found,) = [run for run in asked.search_runs(experiments) if run.data.tags.get(RUN_TAG) == "whole"]
    return found
