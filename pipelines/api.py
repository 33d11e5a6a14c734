"""The Python API: `import mantis` offers these names, and imports what they need when they are first used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from components.data.step import assemble, prepare, resolve_subsets
from components.evaluation.scoring.score_response import Scoring
from components.training.one_process import OneProcessTraining
from components.training.step import mixture_of
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.scores import Score
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import ConfigError
from mantis.images.formats import open_image
from mantis.models.conversation import Conversation
from mantis.runs.step_runner import Run, open_run
from mantis.store.opening import default_store_url, open_store
from pipelines.execution.preflight import check_name, keep_recipe
from pipelines.execution.resolve import resolve_run
from pipelines.models.asked_model import AskedModel
from pipelines.models.find_model import find_model
from pipelines.models.rescoring import AnswerRequest, rescored_evaluation, rescored_file


@dataclass(frozen=True, kw_only=True)
class MixtureSample:
    """A sample as training reads it: a conversation with its images, cut to the context.

    Args:
        id: its id in the source.
        subset: the subset that it belongs to.
        conversation: the turns, with an `<image>` mark for each image.
        images: the decoded images.
        tokens: its length in tokens, images expanded.
    """

    id: str
    subset: str
    conversation: Conversation
    images: tuple[Image.Image, ...]
    tokens: int


class LoadedMixture:
    """The samples of a run, by position. `load_mixture` and `prepare_mixture` give one."""

    def __init__(self, run: Run, manifest: Manifest) -> None:
        self.run, self.manifest = run, manifest
        self._reader = MixtureReader(run.store, manifest)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, position: int) -> MixtureSample:
        if not -len(self) <= position < len(self):
            raise IndexError(f"The mixture has {len(self)} samples.")
        at = position % len(self)
        [sample] = self._reader.take([at])
        return MixtureSample(
            id=self._reader.ids[at],
            subset=self._reader.subsets[at],
            conversation=sample.conversation,
            images=tuple(open_image(data).convert("RGB") for data in sample.images),
            tokens=int(self._reader.tokens[at]),
        )


def load_recipe(recipe: str | Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Load a recipe: a shipped name, a store URL, YAML text, or the path of a file.

    Args:
        recipe: the recipe.
        overrides: values by field, e.g. {"training.max_steps": 3}.

    Raises:
        ConfigError: there is no such recipe, or a field is not valid.
    """
    return resolve_run(_text(recipe), overrides or {}, "")[1]


def prepare_mixture(recipe: Recipe, *, store: str = "") -> LoadedMixture:
    """Prepare the data of a recipe in this process. Results that the store has are taken from there.

    Args:
        recipe: the recipe.
        store: the URL of the store; empty for MANTIS_STORE, else ./.mantis.

    Raises:
        ConfigError: the recipe's run has another recipe in this store.
        InputError: the raw data cannot be read.
    """
    opened = open_store(store or default_store_url())
    run = Run(id=recipe.default_run_id(), store=opened, recipe=recipe)
    check_name(run)
    keep_recipe(opened, run.id, recipe)
    return LoadedMixture(run, assemble(run, [prepare(run, subset) for subset in resolve_subsets(run)]))


def load_mixture(run: str, *, store: str = "") -> LoadedMixture:
    """Load the mixture of a run by the run's id. `Recipe.default_run_id()` is the id of a recipe's run.

    Raises:
        ConfigError: there is no such run, or it has no mixture yet.
    """
    opened = open_run(run, store or default_store_url())
    manifest = mixture_of(opened)
    if manifest is None:
        raise ConfigError(f"The run {run} has no mixture yet.", remedy="Continue it, or call prepare_mixture.")
    return LoadedMixture(opened, manifest)


def start_training(mixture: LoadedMixture) -> OneProcessTraining:
    """Build the model of the mixture's run, to look at packed steps and to take some in this process.

    Raises:
        ConfigError: the recipe needs DeepSpeed's engine: bf16, or adapters.
        InputError: weights of the model are missing.
    """
    return OneProcessTraining(mixture.run, mixture.manifest)


def load_model(name: str | Path, *, store: str = "", max_tokens: int = 512) -> AskedModel:
    """Load a model by every name that `mantis model chat` takes: a run, a registered model, an address, a folder.

    Args:
        name: the model.
        store: the URL of the store; empty for MANTIS_STORE, else ./.mantis.
        max_tokens: the longest answer, in tokens.

    Raises:
        ConfigError: there is no such model.
        EvaluationError: its files cannot be loaded.
    """
    opened = open_store(store or default_store_url())
    return AskedModel(opened, find_model(opened, str(name)), name=str(name), max_tokens=max_tokens)


def rescore(
    responses: str | Path,
    *,
    benchmark: str = "",
    source: str = "",
    scoring: Scoring = "official",
    profile: str = "",
    store: str = "",
) -> list[Score]:
    """Score responses again, without generating any.

    Args:
        responses: an evaluation's address in the store, or the path of a JSONL file with ids and responses.
        benchmark: with a file: the benchmark, if the lines do not name it.
        source: with a file: as `evaluation.source`; empty for the mirror.
        scoring: the score of the headline.
        profile: the profile whose rule scores; empty for that of the evaluation, else `direct`.
        store: the URL of the store; empty for MANTIS_STORE, else ./.mantis.

    Raises:
        ConfigError: the address is no evaluation's, or the benchmark is unknown.
        InputError: the responses or the samples cannot be read.
    """
    opened = open_store(store or default_store_url())
    if benchmark or Path(responses).is_file():
        asked = AnswerRequest(benchmark=benchmark, source=source)
        return rescored_file(opened, Path(responses), asked, scoring=scoring, profile=profile)[1].rows
    return rescored_evaluation(opened, str(responses), scoring=scoring, profile=profile)[2].rows


def _text(recipe: str | Path) -> str:
    """The text of a recipe's file; any other recipe is returned as it is."""
    if not isinstance(recipe, Path):
        return recipe
    try:
        return recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe = {str(recipe)!r} cannot be read: {error}.", remedy="Name a YAML file.") from None
