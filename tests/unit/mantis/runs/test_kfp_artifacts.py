from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, load_manifest, provenance
from mantis.config.recipe import Recipe
from mantis.runs.kfp_artifacts import hand_on
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore


@dataclass
class Output:
    path: str
    metadata: dict[str, Any] = field(default_factory=dict)


def test_an_artifact_of_kfp_shows_address_and_figures(tmp_path: Path) -> None:
    run = Run(id="mine", store=LocalStore(tmp_path / "store"), recipe=Recipe(name="x"))
    manifest = Manifest(
        kind=ArtifactKind.CHECKPOINT,
        key="checkpoints/f",
        fingerprint="f",
        made_by=provenance("train", 1, {}),
        summary={"last_loss": 0.5, "steps": 10, "attention": "eager"},
    )
    output = Output(path=str(tmp_path / "deep" / "checkpoint"))
    hand_on(run, manifest, output, learning_rate="5e-06", part="demo-multi")
    assert load_manifest(output.path).key == "checkpoints/f"
    assert output.metadata == {
        "display_name": "checkpoint: demo-multi",
        "address": f"{run.store.url}/checkpoints/f",
        "fingerprint": "f",
        "run": "mine",
        "last_loss": 0.5,
        "steps": 10,
        "attention": "eager",
        "learning_rate": "5e-06",
    }
