"""Build the TrainJob of a training as a pure function of the run, with a name that repeats for the same training."""

import os
import re
from typing import Any

from kubeflow_trainer_api import models

from mantis.config.cluster_settings import PRIORITY, PRIORITY_LABEL, QUEUE, QUEUE_LABEL, ClusterSettings
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.logging import FORMAT, LEVEL
from mantis.runs.step_runner import Run

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
ASKED_ANNOTATION = "mantis-kfp/asked"  # hash of the requested spec; stored specs differ from it by defaults
RUN_LABEL = "mantis-kfp/run"
JOB_OF_POD = "jobset.sigs.k8s.io/jobset-name"  # the label of a pod that names its TrainJob
TRAINING_LABEL = "mantis-kfp/training"  # of a launcher's job: the checkpoint that it trains
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LONGEST = 40  # characters of a run's id in a job's name: pods append to it, and are limited to 63
# The MLflow run that KFP created, and the server that holds it, which may differ from the server of the runtime.
PASSED_ON = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI")


def training_of(store_url: str, made: str) -> str:
    """Identify the training of the checkpoint with fingerprint `made` into a store, by 8 digits."""
    return fingerprint([store_url, made])[:8]


def job_name(run: str, training: str) -> str:
    """Name the TrainJob that a launcher of `run` starts for `training`: `train-<run>-<training>`.

    The name follows RFC 1035. Pods are called `<name>-node-0-<node>-<5 letters>`, at most 63 characters.
    """
    return f"train-{_words(run, LONGEST - 1 - len(training))}-{training}"


def applied_name(run: str) -> str:
    """Name the TrainJob of a run that a user applies: without prepared data, the checkpoint's address is unknown."""
    return f"train-{_words(run, LONGEST)}"


def _words(run: str, longest: int) -> str:
    """The run's id as a part of a name. A changed or cut id gets a hash, else two runs could get the same name."""
    words = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    if words == run and len(words) <= longest:
        return words
    return f"{words[: longest - 9].rstrip('-')}-{fingerprint(run)[:8]}"


def label_of(run: str) -> str:
    """Return the run's id as the value of a label: the id if it is valid there, else its hash."""
    return run if LABEL_VALUE.fullmatch(run) else fingerprint(run)[:16]


def stored_in(job: dict[str, Any]) -> str:
    """Return the URL of the store that a TrainJob trains into; empty if it has none."""
    command = [*job["spec"].get("trainer", {}).get("command", ()), ""]
    return str(command[command.index("--store") + 1]) if "--store" in command else ""


def train_job(run: Run, made: str, *, samples: int = 0) -> dict[str, Any]:
    """Build the TrainJob that trains the checkpoint with fingerprint `made`, in the form of the API server.

    `samples` of the mixture give the number of steps in an annotation; 0: not known yet.

    Raises:
        ConfigError: `cluster.image` is empty, or pods cannot reach the store.
    """
    training = training_of(run.store.url, made)
    job = _job(run, job_name(run.id, training), samples=samples)
    job["metadata"]["labels"][TRAINING_LABEL] = training
    return job


def applied_job(run: Run) -> dict[str, Any]:
    """Build the TrainJob that a user applies for `run`.

    Raises:
        ConfigError: as `train_job`.
    """
    return _job(run, applied_name(run.id))


def probe_job(cluster: ClusterSettings, store_url: str, *, name: str, nodes: int, per_node: int) -> dict[str, Any]:
    """Build a TrainJob whose ranks only meet, time an all-reduce, and test the store if pods can reach it.

    Raises:
        ConfigError: `cluster.image` is empty.
    """
    arguments = ["-m", "components.training.launch.all_reduce", *([store_url] if store_url.startswith("s3://") else [])]
    trainer = _trainer(cluster, nodes=nodes, per_node=per_node, arguments=arguments)
    return _named(cluster, name, trainer, labels={})


