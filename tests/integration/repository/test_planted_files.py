"""A pickle in every kind of file that a step reads from a store: each is refused by name, and nothing of it runs.

The weights of checkpoints have tests of their own for each form of a pickle: test_tensor_files.py,
test_deepspeed_files.py, test_zero_checkpoint.py and test_elastic.py.
"""

import ast
import io
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from components.conversion.proof import model_of_config, prove_logits
from components.conversion.zero.byte_sources import folder_sources
from components.conversion.zero.zero_checkpoint import read_checkpoint
from components.data.sources.find import find_sources
from components.data.step import prepare
from components.evaluation.readers import json_list_reader, tsv_reader
from components.evaluation.readers.media import Media
from components.reporting.collect.artifact_reader import Reader
from components.training.checkpointing.deepspeed_files import check_files, map_shards
from components.training.checkpointing.training_summary import read_summary
from mantis.artifacts.checkpoint import read_commit
from mantis.artifacts.layout import RESPONSES, RUN, ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, read_manifest
from mantis.artifacts.tensor_files import read_tensors
from mantis.config.recipe import parse_recipe
from mantis.errors import MantisError
from mantis.generation.answerer import Question
from mantis.generation.cache.journal import Journal
from mantis.generation.chat_generator import open_chat_model
from mantis.generation.decoding import Decoding
from mantis.generation.sample_images import spooled_picture
from mantis.hashing import sha256_bytes
from mantis.models.weights.loading import base_tokenizer, load_whole
from mantis.runs.records import read_record
from mantis.runs.step_runner import open_run
from mantis.schema_versions import Form
from mantis.store.lance_tables import open_table
from mantis.store.local import LocalStore
from mantis.store.parquet_file import open_parquet
from tests.fixtures.data import RawFolder, RowsOf, RunOn
from tests.helpers.paths import ROOT
from tests.helpers.planted_code import Planted

