"""The component `tls` on a cluster: a run whose pods talk to MinIO and MLflow in TLS alone.

The overlay `local` with the component is applied to namespaces of the test, because its addresses and certificates hold
the namespace. The two servers keep their data in the pod.
"""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.own_namespaces import Installed, installed_with
from tests.helpers.kubectl import Kube
from tests.helpers.kustomize import built

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
# Asks both servers by the names in the environment: over HTTP, over TLS without the authority, and with it.
ASK = """
import json, os, ssl, urllib.error, urllib.request
import certifi

def answer(url, context=None):
    try:
        return str(urllib.request.urlopen(url, context=context, timeout=60).status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

found = {}
for name, variable, path in (
    ("minio", "AWS_ENDPOINT_URL", "/minio/health/ready"), ("mlflow", "MLFLOW_TRACKING_URI", "/health")
):
    url = os.environ[variable] + path
    found[name] = {
        "address": url,
        "http": answer(url.replace("https:", "http:")),
        "unknown": answer(url, ssl.create_default_context(cafile=certifi.where())),
        "trusted": answer(url, ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])),
    }
print(json.dumps(found))
"""
# Prints the status of the only run in MLflow, the names of its metrics, and its artifacts.
TRACKED = """
import json
from mlflow import MlflowClient

client = MlflowClient()
(run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
print(json.dumps({
    "status": run.info.status,
    "metrics": sorted(run.data.metrics),
    "artifacts": [each.path for each in client.list_artifacts(run.info.run_id)],
}))
"""


@pytest.fixture(scope="module")
def installed(kube: Kube, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    objects = built(tmp_path_factory.mktemp("lab"), resources=["overlays/local"], components=["tls"])
    with installed_with(kube, image, objects) as made:
        yield made


def test_both_servers_refuse_clear_text_and_clients_that_do_not_know_the_authority(installed: Installed) -> None:
    found = json.loads(installed.in_pod("python3", "-c", ASK).splitlines()[-1])
    assert found.keys() == {"minio", "mlflow"}
    for name, said in found.items():
        assert said["address"].startswith(f"https://{name}.{installed.namespace}.svc:")
        assert said["trusted"] == "200"
        assert "CERTIFICATE_VERIFY_FAILED" in said["unknown"]
        # MinIO answers 400 to clear text, and MLflow ends the connection.
        assert said["http"] == "400" or any(word in said["http"] for word in ("reset", "closed", "Remote")), said


def test_a_whole_run_with_ranks_in_pods_of_a_trainjob(installed: Installed, image: str) -> None:
    """One command in a pod: steps there, two ranks in pods of their own, everything over TLS."""
    installed.in_pod(*installed.little_run(image))
    log = installed.in_pod("sh", "-c", "cat $MANTIS_LOG_DIR/*.log")
    assert f"TrainJob {installed.namespace}/train-demo-" in log
    tracked = json.loads(installed.in_pod("python3", "-c", TRACKED).splitlines()[-1])
    assert tracked["status"] == "FINISHED"
    assert "train/loss" in tracked["metrics"]
    assert "report.html" in tracked["artifacts"]


def test_the_certificates_name_the_services_of_this_namespace(installed: Installed) -> None:
    from cryptography import x509

    authorities = {}
    for service in ("minio", "mlflow"):
        values = installed.kube.secret(installed.namespace, f"mantis-{service}-tls")
        certificate = x509.load_pem_x509_certificate(values["tls.crt"].encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert f"{service}.{installed.namespace}.svc" in names.get_values_for_type(x509.DNSName)
        authorities[service] = values["ca.crt"].strip()
    for namespace in (installed.namespace, installed.steps):  # make-secrets copies them for the steps
        trusted = installed.kube.secret(namespace, "mantis-authorities")["authorities.pem"]
        assert all(authority in trusted for authority in authorities.values())
