from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mantis.config.migrations import JOINED, RENAMED, first_name, migrate, present_name
from mantis.config.recipe import Recipe, parse_recipe, read_stored_recipe
from mantis.errors import ConfigError, VersionError
from mantis.runs.step_runner import open_run, recorded
from mantis.store.local import LocalStore
from pipelines.cli.main import app
from tests.golden.sections import sections

FIELDS = {section.place(name) for section in sections().values() for name in section.model_fields}
# As a run of the time before schema versions has it.
OLD = """
name: old
data: {balance: sqrt, subsets: [{name: a, cap: 3}]}
training: {batch_size: 16, processes_per_node: 1, checkpoint_keep: 3, checkpoint_keep_every: 500, feed_threads: 1,
  hang_seconds: 30, loss_spike: 3.0, skip_bad_steps: 2, epsilon: 1.0e-6, gradient_clipping: 0.5}
"""
NOW = """
name: old
data: {sampling: sqrt, subsets: [{name: a, cap: 3}]}
training: {global_batch_size: 16, gpus_per_node: 1, keep_last: 3, keep_every: 500, data_workers: 1,
  hang_timeout_seconds: 30, loss_spike_factor: 3.0, max_skipped_steps: 2, eps: 1.0e-6, max_grad_norm: 0.5}
"""


def test_a_stored_recipe_of_old_names_is_the_same_run() -> None:
    stored = read_stored_recipe(OLD, origin="old")
    assert stored == parse_recipe(NOW, origin="now")
    assert stored.to_yaml().startswith("schema_version: 1\n")


def test_the_identity_has_the_first_names() -> None:
    identity = parse_recipe(NOW, origin="now").identity()
    assert identity["training.batch_size"] == 16
    assert identity["training.epsilon"] == 1e-6
    assert identity["data.balance"] == "sqrt"
    assert "training.global_batch_size" not in identity


