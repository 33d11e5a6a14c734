"""What decides the address of a checkpoint."""

from components.training.step import training_task
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.runs.step_runner import Run


def committed(run: Run, kind: ArtifactKind, key: str, fingerprint: str) -> Manifest:
    made_by = MadeBy(run="", step="s", revision=1, config_hash="c", code_version="v", image_digest="none")
    manifest = Manifest(kind=kind, key=key, fingerprint=fingerprint, made_by=made_by)
    commit_manifest(run.store, manifest)
    return manifest


def test_other_weights_under_the_same_name_are_another_checkpoint(run: Run) -> None:
    mixture = committed(run, ArtifactKind.MIXTURE, "mixtures/m", "m")
    named = run.recipe.model.model_copy(update={"base": "mantis-8b-clip-llama3"})
    run = Run(id=run.id, store=run.store, recipe=run.recipe.model_copy(update={"model": named}))
    key = f"models/bases/mantis-8b-clip-llama3/{'a' * 40}"
    base = committed(run, ArtifactKind.SOURCE, key, "first")
    task = training_task(run, mixture)
    assert task.inputs == {"mixture": mixture, "base": base}
    committed(run, ArtifactKind.SOURCE, key, "second")
    assert training_task(run, mixture).fingerprint() != task.fingerprint()


def test_a_tiny_model_has_no_other_input_than_the_mixture(run: Run) -> None:
    mixture = committed(run, ArtifactKind.MIXTURE, "mixtures/m", "m")
    assert training_task(run, mixture).inputs == {"mixture": mixture}
