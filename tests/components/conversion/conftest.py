import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mantis.artifacts.manifest import Kind, MadeBy, Manifest, commit_manifest, describe_files
from mantis.config.recipe import ConversionSettings, ModelSettings, Recipe, TrainingSettings
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore

TAG = "step-00000002"
FOLDER = "checkpoints/trained"

Start = Callable[..., tuple[Run, Manifest]]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What zero_ranks.py writes, written once, or what it wrote to MANTIS_ZERO_CHECKPOINTS before."""
    if os.environ.get("MANTIS_ZERO_CHECKPOINTS"):
        return Path(os.environ["MANTIS_ZERO_CHECKPOINTS"])
    out = tmp_path_factory.mktemp("zero")
    script = Path(__file__).parent / "zero_ranks.py"
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out


@pytest.fixture
def layout(real: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one layout, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(real / name, tmp_path / name))

    return copy


@pytest.fixture
def start(real: Path, tmp_path: Path) -> Start:
    """A run on a store of its own that holds the tiny model's checkpoint, after `damage` was done to it."""

    def begin(
        precision: str = "fp32", damage: Callable[[Path], None] = lambda _: None, what: str = "llava"
    ) -> tuple[Run, Manifest]:
        root = tmp_path / "store"
        shutil.copytree(real / what, root)
        damage(root / FOLDER)
        store = LocalStore(root)
        made_by = MadeBy(
            run="r", step="train", revision=1, config_hash="c", code_version="unknown", image_digest="none"
        )
        manifest = Manifest(
            kind=Kind.CHECKPOINT,
            key=FOLDER,
            fingerprint="trained",
            made_by=made_by,
            files=describe_files(store, FOLDER),
            summary={"steps": 2},
        )
        commit_manifest(store, manifest)
        recipe = Recipe(
            name="tiny",
            model=ModelSettings(family="llava-clip"),
            training=TrainingSettings(precision="fp32"),
            conversion=ConversionSettings.model_validate({"precision": precision}),
        )
        return Run(id="r", store=store, recipe=recipe), manifest

    return begin
