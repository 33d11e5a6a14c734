"""Values at the edges: of YAML's bounds, of messages about wrong values, of versions, and of hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mantis.config import bounded_yaml
from mantis.config.bounded_yaml import DEEPEST, LONGEST, parse_yaml
from mantis.config.overrides import flat, set_field
from mantis.config.recipe import Recipe
from mantis.config.validation_errors import EVERY_FIELD, explain, remedy, shortened
from mantis.errors import ConfigError, IntegrityError, VersionError
from mantis.hashing import FINGERPRINT_DIGITS, canonical_json, fingerprint, sha256_bytes, sha256_file
from mantis.schema_versions import (
    CURRENT,
    Form,
    check_version,
    load_json,
    load_rows,
    rows_of,
    versioned,
    without_version,
)


def test_a_document_may_be_as_long_and_as_deep_as_the_bounds() -> None:
    assert parse_yaml("x" * LONGEST) == "x" * LONGEST
    with pytest.raises(yaml.YAMLError, match=f"has {LONGEST + 1:,} characters, more than {LONGEST:,}"):
        parse_yaml("x" * (LONGEST + 1))
    assert parse_yaml("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(yaml.YAMLError, match=f"nested more than {DEEPEST} levels deep"):
        parse_yaml("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))
    assert len(parse_yaml("\n".join(["- [[1]]"] * (2 * DEEPEST)))) == 2 * DEEPEST, "depth ends with its list"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1, 2, 3]", 4),
        ("{a: 1, b: 2}", 5),
        ("x", 1),
        ("x" * 63, 1),
        ("x" * 64, 2),
        ("x" * 200, 4),
        ("[&a [1, 2], *a, *a]", 10),
        ("[&a {k: [1]}, *a]", 9),
    ],
)
def test_every_value_counts_with_its_aliases_written_out(
    text: str, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_yaml, "MOST_VALUES", values)
    assert parse_yaml(text) == yaml.safe_load(text)
    monkeypatch.setattr(bounded_yaml, "MOST_VALUES", values - 1)
    with pytest.raises(yaml.YAMLError, match=f"more than {values - 1} values"):
        parse_yaml(text)


def test_an_override_sets_one_field() -> None:
    raw: dict[str, Any] = {"a": {"b": 1, "c": 2}}
    for dotted, value in (("a.b", "5e-6"), ("a.d.e", "[1, x]"), ("f", "1e3"), ("g", "text"), ("h", "null"), ("i", "7")):
        set_field(raw, dotted, value)
    assert raw == {
        "a": {"b": 5e-6, "c": 2, "d": {"e": [1, "x"]}}, "f": 1000.0, "g": "text", "h": None, "i": 7
    }  # fmt: skip
    assert isinstance(raw["i"], int)
    with pytest.raises(ConfigError, match=r"--set a\.b\.c: b is a single value"):
        set_field(raw, "a.b.c", "1")
    with pytest.raises(ConfigError, match=r"--set f: '\{x' is not YAML"):
        set_field(raw, "f", "{x")


def test_fields_are_flattened_by_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None, 7: {"g": 3}, "empty": {}}
    assert flat(nested) == {"a.b": 1, "a.c.d": [1, {"e": 2}], "f": None, "7.g": 3}
    assert flat(5, "x") == {"x": 5}


def test_a_value_is_shown_in_eighty_characters() -> None:
    assert shortened("x" * 78) == "'" + "x" * 78 + "'"
    assert shortened("x" * 79) == "'" + "x" * 76 + "..."
    assert len(shortened("x" * 1_000_000)) == 80
    assert shortened(list(range(100))) == repr(list(range(100)))[:77] + "..."
    assert shortened(0.5) == "0.5"


class Part(BaseModel):
    """A section of Whole."""

    model_config = ConfigDict(extra="forbid")

    size: int = 1
    width: int = 2


class Whole(BaseModel):
    """A form with sections, one of them optional."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    part: Part = Part()
    maybe: Part | None = None
    pair: tuple[int, ...] = ()
    named: dict[str, int] = {}


