"""Golden run ids and addresses: a refactoring must not move what a store already holds."""

import json

from tests.golden.fingerprints import COMMAND, FILE, changes, golden_fingerprints

MEANING = (
    "A changed run id or fingerprint is a new address: a finished run is not found, and its steps are computed again "
    f"(training, too). If the change is meant, run `{COMMAND}` and commit the difference with its reason. Changed:"
)


def test_no_run_id_and_no_fingerprint_has_changed() -> None:
    changed = changes(json.loads(FILE.read_text()), golden_fingerprints())
    assert not changed, "\n  ".join([MEANING, *changed])


def test_a_change_is_told_by_recipe_and_step() -> None:
    before = {"demo": {"run": "demo-1", "train": "a"}, "gone": {"run": "gone-1"}}
    after = {"demo": {"run": "demo-1", "train": "b", "convert": "c"}}
    assert changes(before, after) == [
        "demo: train: a -> b",
        "demo: convert: absent -> c",
        "gone: run: gone-1 -> absent",
    ]
