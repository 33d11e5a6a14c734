"""Compile pipelines to YAML for Kubeflow Pipelines, and check that the committed files are up to date."""

import re
import tempfile
from functools import cache
from pathlib import Path

from kfp import compiler
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from mantis.errors import ConfigError
from mantis.runs.kfp_form import FORM_FIELDS
from pipelines.ablation import ablation
from pipelines.data_preparation import data_preparation
from pipelines.evaluation import evaluation
from pipelines.execution.platform import UNBOUND, Platform, steps_of
from pipelines.instruction_tuning import instruction_tuning
from pipelines.sweep import sweep

PIPELINES = {
    "instruction-tuning": instruction_tuning,
    "data-preparation": data_preparation,
    "evaluation": evaluation,
    "ablation": ablation,
    "sweep": sweep,
}
# The input of a pipeline without an image. It has no default, so KFP starts no run, and its message names the input.
NO_IMAGE = "unbound_so_compile_it_with_an_image"
PINNED = re.compile(r"[\w.:/-]+@sha256:[0-9a-f]{64}")


@cache
def known_steps() -> frozenset[str]:
    """Return the names of the steps of all pipelines, which a file of `--platform` may use."""
    return steps_of(PIPELINES.values())


def form_of(pipeline: str) -> list[str]:
    """Return those of a form's own fields that the form of this pipeline has."""
    inputs = PIPELINES[pipeline](Platform()).component_spec.inputs or {}
    return [name for name in FORM_FIELDS if name in inputs]


def compile_all(folder: Path, platform: Platform) -> list[Path]:
    """Write one `<pipeline>.yaml` for each pipeline into `folder`, bound to `platform`; return the paths.

    Without an image, the files are called `unbound-<pipeline>.yaml`, and KFP refuses to start them.

    Raises:
        ConfigError: the image is not pinned by its digest.
    """
    image = platform.image
    if image and not PINNED.fullmatch(image):
        raise ConfigError(
            f"--image {image!r} has no digest: a tag may point to another image in the middle of a run.",
            remedy="Write name@sha256:<64 hex digits>. `crane digest NAME:TAG` prints the digest.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, bind in PIPELINES.items():
        path = folder / f"{'' if image else UNBOUND}{name}.yaml"
        bound = bind(platform)
        if not image:
            inputs = bound.pipeline_spec.root.input_definitions.parameters
            inputs[NO_IMAGE].parameter_type = ParameterType.STRING
        compiler.Compiler().compile(bound, str(path))
        paths.append(path)
    return paths


def stale(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that differ from the compiled code."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = compile_all(Path(scratch), Platform())
        return [
            path.name
            for path in fresh
            if not (folder / path.name).exists() or (folder / path.name).read_text() != path.read_text()
        ]
