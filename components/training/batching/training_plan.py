"""The plan of a training, and the record from which others compute the same plan."""

from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan
from mantis.config.training_settings import TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore

FILE = "plan.json"


class PlanRecord(Versioned):
    """plan.json: what the plan of a training needs beside recipe and mixture.

    `quadratic` and `patch` are those of the CostModel, which follows from the model's shape. `world_size` is the number
    of ranks at the last start.
    """

    form = Form.TRAINING_PLAN

    quadratic: float
    patch: float
    world_size: int

    @property
    def cost(self) -> CostModel:
        """The costs of samples."""
        return CostModel(quadratic=self.quadratic, patch=self.patch)

    def save(self, store: ObjectStore, prefix: str) -> None:
        """Store the record under `prefix`, the folder of the training."""
        store.put(f"{prefix}/{FILE}", self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, store: ObjectStore, prefix: str) -> "PlanRecord | None":
        """The record under `prefix`; None before the training started."""
        key = f"{prefix}/{FILE}"
        if store.stat(key) is None:
            return None
        return cls.model_validate_json(store.get(key), context=origin(store.uri(key)))


def training_plan(reader: MixtureReader, training: TrainingSettings, cost: CostModel) -> SamplePlan:
    """The plan of all steps of a training.

    Raises:
        ConfigError: the mixture holds no sample.
    """
    return SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=training.seed,
        batch_size=training.global_batch_size,
        epochs=training.epochs,
        max_steps=training.max_steps,
        budgets=Budgets(tokens=training.token_budget, patches=training.patch_budget),
        cost=cost,
    )