@pytest.mark.parametrize("old", RENAMED)
def test_a_new_recipe_with_an_old_name_is_told_the_new_one(old: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{old} = 1 is not a field any more: it is {present_name(old)} now"):
        parse_recipe("name: x", origin="r", overrides={old: "1"})


def test_renamed_fields_exist_and_no_field_takes_a_used_name() -> None:
    assert not FIELDS & RENAMED.keys()
    assert {present_name(old) for old in RENAMED} <= FIELDS
    assert len({first_name(field) for field in FIELDS}) == len(FIELDS)


def test_a_store_with_an_old_run_opens(local_store: LocalStore) -> None:
    local_store.put("runs/old/recipe.yaml", OLD.encode())
    run = open_run("old", local_store.url)
    with recorded(run, "preflight"):
        pass
    assert run.recipe.training.global_batch_size == 16
    shown = CliRunner().invoke(app, ["status", "old", "--store", local_store.url])
    assert shown.exit_code == 0, shown.output
    assert "preflight" in shown.output


def test_a_field_that_a_later_version_removed_is_left_out_and_named(
    local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    removed = OLD + "evaluation: {gone: 5}\nlost: {a: 1}\n"
    local_store.put("runs/old/recipe.yaml", removed.encode())
    assert open_run("old", local_store.url).recipe == parse_recipe(NOW, origin="now")
    assert "runs/old/recipe.yaml: evaluation.gone = 5 is not a field any more and is ignored" in caplog.text
    assert "lost = {'a': 1} is not a field any more and is ignored" in caplog.text


def test_a_removed_field_in_an_item_of_a_list_is_left_out() -> None:
    text = "name: x\ndata: {subsets: [{name: a}, {name: b, gone: 1}]}"
    assert [subset.name for subset in read_stored_recipe(text, origin="old").data.subsets] == ["a", "b"]


def test_a_wrong_value_of_a_stored_recipe_is_named() -> None:
    with pytest.raises(ConfigError, match=r"training\.max_skipped_steps = -1"):
        read_stored_recipe("name: x\ntraining: {skip_bad_steps: -1, gone: 1}", origin="old")


@pytest.mark.parametrize("version", [2, 0, "new", True, None])
@pytest.mark.parametrize("read", [parse_recipe, read_stored_recipe])
def test_an_unknown_schema_version_is_refused(read: Any, version: Any) -> None:
    text = yaml.safe_dump({"schema_version": version, "name": "x"})
    with pytest.raises(VersionError, match=r"^r\.yaml has schema_version = .*up to version 1\. Use the version"):
        read(text, origin="r.yaml")


def test_the_version_is_no_part_of_the_identity() -> None:
    assert "schema_version" not in Recipe(name="x").identity()


def test_renames_in_several_steps_of_fields_sections_and_items() -> None:
    renamed = {"a.x": "a.y", "a.y": "b.c.z", "list.old": "list.new", "section": "part"}
    raw = {"a": {"x": 1, "k": 2}, "list": [{"old": 3}, {"new": 4}], "section": {"f": 5}}
    migrate(raw, origin="r", renamed=renamed)
    assert raw == {"a": {"k": 2}, "b": {"c": {"z": 1}}, "list": [{"new": 3}, {"new": 4}], "part": {"f": 5}}
    assert first_name("b.c.z", renamed) == "a.x"
    assert first_name("part.f", renamed) == "section.f"
    assert present_name("a.x", renamed) == "b.c.z"
    assert first_name("partial.f", renamed) == "partial.f"


def test_a_field_under_both_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size and training\.global_batch_size are the same field"):
        read_stored_recipe("name: x\ntraining: {batch_size: 1, global_batch_size: 2}", origin="old")


TINY = """
name: old
model:
  base: BASE
  tiny: {image_size: 336, patch_size: 14, text_layers: 5}
"""


def test_the_shape_of_a_model_from_scratch_is_split() -> None:
    recipe = read_stored_recipe(TINY.replace("BASE", "tiny"), origin="r")
    assert recipe.model.base == "scratch"
    assert (recipe.model.image.size, recipe.model.image.patch_size) == (336, 14)
    assert recipe.model.from_scratch is not None
    assert recipe.model.from_scratch.text_layers == 5


def test_a_shape_that_published_weights_did_not_read_is_dropped() -> None:
    recipe = read_stored_recipe(TINY.replace("BASE", "llama3-8b-instruct"), origin="r")
    assert recipe.model.image.size == 336
    assert recipe.model.from_scratch is None


@pytest.mark.parametrize(
    ("old", "profile"),
    [
        ("prompt: mantis, decoding: greedy-short", "direct"),
        ("decoding: official-mllava", "official"),
        ("prompt: mantis, decoding: official-idefics2", "official"),
        ("prompt: muirbench, decoding: greedy-short", "official"),
        ("prompt: lmms-eval, decoding: official-mllava", "lmms-eval"),
    ],
)
def test_prompt_and_decoding_of_a_stored_recipe_become_a_profile(old: str, profile: str) -> None:
    stored = read_stored_recipe(f"name: x\nevaluation: {{{old}, scoring: strict}}", origin="old")
    assert stored == parse_recipe(f"name: x\nevaluation: {{profile: {profile}, scoring: strict}}", origin="now")


def test_a_stored_recipe_has_no_profile_beside_its_old_fields() -> None:
    with pytest.raises(ConfigError, match=r"old: evaluation\.profile is set, and evaluation\.prompt"):
        read_stored_recipe("name: x\nevaluation: {prompt: mantis, profile: official}", origin="old")


@pytest.mark.parametrize("old", JOINED)
def test_a_new_recipe_with_a_joined_field_is_told_the_profile(old: str) -> None:
    with pytest.raises(ConfigError, match=rf"{old} = 'mantis' is not a field any more: it is evaluation.profile now"):
        parse_recipe("name: x", origin="r", overrides={old: "mantis"})
