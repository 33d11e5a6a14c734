"""Ours are found by their folders, others by the entry points of installed packages."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import mantis
from mantis.errors import ConfigError
from mantis.models import families, registry
from mantis.models.registry import GROUP, family, family_files, family_names, family_spec, family_specs
from mantis.models.verification import reference_processor
from mantis.models.verification.family_checks import (
    family_case,
    lengths_are_known_without_decoding,
    packed_equals_separate,
)
from mantis.models.weights.catalog import published_bases

OWN = ("flamingo", "fuyu", "idefics2", "llava-clip", "llava-siglip")  # of the paper
ROOT = Path(mantis.__file__).parents[1]


def forget() -> None:
    for cached in (registry._own_specs, registry._entry_points, registry.family_spec, registry.family):
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


def test_every_folder_holds_families() -> None:
    assert set(OWN) <= set(family_names())
    folders = {spec.package.rpartition(".")[2] for spec in family_specs()}
    here = {path.parent.name for path in (ROOT / "mantis" / "models" / "families").glob("*/__init__.py")}
    assert folders == here


NEW_FOLDER = """
from mantis.models.families.llava import LLAVA_QWEN2
from mantis.models.family_spec import FamilySpec

def load():
    from mantis.models.families.llava.model import Llava
    from mantis.models.families.llava.processing import QWEN2, SIGLIP

    return Llava(name="mine", tower=SIGLIP, language=QWEN2)

MINE = FamilySpec(
    name="mine", package=__name__, load=load, reference=LLAVA_QWEN2.reference, small_image=LLAVA_QWEN2.small_image
)
"""
CATALOG = """
bases:
  mine-1b: {repository: me/mine-1b, revision: main, families: [mine], role: base, gated: false, licence: apache-2.0,
            origin: a test}
"""


def test_a_new_folder_is_a_family_and_nothing_else_names_it(
    installed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = family_names()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text(NEW_FOLDER)
    (folder / "catalog.yaml").write_text(CATALOG)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    installed()
    assert family_names() == tuple(sorted([*before, "mine"]))
    assert len(family_specs()) == len(before) + 1, "an imported description is another folder's"
    for check in (lengths_are_known_without_decoding, packed_equals_separate):
        check(family_case("mine"))
    assert any(folder in Path(str(file)).parents for file in family_files("catalog.yaml"))


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


def test_an_older_installation_of_ours_names_no_family(installed: Any) -> None:
    """Its metadata may name a folder that is gone, or one that moved."""
    before = family_names()
    installed(("llava-clip", "mantis.models.families.gone:GONE"), ("old", "mantis.models.families.old:OLD"))
    assert family_names() == before
    assert family_spec("llava-clip").package == "mantis.models.families.llava"


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
