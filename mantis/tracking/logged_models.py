"""Record a model as a LoggedModel of MLflow: a few files that plain MLflow loads, and scores with their datasets.

The files name the model in the store; the weights stay there. MLflow imports LOADER from the installed project, which
reads JSON and safetensors. Nothing that lies in MLflow or in the store runs as code.
"""

import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_database import artifact_folder
from mantis.tracking.mlflow_runs import BATCH, TrackedRun, address_in, log_datasets
from mantis.tracking.run_description import DIGEST_CHARACTERS, EVALUATED, DatasetEntry
from mantis.tracking.score_metrics import SCORE, is_metric_name, metric_part, score_metrics

ADDRESS_TAG = "mantis.address"  # a key if the database lies in the store, else a URI
FINGERPRINT_TAG = "mantis.fingerprint"
LOADER = "pipelines.models.mlflow_model"
PROJECT = "mantis-kfp"
READY = "READY"
MAX_TOKENS = 512  # of an answer, as in `mantis model chat`


@dataclass(frozen=True, kw_only=True)
class ScoredBenchmark:
    """The scores of a model on a benchmark: rows of scores.json. `digest` names the samples that were asked."""

    name: str
    digest: str
    key: str
    rows: Sequence[Mapping[str, Any]]


def log_model(tracked: TrackedRun, run: Run, model: Manifest, scored: Sequence[ScoredBenchmark]) -> Any:
    """Record `model` with its scores, and return MLflow's LoggedModel. One that is there gets missing scores alone.

    Raises:
        MlflowException: MLflow refuses.
    """
    logged = _known(tracked, run, model) or _created(tracked, run, model)
    log_scores(tracked, logged, scored)
    return logged


def log_scores(tracked: TrackedRun, logged: Any, scored: Sequence[ScoredBenchmark]) -> None:
    """Log the scores as metrics of the run, of the model, and of the benchmark's dataset. Equal ones stay."""
    from mlflow.entities import Metric

    log_datasets(tracked, [_dataset(each) for each in scored])
    known = {(each.key, each.dataset_digest): each.value for each in logged.metrics or ()}
    now, metrics = int(time.time() * 1000), []
    for name, value in score_metrics(row for each in scored for row in each.rows).items():
        of = next((each for each in scored if name == f"{SCORE}.{metric_part(each.name)}"), None)
        digest = _digest(of) if of else None
        if is_metric_name(name) and known.get((name, digest)) != value:
            metrics.append(
                Metric(
                    name,
                    value,
                    now,
                    0,
                    model_id=logged.model_id,
                    dataset_name=of.name if of else None,
                    dataset_digest=digest,
                    run_id=tracked.id,
                )
            )
    for start in range(0, len(metrics), BATCH):
        tracked.client.log_batch(tracked.id, metrics=metrics[start : start + BATCH])


def _digest(scored: ScoredBenchmark) -> str:
    return scored.digest[:DIGEST_CHARACTERS]


def _dataset(scored: ScoredBenchmark) -> DatasetEntry:
    source = json.dumps({"key": scored.key})
    return DatasetEntry(name=scored.name, digest=_digest(scored), source=source, context=EVALUATED)


def _known(tracked: TrackedRun, run: Run, model: Manifest) -> Any:
    """The LoggedModel of this model at this address; None if there is none that can be loaded."""
    tags = {FINGERPRINT_TAG: model.fingerprint, ADDRESS_TAG: address_in(run.store, model.key)}
    wanted = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    found = tracked.client.search_logged_models([tracked.experiment], wanted)
    ready = next((each for each in found if each.status == READY), None)  # MLflow's filter does not know the status
    return tracked.client.get_logged_model(ready.model_id) if ready else None


def _created(tracked: TrackedRun, run: Run, model: Manifest) -> Any:
    from mlflow.entities import LoggedModelOutput

    client = tracked.client
    logged = client.create_logged_model(
        tracked.experiment,
        name=_name(run.recipe.name),
        source_run_id=tracked.id,
        tags={FINGERPRINT_TAG: model.fingerprint, ADDRESS_TAG: address_in(run.store, model.key)},
        params={"family": run.recipe.model.family, "base": run.recipe.model.base, "run": run.id},
        model_type=run.recipe.model.family,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "MLmodel").write_text(_description(tracked, run, model, logged.model_id))
        (folder / "requirements.txt").write_text(f"{PROJECT}=={version(PROJECT)}\n")
        kept = artifact_folder(tracked.folder, logged.artifact_location) if tracked.folder else None
        if kept is None:
            client.log_model_artifacts(logged.model_id, str(folder))
        else:  # as in mlflow_runs.record_run
            for file in folder.iterdir():
                LocalStore(kept).put_file(file.name, file)
    client.log_outputs(tracked.id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, READY)


def _name(name: str) -> str:
    """A name that MLflow takes for a LoggedModel: it refuses these characters."""
    return "".join("-" if character in "/:.%\"'" else character for character in name)


def _description(tracked: TrackedRun, run: Run, model: Manifest, model_id: str) -> str:
    """The file MLmodel. A store beside the database gets no address, so that both can be moved."""
    from mlflow.models import Model

    address = address_in(run.store, model.key)
    described = Model(run_id=tracked.id, model_id=model_id, metadata={FINGERPRINT_TAG: model.fingerprint})
    described.add_flavor(
        "python_function",
        loader_module=LOADER,
        python_version=platform.python_version(),
        config={
            "store": "" if address == model.key else run.store.url,
            "key": model.key,
            "fingerprint": model.fingerprint,
            "max_tokens": MAX_TOKENS,
        },
    )
    return str(described.to_yaml())
