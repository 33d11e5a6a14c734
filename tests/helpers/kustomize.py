"""What kustomize makes of the manifests."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.yaml_files import documents


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
