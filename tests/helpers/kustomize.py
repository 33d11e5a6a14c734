"""What kustomize makes of the manifests."""

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.yaml_files import documents

NOT_IN_A_NAMESPACE = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}  # they name `mantis` itself


def built(folder: Path, *, resources: Sequence[str], components: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects of an overlay in the empty `folder` with these folders of manifests/."""
    if shutil.which("kubectl") is None:
        pytest.skip("no `kubectl` on PATH: the overlay is not rendered")

    def relative(names: Sequence[str]) -> list[str]:
        return [os.path.relpath(ROOT / "manifests" / name, folder) for name in names]

    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": relative(resources),
        "components": relative(components),
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for each in documents(done.stdout) if each]


def moved(
    objects: list[dict[str, Any]], namespace: str, runtime: str, *, with_volumes: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The objects in other namespaces, under another name of the runtime.

    The StatefulSets of `with_volumes` keep their claims. The others lose their data with the pod.
    """
    text = yaml.safe_dump_all([each for each in objects if each["kind"] not in NOT_IN_A_NAMESPACE])
    for old in ("mantis-steps", "mantis"):
        text = text.replace(f"namespace: {old}\n", f"namespace: {old.replace('mantis', namespace, 1)}\n")
    text = text.replace("names: mantis-steps\n", f"names: {namespace}-steps\n")
    text = text.replace("mlflow.mantis", f"mlflow.{namespace}")
    found = documents(text)
    for each in found:
        if each["kind"] == "Namespace":
            each["metadata"]["name"] = each["metadata"]["name"].replace("mantis", namespace, 1)
        elif each["kind"] == "ClusterTrainingRuntime":
            each["metadata"]["name"] = runtime
        elif each["kind"] == "StatefulSet" and each["metadata"]["name"] not in with_volumes:
            del each["spec"]["volumeClaimTemplates"]
            each["spec"]["template"]["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
    return found
