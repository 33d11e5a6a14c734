"""Families are found by entry points: ours from pyproject.toml, others from installed packages."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import mantis
from mantis.errors import ConfigError
from mantis.models import registry
from mantis.models.registry import GROUP, family, family_files, family_names, family_spec, family_specs
from mantis.models.verification import reference_processor
from mantis.models.weights.catalog import published_bases

OWN = ("flamingo", "fuyu", "idefics2", "llava-clip", "llava-siglip")  # of the paper
ROOT = Path(mantis.__file__).parents[1]


def forget() -> None:
    for cached in (registry._entry_points, registry.family_spec, registry.family):
        cached.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Entry points of other packages, as if installed."""

    def install(*points: tuple[str, str]) -> None:
        found = [EntryPoint(name=name, value=value, group=GROUP) for name, value in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def test_our_families_stand_in_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert set(OWN) <= set(declared) <= set(family_names())
    folders = {spec.package.rpartition(".")[2] for spec in map(family_spec, declared)}
    here = {path.parent.name for path in (ROOT / "mantis" / "models" / "families").glob("*/__init__.py")}
    assert folders == here, "a folder that no entry point names, or the other way round"


def test_each_family_is_what_its_spec_says() -> None:
    for spec in family_specs():
        kind = family(spec.name)
        assert kind.name == spec.name
        assert isinstance(spec.reference(), reference_processor.FamilyReference)
        assert spec.file("chat_templates.yaml").is_file()


def test_listing_families_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from mantis.models.registry import family_specs, family_files;"
        "from mantis.models.weights.catalog import published_bases;"
        "from components.training.sizing.estimate import shapes;"
        "assert family_specs() and published_bases() and shapes();"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_an_unknown_family_names_those_that_exist_and_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"'llava-sigl' is not a model family\. Did you mean llava-siglip\?"
    ) as caught:
        family("llava-sigl")
    assert ", ".join(family_names()) in str(caught.value)


def test_installed_metadata_of_ours_is_only_read_without_pyproject(
    installed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An older installation may still name a folder that is gone."""
    old = ("llava-clip", "mantis.models.families.gone:GONE")
    installed(old)
    assert family_spec("llava-clip").package == "mantis.models.families.llava"
    monkeypatch.setattr(registry, "PYPROJECT", tmp_path / "pyproject.toml")
    installed(("fuyu", "mantis.models.families.fuyu:FUYU"))
    assert family_names() == ("fuyu",)


def test_two_packages_with_one_family_are_refused(installed: Any) -> None:
    installed(("fuyu", "other.fuyu:FUYU"))
    with pytest.raises(ConfigError, match=r"Two packages offer the model family 'fuyu'.*other\.fuyu:FUYU"):
        family_names()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("not_installed_at_all:SPEC", "cannot be imported from not_installed_at_all:SPEC"),
        ("mantis.models.registry:NOTHING", "cannot be imported"),
        ("mantis.models.registry:RENAMED", "is no FamilySpec with that name"),
        ("mantis.models.registry:GROUP", "is no FamilySpec"),
    ],
)
def test_an_entry_point_that_is_wrong_is_named(
    installed: Any, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setattr(registry, "RENAMED", family_spec("fuyu"), raising=False)
    installed(("mine", value))
    assert "mine" in family_names()
    with pytest.raises(ConfigError, match=words):
        family_spec("mine")


def test_every_file_of_every_folder_is_read_once() -> None:
    assert len(family_files("catalog.yaml")) == len({spec.package for spec in family_specs()})
    assert len(published_bases()) == len({base.repository for base in published_bases().values()})
