"""TLS inside of the cluster: who gets certificates, who trusts them, and which names they hold."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from mantis.config.cluster_settings import AUTHORITIES, AUTHORITIES_FOLDER
from tests.helpers.bootstrap import TLS, SecretsInMemory, script
from tests.helpers.kustomize import built
from tests.helpers.paths import ROOT
from tests.helpers.restricted_pods import assert_restricted
from tests.helpers.yaml_files import documents

PATH = f"{AUTHORITIES_FOLDER}/authorities.pem"


@pytest.fixture
def secrets(tmp_path: Path) -> SecretsInMemory:
    return SecretsInMemory(tmp_path, tls=True)


def test_addresses_and_trust_come_together(secrets: SecretsInMemory) -> None:
    secrets.run()
    for name in ("mantis-store", "mantis-store-results", "mantis-store-read"):
        values = secrets.values(name)
        assert values["AWS_ENDPOINT_URL"] == "https://minio.mantis.svc:9000"
        assert values["SSL_CERT_FILE"] == PATH
    tracking = secrets.values("mantis-mlflow")
    assert tracking["MLFLOW_TRACKING_URI"] == "https://mlflow.mantis.svc:5000"
    assert tracking["MLFLOW_TRACKING_SERVER_CERT_PATH"] == PATH
    assert secrets.values(AUTHORITIES, "mantis-steps") == secrets.values(AUTHORITIES)
    # A pod starts once it has the address: the certificates must be there by then.
    created = [name for _, name in secrets.created]
    assert created.index(AUTHORITIES) < created.index("mantis-store")


def test_without_the_component_nothing_is_encrypted_and_no_certificate_is_made(tmp_path: Path) -> None:
    secrets = SecretsInMemory(tmp_path, tls=False)
    secrets.run()
    assert secrets.values("mantis-store").keys() == {
        "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    }  # fmt: skip
    assert secrets.values("mantis-store")["AWS_ENDPOINT_URL"] == "http://minio.mantis.svc:9000"
    assert not [name for _, name in secrets.kept if "tls" in name or name == AUTHORITIES]


def test_a_second_run_changes_nothing(secrets: SecretsInMemory) -> None:
    secrets.run()
    before = {place: dict(found["data"]) for place, found in secrets.kept.items()}
    secrets.run()
    assert {place: dict(found["data"]) for place, found in secrets.kept.items()} == before


def test_new_certificates_reach_every_client(secrets: SecretsInMemory) -> None:
    secrets.run()
    old = secrets.values("mantis-minio-tls")["ca.crt"].strip()
    for name in ("mantis-minio-tls", "mantis-mlflow-tls"):
        del secrets.kept["mantis", name]
    secrets.run()
    new = secrets.values("mantis-minio-tls")["ca.crt"].strip()
    for namespace in ("mantis", "mantis-steps"):
        trusted = secrets.values(AUTHORITIES, namespace)["authorities.pem"]
        assert new in trusted
        assert old not in trusted


def test_certificates_of_yours_stay_and_are_trusted(secrets: SecretsInMemory) -> None:
    yours = script(TLS / "make_certificates.py", {}).issue({"minio": ["minio.mantis.svc"]})["minio"]
    secrets._request(
        "POST", "/namespaces/mantis/secrets", {"metadata": {"name": "mantis-minio-tls"}, "stringData": yours}
    )
    secrets.run()
    assert secrets.values("mantis-minio-tls") == yours
    assert yours["ca.crt"].strip() in secrets.values(AUTHORITIES)["authorities.pem"]


def test_authorities_of_yours_without_ours_are_named(secrets: SecretsInMemory) -> None:
    yours = {"metadata": {"name": AUTHORITIES}, "stringData": {"authorities.pem": "another"}}
    secrets._request("POST", "/namespaces/mantis/secrets", yours)
    with pytest.raises(SystemExit, match=r"mantis/mantis-authorities lacks ca\.crt"):
        secrets.run()
    assert secrets.values(AUTHORITIES) == {"authorities.pem": "another"}


def shake_hands(values: dict[str, str], trusted: str, host: str, folder: Path) -> None:
    """A TLS handshake in memory, with a client that is as strict as it can be.

    Raises:
        ssl.SSLError: the client refuses the certificate.
    """
    (folder / "both.pem").write_text(values["tls.crt"] + values["tls.key"])
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cadata=trusted)
    serving.load_cert_chain(folder / "both.pem")
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = serving.wrap_bio(up, down, server_side=True), asking.wrap_bio(down, up, server_hostname=host)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("service", ["minio", "mlflow"])
def test_each_certificate_is_for_the_names_of_its_service_alone(
    secrets: SecretsInMemory, service: str, tmp_path: Path
) -> None:
    secrets.run()
    values, trusted = secrets.values(f"mantis-{service}-tls"), secrets.values(AUTHORITIES)["authorities.pem"]
    for host in (service, f"{service}.mantis.svc", f"{service}.mantis.svc.cluster.local", "localhost", "127.0.0.1"):
        shake_hands(values, trusted, host, tmp_path)
    other = {"minio": "mlflow", "mlflow": "minio"}[service]
    for host in (f"{other}.mantis.svc", "example.org", "10.0.0.1"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(values, trusted, host, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(values, secrets_of_another_cluster(tmp_path), service, tmp_path)


def secrets_of_another_cluster(folder: Path) -> str:
    other = SecretsInMemory(folder, tls=True)
    other.run()
    return other.values(AUTHORITIES)["authorities.pem"]


def test_clients_still_trust_public_services(secrets: SecretsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    secrets.run()
    trusted = secrets.values(AUTHORITIES)["authorities.pem"]
    assert trusted.startswith(Path(certifi.where()).read_text(encoding="utf-8").rstrip())
    ours = {secrets.values(f"mantis-{service}-tls")["ca.crt"].strip() for service in ("minio", "mlflow")}
    assert len(ours) == 1
    assert trusted.rstrip().endswith(ours.pop())
    assert len(secrets.kept["mantis", AUTHORITIES]["data"]["authorities.pem"]) < 1 << 20  # the limit of a Secret


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """The objects of an overlay with every component that calls MinIO or MLflow, by kind and name."""
    folder = tmp_path_factory.mktemp("lab")
    objects = built(folder, resources=["overlays/a100"], components=["backup", "postgresql", "monitoring", "tls"])
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def pod_of(found: Any) -> Any:
    spec = found["spec"]
    if found["kind"] == "ClusterTrainingRuntime":
        spec = spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    return (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]["spec"]


def test_both_servers_speak_tls_and_their_probes_too(rendered: dict[tuple[str, str], Any]) -> None:
    for name, path in (("minio", "/tmp/certs"), ("mlflow", "/etc/tls")):
        pod = pod_of(rendered["StatefulSet", name])
        assert_restricted(pod)
        container = next(each for each in pod["containers"] if each["name"] == name)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        assert {"name": "tls", "mountPath": path, "readOnly": True} in container["volumeMounts"]
        (volume,) = [each for each in pod["volumes"] if each["name"] == "tls"]
        assert volume["secret"]["secretName"] == f"mantis-{name}-tls"
        files = {item["path"] for item in volume["secret"]["items"]}
        assert files >= ({"public.crt", "private.key"} if name == "minio" else {"tls.crt", "tls.key"})
    assert any("--ssl-certfile=/etc/tls/tls.crt" in each for each in container["args"])


@pytest.mark.parametrize(
    "client",
    [
        ("ClusterTrainingRuntime", "mantis-deepspeed"),
        ("Job", "make-users"),
        ("CronJob", "back-up"),
        ("CronJob", "restore"),
    ],
)
def test_each_client_has_the_authorities(rendered: dict[tuple[str, str], Any], client: tuple[str, str]) -> None:
    pod = pod_of(rendered[client])
    assert {"name": "authorities", "secret": {"secretName": AUTHORITIES, "optional": True}} in pod["volumes"]
    (container,) = pod["containers"]
    assert {"name": "authorities", "mountPath": AUTHORITIES_FOLDER, "readOnly": True} in container["volumeMounts"]
    secrets = [each["secretRef"]["name"] for each in container.get("envFrom", ())]
    variables = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if each["name"] == "SSL_CERT_FILE"]
    assert "mantis-store" in secrets or variables[0]["name"].startswith("mantis-store")


def test_the_job_of_the_component_may_read_what_it_makes(rendered: dict[tuple[str, str], Any]) -> None:
    (container,) = pod_of(rendered["Job", "make-secrets"])["containers"]
    assert {"name": "TLS", "value": "true"} in container["env"]
    assert "make_certificates.py" in rendered["ConfigMap", "mantis-bootstrap"]["data"]
    rules = rendered["Role", "mantis-bootstrap"]["rules"]
    readable = {name for rule in rules if "get" in rule["verbs"] for name in rule["resourceNames"]}
    assert {"mantis-minio-tls", "mantis-mlflow-tls", AUTHORITIES} <= readable
    assert "mantis-minio-root" not in readable


def test_prometheus_reads_minio_by_tls(rendered: dict[tuple[str, str], Any]) -> None:
    (endpoint,) = rendered["PodMonitor", "mantis-minio"]["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"]["secret"]["name"] == AUTHORITIES
    assert endpoint["tlsConfig"]["serverName"] == "minio.mantis.svc"


def test_every_task_of_kfp_mounts_the_authorities_and_gets_their_path() -> None:
    compiled = sorted((ROOT / "pipelines/compiled").glob("*.yaml"))
    assert compiled
    for path in compiled:
        executors = documents(path.read_text())[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for executor in executors.values():
            (volume,) = executor["secretAsVolume"]
            assert volume["mountPath"] == AUTHORITIES_FOLDER
            assert volume["optional"] is True
            variables = {key["envVar"] for each in executor["secretAsEnv"] for key in each["keyToEnv"]}
            assert "SSL_CERT_FILE" in variables
            assert ("MLFLOW_TRACKING_URI" in variables) == ("MLFLOW_TRACKING_SERVER_CERT_PATH" in variables)
