"""Which names a run may have: it is a folder of the store, and a label in the cluster."""

from pathlib import Path

import pytest

from mantis.errors import ConfigError
from mantis.runs.records import runs
from mantis.store.local import LocalStore
from pipelines.execution.preflight import preflight
from pipelines.execution.resolve import name_of, resolve_run


@pytest.mark.parametrize("name", ["x", "My.Run_1-a", "0" * 63])
def test_a_name_of_ones_own(name: str) -> None:
    assert resolve_run("demo", {}, name)[0] == name


@pytest.mark.parametrize("name", ["My Run", "a/b", "../a", "-a", "a-", ".a", "a.", "ä", "a\n", "0" * 64])
def test_what_is_no_name_is_refused_before_anything_is_written(local_store: LocalStore, name: str) -> None:
    with pytest.raises(ConfigError, match=r"mantis_run \(--name\) = ") as caught:
        preflight("demo", {}, name, local_store.url)
    assert repr(name) in caught.value.problem
    assert "at most 63" in caught.value.remedy
    assert runs(local_store) == []


def test_a_recipe_whose_name_makes_too_long_a_one() -> None:
    named = {"name": "x" * 55}
    with pytest.raises(ConfigError, match=r"name = 'x+' is too long.* of 64 characters") as caught:
        resolve_run("demo", named, "")
    assert "Shorten it by 1" in caught.value.remedy
    assert resolve_run("demo", named, "mine")[0] == "mine"
    with pytest.raises(ConfigError, match="is too long"):
        name_of("demo", {"name": "x" * 54}, "", "models/0123", "file:///store")


def weights(base: str) -> dict[str, str]:
    return {"model.base": base, "model.from_scratch": "null"}


def test_a_model_of_the_store_is_known_by_its_key_wherever_the_store_lies() -> None:
    given = [
        ("models/0123", "file:///here"),
        ("file:///here/models/0123", "file:///here"),
        ("/here/models/0123", "file:///here"),
        ("s3://there/x/models/0123", "s3://there/x"),
    ]
    runs = {resolve_run("demo", weights(base), "", store)[0] for base, store in given}
    assert len(runs) == 1
    assert len({name_of("demo", {}, "", model, store) for model, store in given}) == 1
    other = resolve_run("demo", weights("file:///here/models/0123"), "", "file:///there")
    assert other[1].model.base == "file:///here/models/0123"


def test_another_model_gives_another_name(tmp_path: Path) -> None:
    store = f"file://{tmp_path}"
    first, again, other = (
        name_of("demo", {}, "", model, store) for model in ("models/0123", "models/0123", "models/4")
    )
    assert first == again != other
    assert name_of("demo", {}, "mine", "models/0123", store) == "mine"
    assert name_of("demo", {}, "", "", store) == ""
