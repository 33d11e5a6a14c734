"""Manifests and step records of schema version 1 held absolute URIs; their store may have another address now."""

import json

import pytest

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, parse_manifest, read_manifest
from mantis.errors import IntegrityError
from mantis.runs.garbage_collection import garbage
from mantis.runs.lineage import walk
from mantis.runs.records import read_record, read_records
from mantis.runs.step_runner import Run, StepSpec, run_step

ROOTS = [
    "file:///data/me/.mantis",
    "file:///data/me/models/datasets",  # folders with the names of a store's own
    "s3://mantis/team",
    "s3://models",
    "",  # where it is now
]


def made(run: Run, step: str, kind: ArtifactKind, parts: dict[str, str], **inputs: Manifest) -> Manifest:
    def work(prefix: str) -> dict[str, int | float | str | bool]:
        run.store.put(f"{prefix}/object", step.encode())
        return {"rows": 1}

    task = StepSpec(step=step, kind=kind, revision=1, config={}, inputs=inputs, parts=parts)
    return run_step(run, task, work)


def chain(run: Run) -> list[Manifest]:
    """A dataset of a subset with the name of a folder, its mixture and a model, which the run's records name."""
    run.store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
    dataset = made(run, "prepare-models", ArtifactKind.DATASET, {"subset": "models"})
    mixture = made(run, "assemble", ArtifactKind.MIXTURE, {}, models=dataset)
    return [dataset, mixture, made(run, "convert", ArtifactKind.MODEL, {}, mixture=mixture)]


def write_as_version_1(run: Run, manifests: list[Manifest], root: str) -> None:
    for manifest in manifests:
        raw = json.loads(manifest.model_dump_json())
        raw |= {"schema_version": 1, "uri": f"{root}/{raw.pop('key')}"}
        raw["inputs"] = {
            name: {"uri": f"{root}/{reference['key']}", "fingerprint": reference["fingerprint"]}
            for name, reference in raw["inputs"].items()
        }
        run.store.put(f"{manifest.key}/manifest.json", json.dumps(raw).encode())
    for record in read_records(run.store, run.id):
        raw = json.loads(record.model_dump_json(exclude={"schema_version"}))
        key = raw.pop("key")
        raw["uri"] = f"{root}/{key}" if key else ""
        run.store.put(run.key(f"steps/{record.step}.json"), json.dumps(raw).encode())


@pytest.mark.parametrize("root", ROOTS)
def test_a_store_of_version_1_is_read_at_any_address(run: Run, root: str) -> None:
    manifests = chain(run)
    write_as_version_1(run, manifests, root or run.store.url)
    assert [read_manifest(run.store, manifest.key) for manifest in manifests] == manifests
    links = list(walk(run.store, manifests[-1]))
    assert [link.manifest.key for link in links] == [manifest.key for manifest in reversed(manifests)]
    assert not any(link.problems for link in links)
    assert {record.key for record in read_records(run.store, run.id)} == {manifest.key for manifest in manifests}
    assert garbage(run.store) == []
    assert chain(run) == manifests  # reused


@pytest.mark.parametrize("root", ["file:///data/me/models", "s3://mantis/datasets"])
def test_a_manifest_that_kfp_hands_over_tells_its_key_by_its_kind(run: Run, root: str) -> None:
    dataset, mixture, _ = chain(run)
    write_as_version_1(run, [dataset, mixture], root)
    for manifest in (dataset, mixture):
        text = run.store.get(f"{manifest.key}/manifest.json")
        assert parse_manifest(text, origin="kfp") == manifest


def test_an_absolute_uri_is_no_key(run: Run) -> None:
    dataset = chain(run)[0]
    for key in ("file:///x/datasets/a/b", "/x/datasets/a/b"):
        raw = json.loads(dataset.model_dump_json()) | {"key": key}
        with pytest.raises(IntegrityError, match="key is relative to its store"):
            parse_manifest(json.dumps(raw), origin="test")


def test_a_later_version_is_refused(run: Run) -> None:
    raw = json.loads(chain(run)[0].model_dump_json()) | {"schema_version": 3}
    with pytest.raises(IntegrityError, match="schema version 1 or 2: schema_version"):
        parse_manifest(json.dumps(raw), origin="test")


def test_a_stored_reason_names_no_place(run: Run) -> None:
    def fail(prefix: str) -> dict[str, int | float | str | bool]:
        raise IntegrityError(f"{run.store.uri(prefix)}/object is missing in {run.store.url}.", remedy="Look.")

    task = StepSpec(step="convert", kind=ArtifactKind.MODEL, revision=1, config={})
    with pytest.raises(IntegrityError, match="file:"):
        run_step(run, task, fail)
    record = read_record(run.store, run.id, "convert")
    assert record is not None
    assert record.reason == f"models/{task.fingerprint()}/object is missing in the store. Look."
