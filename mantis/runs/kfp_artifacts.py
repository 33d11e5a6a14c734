"""Hand the result of a step on as an artifact of KFP: a small manifest, with its most important figures as metadata."""

from typing import Any, Protocol

from mantis.artifacts.manifest import Manifest, save_manifest
from mantis.runs.step_runner import Run


class KfpArtifact(Protocol):
    """An output artifact of a KFP component: the file of its content, and what KFP's page shows beside it."""

    metadata: dict[str, Any]

    @property
    def path(self) -> str: ...


def hand_on(run: Run, manifest: Manifest, artifact: KfpArtifact, *, part: str = "", **more: str) -> None:
    """Write `manifest` as the content of `artifact`, and its address, fingerprint, summary and `more` as metadata.

    In a loop, `part` is the benchmark or the subset: KFP's page numbers the iterations, but shows an artifact's name.
    """
    save_manifest(manifest, artifact.path)
    if part:
        artifact.metadata["display_name"] = f"{manifest.kind.value}: {part}"
    own = {"address": run.store.uri(manifest.key), "fingerprint": manifest.fingerprint, "run": run.id}
    artifact.metadata.update({**own, **manifest.summary, **more})
