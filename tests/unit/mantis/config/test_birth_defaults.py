"""A changed default would give a recipe that omits the field the identity of another recipe."""

import json

from pydantic import Field

from mantis.config.identity import Settings, birth_default, born_with
from tests.golden.birth_defaults import COMMAND, FILE, birth_defaults, changed, merged

KNOWN = json.loads(FILE.read_text())


def test_no_birth_default_has_changed() -> None:
    lines = changed(KNOWN, birth_defaults())
    assert not lines, "\n  ".join(
        [
            "A recipe that omits one of these fields would get the address of other results. If the default has to "
            "change, record the one that the field was born with: Field(NEW, json_schema_extra=born_with(OLD)).",
            *lines,
        ]
    )


def test_every_field_is_recorded() -> None:
    assert merged(KNOWN, birth_defaults()) == KNOWN, f"Recipe fields are not in {FILE.name}: run `{COMMAND}`."


def test_a_changed_default_is_noticed() -> None:
    found = birth_defaults()
    other = {**found, "defaults": {**found["defaults"], "training.weight_decay": 0.1}}
    assert changed(KNOWN, other) == ["training.weight_decay: 0.0 -> 0.1"]


def test_the_recorded_default_decides_when_the_default_has_changed() -> None:
    class Section(Settings):
        section = "section"
        rate: float = Field(2.0, json_schema_extra=born_with(1.0))

    assert birth_default(Section.model_fields["rate"]) == 1.0
    assert Section().identity() == {"section.rate": 2.0}
    assert Section(rate=1.0).identity() == {}


def test_a_default_that_is_made_for_each_section_is_its_birth_default() -> None:
    class Section(Settings):
        section = "section"
        rates: dict[str, float] = Field(default_factory=lambda: {"vision": 1.0})

    assert birth_default(Section.model_fields["rates"]) == {"vision": 1.0}