def wrong(**given: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(given)
    return caught.value


@pytest.mark.parametrize(
    ("given", "said", "advice"),
    [
        ({"part": {"sise": 3}}, "r: part.sise = 3 is not a field.", "Did you mean size? Fields here: size, width."),
        ({"maybe": {"x": 3}}, "r: maybe.x = 3 is not a field.", "Fields here: size, width."),
        ({"other": {"a": 1}}, "r: other = {'a': 1} is not a field.", "Fields here: name, part, maybe, pair, named."),
        ({"pair": "a"}, "r: pair = 'a' is not a list; write [a].", EVERY_FIELD),
        ({"named": {"a": "b"}}, "r: named.a = 'b': Input should be a valid integer", EVERY_FIELD),
        ({"part": {"size": "b"}, "name": "n"}, "r: part.size = 'b': Input should be a valid integer", EVERY_FIELD),
    ],
)
def test_a_wrong_field_is_told_with_its_value_and_what_to_do(given: dict[str, Any], said: str, advice: str) -> None:
    error = wrong(**given)
    assert explain(error, "r").startswith(said)
    assert remedy(error, Whole) == advice or advice in remedy(error, Whole)


def test_twenty_problems_are_told_and_more_are_counted() -> None:
    twenty = explain(wrong(**{f"x{number}": 1 for number in range(20)}), "r")
    assert twenty.count("is not a field") == 20
    assert "more problems" not in twenty
    many = explain(wrong(**{f"x{number}": 1 for number in range(1021)}), "r")
    assert many.count("is not a field") == 20
    assert many.endswith("; 1,001 more problems.")


def test_a_renamed_field_is_told_by_itself() -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"name": "x", "model": {"tiny": {"image_size": 3, "text_layers": 4, "new": 1}}})
    said = explain(caught.value, "r")
    assert "model.tiny.image_size = 3 is not a field any more: it is model.image.size now" in said
    assert "model.tiny.text_layers = 4 is not a field any more: it is model.from_scratch.text_layers now" in said


def test_hashes_are_those_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256_file(tmp_path / "file") == sha256_bytes(b"abc" * 1000)
    value = {"b": [1, 0.5, None], "a": "ä", "c": {"z": True, "y": 2}}
    assert canonical_json(value) == '{"a":"ä","b":[1,0.5,null],"c":{"y":2,"z":true}}'
    assert fingerprint(value) == hashlib.sha256(canonical_json(value).encode()).hexdigest()[:FINGERPRINT_DIGITS]
    assert len(fingerprint(value)) == 24
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json([number])


def test_a_version_is_written_read_and_refused() -> None:
    form = Form.RESPONSE
    stored = versioned(form, {"text": "x"})
    assert list(stored) == ["schema_version", "text"]
    assert stored["schema_version"] == CURRENT[form] == 3
    assert without_version(form, stored, "here") == {"text": "x"}
    assert stored["schema_version"] == 3, "the object itself stays"
    assert without_version(form, {"text": "x"}, "here") == {"text": "x"}
    for version in (1, 2, 3):
        check_version(form, {"schema_version": version}, "here")
    check_version(form, {}, "here")
    for refused in (0, 4, -1, 1.0, "1", True, None):
        with pytest.raises(VersionError, match=rf"^here has schema_version = {refused!r}, but this program reads"):
            check_version(form, {"schema_version": refused}, "here")
    with pytest.raises(VersionError, match=r"^A response has schema_version = 9"):
        check_version(form, {"schema_version": 9}, "")


def test_rows_are_read_with_and_without_a_version() -> None:
    assert rows_of(Form.ARMS, "arms", [1, 2], "here") == [1, 2]
    assert rows_of(Form.ARMS, "arms", {"schema_version": 1, "arms": [3]}, "here") == [3]
    assert load_rows(Form.ARMS, "arms", json.dumps({"arms": [4]}).encode(), "here") == [4]
    with pytest.raises(VersionError, match="here has schema_version = 2"):
        load_rows(Form.ARMS, "arms", b'{"schema_version": 2, "arms": []}', "here")
    for data in (b"{", b"\xff"):
        with pytest.raises(IntegrityError, match=r"^here is not JSON: "):
            load_json(data, "here")