MADE = MadeBy(run="run", step="step", revision=1, config_hash="", code_version="", image_digest="")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a planted pickle makes if it runs."""
    return tmp_path / "it-was-run"


def manifest_of(kind: ArtifactKind, key: str) -> Manifest:
    return Manifest(kind=kind, key=key, fingerprint="abc", made_by=MADE)


def noted(store: LocalStore, read: Callable[[Reader], object]) -> None:
    """Let the report read; what it cannot read becomes a note, which is raised here."""
    reader = Reader(store)
    read(reader)
    raise MantisError(" ".join(reader.notes))


def probe_of(store: LocalStore, key: str) -> object:
    return prove_logits(store.root, store.get(key), family_name="llava-clip", trained="fp32", stored="fp32")


def parquet_of(store: LocalStore, key: str) -> object:
    with open_parquet(store, key) as table:
        return table


def journal_of(store: LocalStore, key: str) -> object:
    data = store.get(key)
    folder = key.rpartition("/")[0]
    store.put(f"{folder}/{sha256_bytes(data)}.jsonl", data)  # a writer of the store knows the hash, too
    return Journal(store, folder)


# By place of the store: a file, the function that a step reads it with, and how the refusal names it.
READERS: dict[str, list[tuple[str, Callable[[LocalStore, str], object], str]]] = {
    "source": [
        (
            "sources/benchmarks/b/1/files/test.json",
            lambda s, k: list(json_list_reader.raw_rows(s.root, (k,))),
            "test.json",
        ),
        (
            "sources/benchmarks/b/1/files/t.tsv",
            lambda s, k: list(tsv_reader.raw_rows(s.root, (k,), pictures=True)),
            "t.tsv",
        ),
        ("sources/benchmarks/b/1/files/t.parquet", parquet_of, "t.parquet"),
        ("sources/benchmarks/b/1/manifest.json", lambda s, k: read_manifest(s, k.rpartition("/")[0]), "manifest.json"),
        ("models/bases/b/1/weights.bin", lambda s, k: read_tensors(s.root / k), "weights.bin wants"),
    ],
    "dataset": [
        ("datasets/d/1/manifest.json", lambda s, k: read_manifest(s, k.rpartition("/")[0]), "manifest.json"),
        (
            "datasets/d/1/data.lance/_versions/1.manifest",
            lambda s, k: open_table(s, "datasets/d/1/data.lance"),
            "data.lance",
        ),
    ],
    "mixture": [
        (
            "mixtures/m/index.lance/_versions/1.manifest",
            lambda s, k: open_table(s, "mixtures/m/index.lance"),
            "index.lance",
        ),
        ("mixtures/m/tokenizer/tokenizer.json", lambda s, k: base_tokenizer((s.root / k).parent, []), "tokenizer"),
    ],
    "contamination": [
        (
            "contamination/c/benchmarks.json",
            lambda s, k: noted(
                s,
                lambda r: r.json_rows(
                    manifest_of(ArtifactKind.CONTAMINATION, "contamination/c"),
                    "benchmarks.json",
                    Form.CONTAMINATION,
                    "benchmarks",
                ),
            ),
            "benchmarks.json",
        ),
    ],
    "checkpoint": [
        (
            "checkpoints/c/step-00000001/mp_rank_00_model_states.pt",
            lambda s, k: map_shards(s.root / k),
            "model_states.pt wants",
        ),
        (
            "checkpoints/c/step-00000001/zero_pp_rank_0_mp_rank_00_optim_states.pt",
            lambda s, k: check_files((s.root / k).parent),
            "optim_states.pt wants",
        ),
        (
            "checkpoints/c/step-00000001/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            lambda s, k: read_checkpoint(folder_sources((s.root / k).parent), origin=k),
            "optim_states.pt",
        ),
        ("checkpoints/c/step-00000001/COMMIT", lambda s, k: read_commit(s, "checkpoints/c", 1), "COMMIT"),
        ("checkpoints/c/training.json", lambda s, k: read_summary(s, "checkpoints/c"), "training.json"),
        (
            "checkpoints/c/metrics.jsonl",
            lambda s, k: noted(
                s, lambda r: r.json_lines(manifest_of(ArtifactKind.CHECKPOINT, "checkpoints/c"), "metrics.jsonl")
            ),
            "metrics.jsonl",
        ),
        ("checkpoints/c/probe.safetensors", probe_of, "probe.safetensors"),
    ],
    "model": [
        (
            "models/m/model.safetensors",
            lambda s, k: load_whole(LlavaForConditionalGeneration, (s.root / k).parent),
            "models/m",
        ),
        (
            "models/m/pytorch_model.bin",
            lambda s, k: load_whole(LlavaForConditionalGeneration, (s.root / k).parent),
            "pytorch_model.bin",
        ),
        ("models/m/config.json", lambda s, k: model_of_config((s.root / k).parent), "config.json"),
        ("models/m/tokenizer.json", lambda s, k: base_tokenizer((s.root / k).parent, []), "models/m"),
    ],
    "external-model": [
        ("external-models/e/manifest.json", lambda s, k: read_manifest(s, "external-models/e"), "manifest.json"),
    ],
    "evaluation": [
        (
            "evaluations/m/b/1/scores.json",
            lambda s, k: noted(s, lambda r: r.scores(manifest_of(ArtifactKind.EVALUATION, "evaluations/m/b/1"))),
            "scores.json",
        ),
        (
            "evaluations/m/b/1/gallery.json",
            lambda s, k: noted(s, lambda r: r.answers(manifest_of(ArtifactKind.EVALUATION, "evaluations/m/b/1"))),
            "gallery.json",
        ),
        (
            "evaluations/m/b/1/responses.parquet",
            lambda s, k: noted(
                s, lambda r: r.parquet(manifest_of(ArtifactKind.EVALUATION, "evaluations/m/b/1"), "responses.parquet")
            ),
            "responses.parquet",
        ),
    ],
    "report": [("reports/r/manifest.json", lambda s, k: read_manifest(s, "reports/r"), "manifest.json")],
    "deployment": [
        ("deployments/d/manifest.json", lambda s, k: read_manifest(s, "deployments/d"), "manifest.json"),
    ],
    "runs": [
        ("runs/r/recipe.yaml", lambda s, k: open_run("r", s.url), "recipe.yaml"),
        ("runs/r/steps/train.json", lambda s, k: read_record(s, "r", "train"), "train.json"),
    ],
    "responses": [("responses/m/b/i/x.jsonl", journal_of, "jsonl")],
}


def test_every_place_of_a_store_is_here() -> None:
    assert set(READERS) == {str(kind) for kind in ArtifactKind} | {RUN.folder, RESPONSES.folder}


@pytest.mark.parametrize(
    ("key", "read", "name"),
    [pytest.param(*case, id=case[0]) for cases in READERS.values() for case in cases],
)
@pytest.mark.parametrize("form", ["pickle", "torch.save"])
def test_a_planted_pickle_is_refused_by_name(
    store: LocalStore, marker: Path, form: str, key: str, read: Callable[[LocalStore, str], object], name: str
) -> None:
    buffer = io.BytesIO()
    if form == "pickle":
        pickle.dump(Planted(marker), buffer)
    else:
        torch.save({"client": Planted(marker)}, buffer)
    store.put(key, buffer.getvalue())
    with pytest.raises(MantisError) as caught:
        read(store, key)
    assert name.split(" ")[0] in str(caught.value)
    assert not marker.exists()


YAML_TAGS = (
    "!!python/object/apply:os.system ['touch {marker}']",
    "name: !!python/object/new:os.system ['touch {marker}']",
    "name: !!python/name:os.system",
)


@pytest.mark.parametrize("text", YAML_TAGS)
def test_a_tag_of_yaml_calls_nothing(marker: Path, text: str) -> None:
    with pytest.raises(MantisError, match=r"planted\.yaml"):
        parse_recipe(text.format(marker=marker), origin="planted.yaml")
    assert not marker.exists()


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Planted(marker))


def array_of_objects(marker: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Planted(marker)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("frames/1.jpg", pickled(marker))
    return buffer.getvalue()


def tarred(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("1.pickle", "1.pyd"):  # WebDataset's own endings of pickles
            member = tarfile.TarInfo(name)
            member.size = len(pickled(marker))
            archive.addfile(member, io.BytesIO(pickled(marker)))
    return buffer.getvalue()


def column_of_pickles(marker: Path) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": ["1"], "conversation": [pickled(marker)]}), buffer)
    return buffer.getvalue()


RAW: dict[str, Callable[[Path], bytes]] = {
    "train.json": pickled,
    "train.jsonl": pickled,
    "train.parquet": pickled,
    "train.arrow": pickled,
    "train.tar": tarred,
    "rows.parquet": column_of_pickles,
    "train.zip": zipped,
    "train.npy": array_of_objects,
    "train.pkl": pickled,
    "train.pt": pickled,
}


@pytest.mark.parametrize("name", RAW)
def test_raw_data_in_pickles_is_refused(name: str, raw_folder: RawFolder, run_on: RunOn, marker: Path) -> None:
    (raw_folder.folder / name).write_bytes(RAW[name](marker))
    run = run_on(raw_folder.folder)
    with pytest.raises(MantisError) as caught:
        list(map(partial(prepare, run), find_sources(run.recipe.data.source)))
    assert name in str(caught.value) or str(raw_folder.folder) in str(caught.value)
    assert not marker.exists()


def test_an_image_that_is_a_pickle_drops_its_row(
    raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf, marker: Path
) -> None:
    raw_folder.image("good.jpg")
    raw_folder.image("planted.jpg", pickled(marker))
    raw_folder.write([raw_folder.row("a", "good.jpg"), raw_folder.row("b", "planted.jpg")])
    run = run_on(raw_folder.folder)
    (subset,) = find_sources(run.recipe.data.source)
    made = prepare(run, subset)
    assert [row["reason"] for row in ledger_of(run, made)] == ["image-unknown"]
    assert not marker.exists()


def test_a_member_of_a_benchmarks_archive_is_only_bytes(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "all.zip").write_bytes(zipped(marker))
    data = Media(tmp_path).image("frames/1.jpg")
    assert data == pickled(marker)
    assert data is not None
    with pytest.raises(OSError, match="image"):
        spooled_picture(data, "frames/1.jpg", tmp_path)
    assert not marker.exists()


ESCAPES = (
    "{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}",
)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_chat_template_cannot_leave_its_sandbox(
    chat_model_folder: Path, tmp_path: Path, marker: Path, escape: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(chat_model_folder, folder)
    template = escape.format(marker=marker)
    (folder / "chat_template.jinja").write_text(template)
    model = open_chat_model(folder, Decoding(max_new_tokens=4))
    question = Question(id="1", prompt="What?", pictures=(), allowed=())
    with pytest.raises(MantisError, match="unsafe"):
        model.prepare([question])
    assert not marker.exists()


def test_a_model_flavour_of_mlflow_is_never_loaded() -> None:
    """MLflow's `pyfunc` and `sklearn` flavours are pickles. The product asks MLflow for numbers and texts alone."""
    loads = re.compile(r"mlflow\.(pyfunc|sklearn|pytorch|transformers)\b.*|.*\bmlflow.*\.load_model")
    used = [
        f"{path.name}: {ast.unparse(node)}"
        for folder in ("mantis", "components", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and loads.fullmatch(ast.unparse(node))
    ]
    assert used == []
