"""The record of a plan, and the plan that a recipe asks for."""

import json

import numpy as np
import pytest

from components.training.batching.sample_plan import CostModel
from components.training.batching.training_plan import FILE, PlanRecord, training_plan
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import VersionError
from mantis.store.local import LocalStore
from tests.fixtures.training import MakeRun


def test_a_record_is_read_as_it_was_written(local_store: LocalStore) -> None:
    assert PlanRecord.load(local_store, "checkpoints/f") is None
    record = PlanRecord(quadratic=0.25, patch=2.0, world_size=4)
    record.save(local_store, "checkpoints/f")
    assert PlanRecord.load(local_store, "checkpoints/f") == record
    assert record.cost == CostModel(quadratic=0.25, patch=2.0)
    stored = json.loads(local_store.get(f"checkpoints/f/{FILE}"))
    assert stored == {"schema_version": 1, "quadratic": 0.25, "patch": 2.0, "world_size": 4}
    local_store.put(f"checkpoints/f/{FILE}", json.dumps(stored | {"schema_version": 9}).encode())
    with pytest.raises(VersionError, match=f"checkpoints/f/{FILE} has schema_version = 9"):
        PlanRecord.load(local_store, "checkpoints/f")


def test_the_plan_follows_the_recipe(make_run: MakeRun) -> None:
    run, mixture = make_run("feed")
    reader = MixtureReader(run.store, mixture)
    training = run.recipe.training.model_copy(update={"epochs": 2, "max_steps": 7, "patch_budget": 9, "seed": 11})
    plan = training_plan(reader, training, CostModel(quadratic=0.0, patch=1.0))
    assert (plan.steps, plan.per_epoch) == (7, len(reader))
    assert len(plan.samples(0)) == training.global_batch_size
    other = training_plan(reader, training.model_copy(update={"seed": 12}), CostModel(quadratic=0.0, patch=1.0))
    assert plan.samples(0).tolist() != other.samples(0).tolist()
    whole = training_plan(
        reader, training.model_copy(update={"max_steps": None}), plan_cost := CostModel(quadratic=0.0, patch=1.0)
    )
    assert whole.steps == -(-2 * len(reader) // training.global_batch_size)
    for step in range(3):
        parts = [part for rank in whole.step(step, world_size=2).ranks for part in rank if len(part) > 1]
        assert all(reader.tokens[part].sum() <= training.token_budget for part in parts)
        assert all(reader.patches[part].sum() <= 9 for part in parts)
    costs = plan_cost(np.asarray(reader.tokens), np.asarray(reader.patches))
    assert costs.tolist() == (reader.tokens + reader.patches).tolist()
