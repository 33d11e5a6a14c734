"""Names of layers are checked before a model is built, on a tiny one of the same layers."""

from pathlib import Path
from typing import Any

import pytest

from components.training.engine.layer_names import check_layer_names, tiny_shape
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.models.registry import family_names, family_spec
from mantis.store.local import LocalStore
from pipelines.execution.preflight import preflight
from pipelines.execution.resolve import resolve_run
from tests.fixtures.published_layouts import published_layout

TRAIN = {"training.train": "[projector, text]", "training.zero_stage": "2"}


@pytest.mark.parametrize(
    ("adapter", "problem", "remedy"),
    [
        ("{targets: [q_proj, v_prj]}", "targets names 'v_prj'", "Did you mean v_proj"),
        (
            "{targets: [fc1]}",
            "targets names 'fc1', but the parts with adapters (projector, text)",
            "Linear layers: down_proj,",
        ),
        ("{modules_to_save: [embed_token]}", "modules_to_save names 'embed_token'", "Did you mean embed_tokens"),
        ("{modules_to_save: [layers.9.mlp]}", "modules_to_save names 'layers.9.mlp'", "Modules: "),
        ("{modules_to_save: [vision_tower]}", "which is of vision, but", "Add vision to training.train"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_computed(
    adapter: str, problem: str, remedy: str, local_store: LocalStore
) -> None:
    changes: dict[str, Any] = TRAIN | {"training.adapter": adapter}
    with pytest.raises(ConfigError) as refused:
        preflight("demo", changes, "", local_store.url)
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


@pytest.mark.parametrize("name", family_names())
def test_right_names_of_a_published_base_pass(name: str, local_store: LocalStore, tmp_path: Path) -> None:
    """The tiny model has as many layers as the base."""
    parts = {"training.train": f"[{', '.join(family_spec(name).parts)}]"}
    changes = TRAIN | {"training.adapter": "{modules_to_save: [lm_head]}"} | published_layout(name, tmp_path) | parts
    recipe = resolve_run("demo", changes, "")[1]
    shape = tiny_shape(local_store, recipe.model)
    check_layer_names(local_store, saving(recipe, f"layers.{shape.text_layers - 1}.mlp"))
    missing = 50
    with pytest.raises(ConfigError, match=f"'layers.{missing}.mlp', but the model has no such module"):
        check_layer_names(local_store, saving(recipe, f"layers.{missing}.mlp"))


def saving(recipe: Recipe, module: str) -> Recipe:
    assert recipe.training.adapter is not None
    adapter = recipe.training.adapter.model_copy(update={"modules_to_save": (module,)})
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"adapter": adapter})})
