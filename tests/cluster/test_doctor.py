"""`mantis doctor --cluster` on a cluster that is whole, and with an account that may not do enough."""

import time

from mantis.config.cluster_settings import ClusterSettings
from pipelines.doctor.cluster_checks import examine_cluster
from tests.helpers.kubectl import Kube


def test_everything_that_launching_needs_is_there(kube: Kube, services: dict[str, str], image: str) -> None:
    settings = ClusterSettings(image=image)
    found = {finding.what: finding for finding in examine_cluster(settings, "s3://mantis/doctor", nodes=2)}
    for what in ("API server", "trainjobs", "clustertrainingruntimes", "jobsets", "runtime", "rights", "MLflow"):
        assert found[what].ok, found[what]
    assert found["controllers"].found == "trainer-controller-manager v2.3.0, jobset v0.12.0"
    assert found["GPUs"].found.startswith("0 on 0 of ")
    assert found["all-reduce"].ok, found["all-reduce"]
    assert found["all-reduce"].found.startswith("2 ranks (cpu), ")
    assert "doctor-" not in kube.kubectl("-n", "mantis", "get", "trainjobs,pods", "-o", "name")


def test_what_is_missing_is_named_with_its_remedy(kube: Kube, services: dict[str, str], image: str) -> None:
    settings = ClusterSettings(image=image, runtime="nobodys", namespace="default")
    began = time.monotonic()
    found = {finding.what: finding for finding in examine_cluster(settings, "s3://mantis/doctor", nodes=2)}
    assert time.monotonic() - began < 20  # what an admission webhook refuses is not asked for again
    assert (found["runtime"].ok, found["runtime"].found) == (False, "no nobodys")
    assert "kubectl apply -k" in found["runtime"].remedy
    assert found["all-reduce"].ok is False
    assert "nobodys" in found["all-reduce"].found
