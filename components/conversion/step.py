"""The step `convert`: turn a committed ZeRO checkpoint into a Hugging Face model folder, with adapters merged."""

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest
from mantis.runs.step_runner import Run, StepSpec, run_step

REVISION = 1


def convert(run: Run, checkpoint: Manifest) -> Manifest:
    """Convert a step of the checkpoint to models/<fingerprint>/, and commit it after the proof that both are equal.

    `conversion.checkpoint` chooses the last step or the best one.

    Raises:
        ConversionError: the checkpoint cannot be converted, or the model differs from it.
    """
    task = StepSpec(
        step="convert",
        kind=ArtifactKind.MODEL,
        revision=REVISION,
        config={"conversion": run.recipe.conversion.identity(), "model": run.recipe.model.identity("family")},
        inputs={"checkpoint": checkpoint},
    )

    def work(prefix: str) -> dict[str, bool | int | float | str]:
        # Imported here: torch and transformers take seconds to import, and an existing result needs neither.
        from components.conversion.convert_checkpoint import convert_checkpoint

        return convert_checkpoint(run, checkpoint, prefix)

    return run_step(run, task, work)
