"""The run id and the step fingerprints of every shipped recipe, computed from the recipe alone.

Inputs are stand-ins with fixed fingerprints: weights, raw data, benchmarks and the results of earlier steps. So each
fingerprint depends on one step, and nothing is computed.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from components.conversion import step as conversion_step
from components.data import step as data_step
from components.evaluation import step as evaluation_step
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.reporting import step as reporting_step
from components.training import step as training_step
from mantis import synthetic
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, MadeBy, Manifest, commit_manifest
from mantis.config.recipe import Recipe
from mantis.generation.answering_models import FamilyModel
from mantis.generation.cache.response_cache import ResponseCache
from mantis.hashing import fingerprint, sha256_bytes
from mantis.models.weights.catalog import named_bases
from mantis.runs.arms import write_arms
from mantis.runs.step_runner import Compute, Run, StepSpec
from mantis.store.local import LocalStore
from pipelines.execution.ablation_runs import FEWEST, resolve_parent
from pipelines.execution.resolve import name_of, resolve_run, shipped_recipes

FILE = Path(__file__).with_name("fingerprints.json")
COMMAND = "python -m tests.golden.write_fingerprints"
UNPINNED = "0" * 40  # the revision of a stand-in where the catalog pins none

Golden = dict[str, dict[str, str]]


def golden_fingerprints() -> Golden:
    """Recipe -> {"run": its run id, "<step>": the fingerprint of what the step makes}."""
    # Nothing here has to outlive a power cut, and thousands of stand-ins would wait for the disk.
    with tempfile.TemporaryDirectory(prefix="mantis-golden-") as folder, mock.patch("os.fsync"):
        store = LocalStore(Path(folder))
        return {name: _of_recipe(store, name) for name in shipped_recipes()}


def golden_text() -> str:
    """What fingerprints.json holds."""
    return json.dumps(golden_fingerprints(), indent=1) + "\n"


def fingerprints_of(run: Run) -> dict[str, str]:
    """Step -> fingerprint of what each step of `run` makes from stand-ins; see `put_inputs`."""
    found: dict[str, str] = {}
    with _capturing(run, found):
        _all_steps(run, found)
    return found


def put_inputs(store: LocalStore, recipe: Recipe) -> None:
    """Stand-ins for the published weights and the mirrored benchmarks that `recipe` names."""
    for base in named_bases(recipe.model).values():
        revision = base.revision if len(base.revision) == len(UNPINNED) else UNPINNED
        stand_in(store, ArtifactKind.SOURCE, f"models/bases/{base.name}/{revision}")
    for name in recipe.evaluation.benchmarks if recipe.evaluation.source == "mirror" else ():
        hub = load_benchmark(name).hub
        assert hub is not None
        address = f"sources/benchmarks/{name}/{hub.revision or UNPINNED}"
        store.put(f"{address}/files/image.png", name.encode())
        stand_in(store, ArtifactKind.SOURCE, address)


def changes(before: Golden, after: Golden) -> list[str]:
    """A line for each run id and fingerprint that differs."""
    lines: list[str] = []
    for recipe in sorted(before.keys() | after.keys()):
        old, new = before.get(recipe, {}), after.get(recipe, {})
        lines += [
            f"{recipe}: {step}: {old.get(step, 'absent')} -> {new.get(step, 'absent')}"
            for step in dict.fromkeys([*old, *new])
            if old.get(step) != new.get(step)
        ]
    return lines


def stand_in(store: LocalStore, kind: ArtifactKind, address: str) -> Manifest:
    """A committed artifact at `address` without content; its fingerprint follows from the address."""
    made_by = MadeBy(run="", step="", revision=1, config_hash="", code_version="", image_digest="")
    files = (File(name="file", size=0, sha256=sha256_bytes(b"")),)
    manifest = Manifest(kind=kind, key=address, fingerprint=fingerprint(address), made_by=made_by, files=files)
    commit_manifest(store, manifest)
    return manifest


def _of_recipe(store: LocalStore, name: str) -> dict[str, str]:
    run_id, recipe = resolve_run(name, {}, "")
    put_inputs(store, recipe)
    ids = {"run": run_id, "run that evaluates another model": name_of(name, {}, "", "model", store.url)}
    steps = fingerprints_of(Run(id=run_id, store=store, recipe=recipe))
    return ids | steps | _of_ablation(store, name, recipe)


def _of_ablation(store: LocalStore, name: str, recipe: Recipe) -> dict[str, str]:
    if len(recipe.data.skills) < FEWEST:
        return {}
    parent, recipe = resolve_parent(name, {}, "", store.url)
    arms = [f"{parent}-{skill}" for skill in recipe.data.skills]
    write_arms(store, parent, arms)
    for arm in arms:
        stand_in(store, ArtifactKind.REPORT, f"reports/{arm}")
    found: dict[str, str] = {}
    run = Run(id=parent, store=store, recipe=recipe)
    with _capturing(run, found):
        reporting_step.compare(run)
    return {"run that compares": parent, "compare": found["report"]}


def _all_steps(run: Run, found: dict[str, str]) -> None:
    store = run.store
    assert isinstance(store, LocalStore)
    subsets = [subset.name for subset in run.recipe.data.subsets] or list(synthetic.SUBSETS)
    for subset in subsets:
        data_step.prepare(run, subset)
    datasets = [stand_in(store, ArtifactKind.DATASET, f"datasets/{subset}/stand-in") for subset in subsets]
    data_step.assemble(run, datasets)
    mixture = stand_in(store, ArtifactKind.MIXTURE, "mixtures/stand-in")
    training = training_step.training_task(run, mixture)
    found[training.step] = training.fingerprint()
    conversion_step.convert(run, stand_in(store, ArtifactKind.CHECKPOINT, "checkpoints/stand-in"))
    model = stand_in(store, ArtifactKind.MODEL, "models/stand-in")
    benchmarks = run.recipe.evaluation.benchmarks
    for benchmark in benchmarks:
        evaluation_step.evaluate(run, benchmark, model)
        found[f"responses-{benchmark}"] = _responses(run, benchmark, model)
    evaluations = [
        stand_in(store, ArtifactKind.EVALUATION, f"evaluations/model/{name}/stand-in") for name in benchmarks
    ]
    reporting_step.report(run, evaluations)


def _responses(run: Run, benchmark: str, model: Manifest) -> str:
    described = load_benchmark(benchmark, profile=run.recipe.evaluation.profile, family=run.recipe.model.family)
    family = FamilyModel(manifest=model, settings=run.recipe.model)
    asking = ResponseCache(
        store=run.store,
        settings=run.recipe.evaluation,
        questions=described.name,
        title=described.title,
        decoding=described.resolved.decoding,
        model=family,
    )
    return asking.prefix.rpartition("/")[2]


@contextmanager
def _capturing(run: Run, found: dict[str, str]) -> Iterator[None]:
    """Steps tell `found` what they are about to make, and do not make it; raw data is a stand-in."""

    def capture(_: Run, task: StepSpec, work: Compute) -> Manifest:
        found[task.step] = task.fingerprint()
        assert isinstance(run.store, LocalStore)
        return stand_in(run.store, task.kind, f"{task.kind}/stand-in-{task.step}")

    def source(_: str, subset: str, __: object) -> SimpleNamespace:
        return SimpleNamespace(fingerprint=lambda memory: fingerprint(subset))

    with ExitStack() as patched:
        for module in (data_step, conversion_step, evaluation_step, reporting_step):
            patched.enter_context(mock.patch.object(module, "run_step", capture))
        patched.enter_context(mock.patch.object(data_step, "open_source", source))
        yield
