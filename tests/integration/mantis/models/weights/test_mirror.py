"""Published weights from a hub that is a real HTTP server here, into local and MinIO stores."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mantis.artifacts.manifest import check_files
from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, InputError, IntegrityError, StoreError
from mantis.hub import download
from mantis.models.weights.catalog import named_bases, published_base, published_bases, warnings
from mantis.models.weights.mirror import fetch_model, mirror_of, mirrors, model_identity, resolved, weights_of
from mantis.store.local import LocalStore
from tests.helpers.hub_server import COMMIT, TOKEN, HubServer, hub_server

FUYU = "fuyu-8b"
FILES = {
    "config.json": b'{"model_type": "fuyu"}',
    "tokenizer.json": b'{"model": {}}',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 8000,
    "model-00002-of-00002.safetensors": b"tensor" * 5000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"pickled" * 1000,
    "pytorch_model.bin.index.json": b"{}",
    "flax_model.msgpack": b"flax",
    "consolidated.safetensors": b"twice",
    "LICENSE": b"terms",
}
TAKEN = [
    "LICENSE",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server(FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
def test_a_model_comes_whole_and_once(
    hub: HubServer, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = request.getfixturevalue(kind)
    manifest = fetch_model(store, FUYU)
    base = published_base(FUYU)
    assert manifest.key == f"models/bases/{FUYU}/{base.revision}"
    assert [file.name for file in manifest.files] == TAKEN
    assert check_files(store, manifest) == []
    assert manifest.summary["licence"] == "CC-BY-NC-4.0"
    assert manifest.summary["forbids"] == "commercial"
    before = len(hub.sent)
    assert fetch_model(store, FUYU) == manifest
    assert len(hub.sent) == before
    assert not list(tmp_path.rglob(".fetching/*"))


def test_a_later_attempt_keeps_to_the_revision_of_the_first(hub: HubServer, local_store: LocalStore) -> None:
    hub.damaged["model-00001-of-00002.safetensors"] = b"damaged"
    with pytest.raises((InputError, IntegrityError)):
        fetch_model(local_store, "idefics2-8b")
    assert mirrors(local_store, "idefics2-8b") == {}
    hub.damaged, hub.newest = {}, "f" * 40
    manifest = fetch_model(local_store, "idefics2-8b")
    assert manifest.summary["revision"] == COMMIT


def test_pickled_weights_come_only_where_there_are_no_safetensors(hub: HubServer, local_store: LocalStore) -> None:
    hub.files = {name: data for name, data in FILES.items() if "safetensors" not in name}
    manifest = fetch_model(local_store, FUYU)
    names = [file.name for file in manifest.files]
    assert names == ["LICENSE", "config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "tokenizer.json"]
    hub.files = {"config.json": b"{}"}
    with pytest.raises(InputError, match="neither safetensors"):
        fetch_model(local_store, "idefics-9b")


def test_other_bytes_than_promised_are_no_model(hub: HubServer, local_store: LocalStore) -> None:
    name = "model-00002-of-00002.safetensors"
    hub.damaged[name] = b"!" + FILES[name][1:]
    with pytest.raises(IntegrityError, match=name):
        fetch_model(local_store, FUYU)
    assert mirrors(local_store, FUYU) == {}


def test_what_stands_in_the_way_is_said_with_its_remedy(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    with pytest.raises(InputError, match="gated") as caught:
        fetch_model(local_store, "llama3-8b-instruct")
    assert f"{hub.url}/meta-llama/Meta-Llama-3-8B-Instruct" in caught.value.remedy
    assert "HF_TOKEN" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(StoreError, match="GB free"):
        fetch_model(local_store, "llama3-8b-instruct")
    assert hub.sent == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        fetch_model(local_store, "idefics2-8b")
    assert "model.base" in caught.value.remedy
    with pytest.raises(ConfigError, match="no published model"):
        fetch_model(local_store, "nonsense")


def test_a_name_means_its_mirror_and_another_revision_is_another_model(hub: HubServer, local_store: LocalStore) -> None:
    settings = ModelSettings(family="idefics2", base="idefics2-8b")
    with pytest.raises(InputError, match="no copy of idefics2-8b") as caught:
        resolved(local_store, settings)
    assert "mantis model fetch idefics2-8b" in caught.value.remedy
    first = fetch_model(local_store, "idefics2-8b")
    assert resolved(local_store, settings).base == local_store.uri(first.key)
    assert weights_of(local_store, settings) == {"base": first}
    identity = model_identity(local_store, settings)
    assert identity["model.base"] == "idefics2-8b"
    assert identity["content"] == {"base": first.fingerprint}
    by_key = settings.model_copy(update={"base": first.key})
    assert resolved(local_store, by_key).base == local_store.uri(first.key)
    assert model_identity(local_store, by_key)["content"] == {"base": first.fingerprint}
    hub.files["config.json"] = b'{"model_type": "other"}'
    second = fetch_model(local_store, "idefics2-8b", revision="e" * 40)
    with pytest.raises(InputError, match="2 revisions"):
        mirror_of(local_store, published_base("idefics2-8b"))
    by_address = settings.model_copy(update={"base": local_store.uri(second.key)})
    assert model_identity(local_store, by_address)["content"] == {"base": second.fingerprint}
    assert second.fingerprint != first.fingerprint


def test_a_folder_is_known_by_what_it_holds(local_store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"a" * 100)
    settings = ModelSettings(base=str(folder))
    before = model_identity(local_store, settings)
    by_url = model_identity(local_store, settings.model_copy(update={"base": folder.as_uri()}))
    assert by_url["content"] == before["content"]
    (folder / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    assert model_identity(local_store, settings) != before
    assert model_identity(local_store, settings, ("vision",)) == settings.identity()
    with pytest.raises(ConfigError, match=r"model\.base = 'llama4' is no published model"):
        model_identity(local_store, ModelSettings(base="llama4"))
    with pytest.raises(ConfigError, match=r"model\.vision = .*no config\.json"):
        model_identity(local_store, ModelSettings(vision=str(tmp_path)))


def test_nothing_is_added_to_what_a_model_from_scratch_is(local_store: LocalStore) -> None:
    assert model_identity(local_store, ModelSettings()) == ModelSettings().identity()
    assert weights_of(local_store, ModelSettings()) == {}


def test_every_base_has_a_family_and_terms() -> None:
    from mantis.models.registry import family_names

    for base in published_bases().values():
        assert set(base.families) <= set(family_names())
        assert base.licence.asks
        assert base.origin
    assert {family for base in published_bases().values() for family in base.families} == set(family_names())
    found = named_bases(ModelSettings(family="fuyu", base=FUYU))
    assert "forbid commercial use" in warnings(found.values())[0]


def test_the_command_line_shows_terms_and_what_came(hub: HubServer, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipelines.cli.main import app

    store = (tmp_path / "store").as_uri()
    done = CliRunner().invoke(app, ["model", "fetch", FUYU, "--store", store])
    assert done.exit_code == 0
    assert done.output.index("Name Adept as the author") < done.output.index("6 files")
    listed = CliRunner().invoke(app, ["model", "list", "--store", store])
    assert "cc-by-nc-4.0, not commercial" in listed.output
    assert "f41defefdb89, 0.00 GB" in listed.output
    assert CliRunner().invoke(app, ["model", "fetch", "--store", store]).exit_code == 2
