"""The forms of addresses: filled in by steps, and read back."""

import pytest

from mantis.artifacts.layout import (
    COLLECTED,
    RESPONSES,
    TOP_FOLDERS,
    ArtifactKind,
    benchmark_of,
    commit_key,
    possible_keys,
    record_key,
    report_key,
    responses_key,
    revisions_of_base,
    revisions_of_benchmark,
    run_key,
    step_folder,
    step_of,
    subset_of,
)
from mantis.artifacts.manifest import MadeBy, Manifest
from mantis.errors import ConfigError
from mantis.runs.step_runner import StepSpec

MADE_BY = MadeBy(run="r", step="s", revision=1, config_hash="", code_version="", image_digest="")


@pytest.mark.parametrize(
    ("kind", "parts", "address"),
    [
        (ArtifactKind.SOURCE, {"subset": "nlvr2"}, "sources/nlvr2"),
        (ArtifactKind.SOURCE, {"benchmark": "blink", "revision": "r"}, "sources/benchmarks/blink/r"),
        (ArtifactKind.SOURCE, {"base": "siglip", "revision": "r"}, "models/bases/siglip/r"),
        (ArtifactKind.DATASET, {"subset": "nlvr2", "fingerprint": "f"}, "datasets/nlvr2/f"),
        (ArtifactKind.MIXTURE, {"fingerprint": "f"}, "mixtures/f"),
        (ArtifactKind.CONTAMINATION, {"fingerprint": "f"}, "contamination/f"),
        (ArtifactKind.CHECKPOINT, {"fingerprint": "f"}, "checkpoints/f"),
        (ArtifactKind.MODEL, {"fingerprint": "f"}, "models/f"),
        (ArtifactKind.EVALUATION, {"model": "m", "benchmark": "b", "fingerprint": "f"}, "evaluations/m/b/f"),
        (ArtifactKind.REPORT, {"run": "r"}, "reports/r"),
    ],
)
def test_an_address_holds_its_parts(kind: ArtifactKind, parts: dict[str, str], address: str) -> None:
    assert kind.address(**parts) == address
    assert {name: kind.part(address, name) for name in parts} == parts
    assert {pattern.depth for pattern in kind.patterns if pattern.parse(address) == parts} == {address.count("/") + 1}


@pytest.mark.parametrize(
    "parts", [{}, {"fingerprint": "f"}, {"subset": "a", "fingerprint": "f", "run": "r"}, {"subset": "a/b"}]
)
def test_wrong_parts_are_refused(parts: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no address of the form datasets/<subset>/<fingerprint>"):
        ArtifactKind.DATASET.address(**parts)


def test_a_step_has_the_address_of_its_kind() -> None:
    model = Manifest(kind=ArtifactKind.MODEL, key="models/m", fingerprint="m", made_by=MADE_BY)
    spec = StepSpec(
        step="evaluate-b",
        kind=ArtifactKind.EVALUATION,
        revision=1,
        config={},
        inputs={"model": model},
        parts={"model": "m", "benchmark": "b"},
    )
    assert spec.address() == f"evaluations/m/b/{spec.fingerprint()}"
    assert benchmark_of(spec.address()) == "b"
    report = StepSpec(step="report", kind=ArtifactKind.REPORT, revision=1, config={}, parts={"run": "r"})
    assert report.address() == "reports/r"
    forgotten = StepSpec(step="prepare", kind=ArtifactKind.DATASET, revision=1, config={})
    with pytest.raises(ConfigError, match="subset: no address"):
        forgotten.address()


def test_another_address_has_no_subset_and_no_benchmark() -> None:
    assert subset_of("datasets/nlvr2/f") == "nlvr2"
    with pytest.raises(ConfigError, match="not the address of a kind dataset"):
        subset_of("mixtures/f")
    with pytest.raises(ConfigError, match="not the address of a kind evaluation"):
        benchmark_of("evaluations/m/b")


def test_objects_beside_the_artifacts() -> None:
    assert run_key("r", "recipe.yaml") == "runs/r/recipe.yaml"
    assert record_key("r", "train") == "runs/r/steps/train.json"
    assert report_key("r", "summary.json") == "reports/r/summary.json"
    assert responses_key("m", "b", "i") == "responses/m/b/i"
    assert revisions_of_base("siglip") == "models/bases/siglip"
    assert revisions_of_benchmark("blink") == "sources/benchmarks/blink"
    assert commit_key("checkpoints/f", 100) == "checkpoints/f/step-00000100/COMMIT"
    assert step_of(step_folder(7)) == step_of("checkpoints/f/step-00000007") == 7
    assert step_of("model") is None


def test_garbage_collection_looks_through_every_kind_that_steps_make() -> None:
    made = {kind.pattern for kind in ArtifactKind if kind is not ArtifactKind.SOURCE}
    assert set(COLLECTED) == made | {RESPONSES}


def test_a_key_begins_with_a_folder_of_the_layout() -> None:
    assert {kind.folder for kind in ArtifactKind} | {"runs", "responses"} == TOP_FOLDERS
    assert possible_keys("s3://models/team/models/f") == ["models/f"]
    assert possible_keys("file:///data/models/datasets/nlvr2/f") == ["models/datasets/nlvr2/f", "datasets/nlvr2/f"]