def _job(run: Run, name: str, *, samples: int = 0) -> dict[str, Any]:
    cluster = run.recipe.cluster
    if not run.store.url.startswith("s3://"):
        raise ConfigError(
            f"store = {run.store.url}: pods of a TrainJob cannot reach it.",
            remedy="Set --store to s3://bucket/prefix when training.launcher is trainjob.",
        )
    training = run.recipe.training
    # The ranks read the recipe that preflight stored.
    arguments = ["-m", "components.training", "--store", run.store.url, "--run-id", run.id]
    trainer = _trainer(cluster, nodes=training.nodes, per_node=training.gpus_per_node, arguments=arguments)
    job = _named(cluster, name, trainer, labels={RUN_LABEL: label_of(run.id)})
    job["metadata"]["annotations"] |= {f"mantis-kfp/{name}": value for name, value in described(run, samples).items()}
    return job


def described(run: Run, samples: int) -> dict[str, str]:
    """What `kubectl describe` says about a training: recipe, learning rate, batch size and steps.

    Without prepared data (`samples` is 0), the number of steps is not known.
    """
    training = run.recipe.training
    if samples:
        steps = f"{training.steps_of(samples):,}"
    elif training.max_steps is not None:
        steps = f"at most {training.max_steps:,}"
    else:
        steps = f"{training.epochs} x the samples of the mixture, in batches of {training.global_batch_size:,}"
    return {
        "recipe": run.recipe.name,
        "learning-rate": f"{training.learning_rate:g}",
        "batch-size": str(training.global_batch_size),
        "steps": steps,
        "to-change-a-field": "render the job again: mantis job RECIPE --set FIELD=VALUE",
    }


def _named(
    cluster: ClusterSettings, name: str, trainer: models.TrainerV1alpha1Trainer, *, labels: dict[str, str]
) -> dict[str, Any]:
    spec = models.TrainerV1alpha1TrainJobSpec(
        runtimeRef=models.TrainerV1alpha1RuntimeRef(name=cluster.runtime), trainer=trainer
    )
    labels = {"app.kubernetes.io/part-of": "mantis-kfp", **labels}
    queue, priority = (cluster.queue or os.environ.get(QUEUE, "")), (cluster.priority or os.environ.get(PRIORITY, ""))
    labels |= {label: name for label, name in ((QUEUE_LABEL, queue), (PRIORITY_LABEL, priority)) if name}
    # Other attempts, and other runs with the same training, must give the same hash. So does another priority: a job
    # that runs need not begin again for it.
    asked = spec.to_dict() | {"queue": queue}
    for field in ("env", "command"):
        asked["trainer"].pop(field)
    job = models.TrainerV1alpha1TrainJob(
        apiVersion=f"{GROUP}/{VERSION}",
        kind="TrainJob",
        metadata=models.IoK8sApimachineryPkgApisMetaV1ObjectMeta(
            name=name,
            namespace=cluster.namespace,
            labels=labels,
            annotations={ASKED_ANNOTATION: fingerprint(asked)},
        ),
        spec=spec,
    )
    return dict(job.to_dict())


def _trainer(
    cluster: ClusterSettings, *, nodes: int, per_node: int, arguments: list[str]
) -> models.TrainerV1alpha1Trainer:
    image = cluster.image or os.environ.get("MANTIS_IMAGE", "")
    if not image:
        raise ConfigError(
            "cluster.image = '': a TrainJob needs an image.",
            remedy="Set cluster.image, e.g. --set cluster.image=my/train:1. Pods read it from MANTIS_IMAGE.",
        )
    given = (FORMAT, LEVEL, *(PASSED_ON if "MLFLOW_RUN_ID" in os.environ else ()))
    environment = {"MANTIS_IMAGE": image} | {name: os.environ[name] for name in given if name in os.environ}
    quantity = models.IoK8sApimachineryPkgApiResourceQuantity
    amounts = {name: quantity(text) for name, text in cluster.resources.items()}
    return models.TrainerV1alpha1Trainer(
        image=image,
        command=["tini", "--", "python3", "-m", "components.training.launch.torchrun_in_pod", *arguments],
        numNodes=nodes,
        numProcPerNode=per_node,
        env=[models.IoK8sApiCoreV1EnvVar(name=name, value=value) for name, value in environment.items()],
        resourcesPerNode=models.IoK8sApiCoreV1ResourceRequirements(requests=amounts, limits=amounts)
        if amounts
        else None,
    )
