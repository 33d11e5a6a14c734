"""`import mantis` from a program: light, whole, and with the numbers of a training."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mantis
from components.training.loss import sample_losses
from components.training.step_view import view_step
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.models.registry import family
from tests.fixtures.training import MakeRun
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def mixture(make_run: MakeRun) -> mantis.LoadedMixture:
    run, _ = make_run("api", {"training.max_steps": "4", "training.gpus_per_node": "1"})
    return mantis.load_mixture("api", store=run.store.url)


def test_the_import_is_light_and_every_name_is_there() -> None:
    program = "import sys, mantis; print(sorted({'torch', 'pipelines', 'components'} & set(sys.modules)), dir(mantis))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]")
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    for name in mantis.__all__:
        assert name in done.stdout
        assert f"`{name}" in page or f"mantis.{name}(" in page
        assert getattr(mantis, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = mantis.load_everything


def test_a_recipe_by_name_text_and_file(tmp_path: Path) -> None:
    recipe = mantis.load_recipe("demo", {"training.max_steps": 3, "data.skills": ["single"]})
    assert isinstance(recipe, Recipe)
    assert recipe.training.max_steps == 3
    file = tmp_path / "mine.yaml"
    file.write_text(recipe.to_yaml())
    assert mantis.load_recipe(file) == mantis.load_recipe(file.read_text()) == recipe
    with pytest.raises(ConfigError, match="cannot be read"):
        mantis.load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"training\.max_stepz"):
        mantis.load_recipe("demo", {"training.max_stepz": 3})


def test_samples_of_a_mixture(mixture: mantis.LoadedMixture) -> None:
    assert len(mixture) == 250
    for position in (0, 7, 249, -1):
        sample = mixture[position]
        marks = sum(turn.content.count("<image>") for turn in sample.conversation.turns)
        assert len(sample.images) == marks
        assert all(image.size == (48, 48) for image in sample.images)
        assert sample.tokens > 0
    assert mixture[-1].id == mixture[249].id
    with pytest.raises(IndexError, match="250 samples"):
        _ = mixture[250]
    with pytest.raises(ConfigError, match="nobody"):
        mantis.load_mixture("nobody", store=mixture.run.store.url)


def test_the_same_data_is_prepared_once(mixture: mantis.LoadedMixture) -> None:
    recipe = mixture.run.recipe
    again = mantis.prepare_mixture(recipe, store=mixture.run.store.url)
    assert again.manifest.key == mixture.manifest.key
    assert again.run.id == recipe.default_run_id()


def test_a_packed_step_is_that_of_a_training_and_has_its_loss_mask(mixture: mantis.LoadedMixture) -> None:
    step = mantis.start_training(mixture).packed_step(2)
    view = view_step(mixture.run, mixture.manifest, 2, shown=100)
    assert [each.ids for each in step.micro_steps] == [
        tuple(sample.id for sample in each.samples) for each in view.step.micro_steps
    ]
    assert step.samples == mixture.run.recipe.training.global_batch_size
    for micro_step in step.micro_steps:
        batch, mask = micro_step.batch, micro_step.loss_mask
        assert batch.input_ids[0][mask].tolist() == batch.targets.tolist()
        learned = [
            token for tokens in micro_step.tokens for piece in tokens.pieces if piece.learned for token in piece.ids
        ]
        assert learned == batch.targets.tolist()
        page = micro_step._repr_html_()
        assert page.count("<img") == sum(map(len, micro_step.images))
        assert page.count("data:image/jpeg;base64,") == page.count("<img")


def test_steps_train_on_the_loss_of_single_samples(mixture: mantis.LoadedMixture) -> None:
    training = mantis.start_training(mixture)
    kind = family(mixture.run.recipe.model.family)
    first = training.packed_step(1)
    alone = []
    for position in (mixture._reader.ids.index(name) for each in first.micro_steps for name in each.ids):
        with torch.no_grad():
            batch = training._packed([position]).batch
            alone.append(float(sample_losses(kind.forward(training.model, batch), batch)))
    results = [training.take_step() for _ in range(training.steps)]
    assert results[0].loss == pytest.approx(sum(alone) / len(alone), rel=1e-4)
    assert [each.step for each in results] == [1, 2, 3, 4]
    assert results[-1].loss < results[0].loss
    assert all(each.gradient_norm > 0 for each in results)
    for number in (0, 5):
        with pytest.raises(ConfigError, match=f"no step {number}"):
            training.packed_step(number)
    with pytest.raises(ConfigError, match="no step 5"):
        training.take_step()


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"adapter": {"kind": "lora", "rank": 4}}])
def test_what_needs_the_engine_is_refused(mixture: mantis.LoadedMixture, change: dict[str, object]) -> None:
    settings = mixture.run.recipe.training
    training = type(settings).model_validate(settings.model_dump() | change)
    run = type(mixture.run)(
        id="x", store=mixture.run.store, recipe=mixture.run.recipe.model_copy(update={"training": training})
    )
    with pytest.raises(ConfigError, match=r"training\.precision = "):
        mantis.start_training(mantis.LoadedMixture(run, mixture.manifest))
