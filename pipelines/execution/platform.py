"""Set the image, credentials and resources of tasks on a cluster, with kfp-kubernetes. kfp.local ignores all of it.

KFP retries nothing: its controller retries only lost pods,
whatever a task requests. The steps retry transient faults themselves.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from kfp import dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from components.serving.deployment.server_needs import ServerResources
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.cluster_settings import (
    AUTHORITIES,
    AUTHORITIES_FOLDER,
    GPU,
    PRIORITY,
    PRIORITY_LABEL,
    QUEUE,
    QUEUE_LABEL,
    QueueName,
)
from mantis.config.validation_errors import explain
from mantis.errors import ConfigError, did_you_mean
from pipelines.execution.step_secrets import secrets_of

UNBOUND = "unbound-"  # before the name of a pipeline that is bound to no image, which KFP refuses to start
UNBOUND_SECONDS = 20  # limit of its tasks, if a person fills in the missing input: the image is awaited for ever
SHORT_SECONDS = 1800  # limit of tasks that only read and write records, including the pod's wait for a node
USER = 1000  # of the images, and its group
STEP_LABEL = "mantis-kfp/step"  # of every task's pod; manifests/steps/kfp-network selects it
TRAIN = "train"  # the step whose queue and priority are those of the TrainJob that it starts
SERVER = "serve"  # the entry of a platform file for the pods that `mantis model deploy` and the step `deploy` render
Cores = Annotated[str, Field(pattern=r"^\d+(\.\d+)?m?$")]
Bytes = Annotated[str, Field(pattern=r"^\d+(\.\d+)?[MGT]i?$")]
COMPILE = "Run `mantis pipeline compile --image NAME@sha256:... FOLDER`, and upload the file from FOLDER."


class Resources(BaseModel):
    """The resources that the pods of one step request. An omitted field requests nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Cores | None = Field(None, description="Requested cores, e.g. 16.")
    memory: Bytes | None = Field(None, description="Requested memory and its limit, e.g. 128Gi.")
    gpus: int = Field(0, ge=0, description="Number of GPUs; the pod tolerates the usual taint nvidia.com/gpu.")
    shared_memory: Bytes = Field("2Gi", description="Size of /dev/shm, which is 64 MiB by default in Kubernetes.")
    node_selector: dict[str, str] = {}
    queue: QueueName = Field(
        "", description="A LocalQueue of Kueue, which must manage plain pods; for `train`, the queue of the TrainJob."
    )
    priority: QueueName = Field("", description="A WorkloadPriorityClass of Kueue, by which pods or the TrainJob wait.")
    parallelism: int = Field(0, ge=0, description="Most tasks of the step at the same time, in a loop; 0: no limit.")
    timeout_seconds: int | None = Field(None, ge=1, description="Time limit, including the wait for a node.")


NOTHING = Resources()
BY_STEP = TypeAdapter(dict[str, Resources])  # the content of the file of `--platform`


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The image of every task and the resources of the steps, which a pipeline is bound to at compilation.

    `arms` is the largest number of arms of an ablation or a sweep that run at the same time; 0: all of them.
    """

    image: str = ""  # empty: an image that no cluster can pull
    steps: Mapping[str, Resources] = field(default_factory=dict)
    arms: int = 0


_platform: ContextVar[Platform] = ContextVar("platform")
_named: ContextVar[set[str]] = ContextVar("named")  # the steps that were named while pipelines were bound


def pipeline(
    *, name: str, display_name: str, description: str
) -> Callable[[Callable[..., None]], Callable[[Platform], BaseComponent]]:
    """Decorate a pipeline like `dsl.pipeline`, for several platforms: the result is a function `bind(platform)`.

    Without an image, name and description say that the pipeline cannot run on a cluster.
    """

    def decorate(function: Callable[..., None]) -> Callable[[Platform], BaseComponent]:
        def bind(platform: Platform) -> BaseComponent:
            token = _platform.set(platform)
            try:
                if platform.image:
                    shown = {"name": name, "display_name": display_name, "description": description}
                else:
                    shown = {
                        "name": f"{UNBOUND}{name}",
                        "display_name": f"UNBOUND {display_name}",
                        "description": f"UNBOUND: this file names no image, so KFP starts no run of it. {COMPILE} "
                        f"{description}",
                    }
                return dsl.pipeline(**shown)(function)
            finally:
                _platform.reset(token)

        return bind

    return decorate


def on_cluster(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give a task its image and the credentials that it uses, run it without root, and disable KFP's cache.

    Every step checks the store for an existing result. KFP's cache does not, so it could return addresses of deleted
    results, or skip a launch.
    """
    if image := _platform.get().image:
        # Lineage records the image of this variable, and the ranks of a TrainJob run in it.
        task.set_container_image(image).set_env_variable("MANTIS_IMAGE", image)
    for secret in secrets_of(task.component_spec.name):
        kubernetes.use_secret_as_env(task, secret.name, {key: key for key in secret.keys}, optional=secret.optional)
    kubernetes.use_secret_as_volume(task, AUTHORITIES, AUTHORITIES_FOLDER, optional=True)
    # KFP adds the rest of Pod Security "restricted": no more privileges, no capabilities, the seccomp profile.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, STEP_LABEL, "true")
    return task.set_caching_options(False)


def short(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Apply `on_cluster` with a time limit, which ends a hanging task."""
    return _limited(on_cluster(task), SHORT_SECONDS)


def step(name: str, task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Apply `on_cluster` with the platform's resources of the step `name`."""
    if (named := _named.get(None)) is not None:
        named.add(name)
    wanted = _platform.get().steps.get(name, NOTHING)
    on_cluster(task)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=wanted.shared_memory)
    if wanted.cpu:
        task.set_cpu_request(wanted.cpu)
    if wanted.memory:
        task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(wanted.gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    for label, value in wanted.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    _queue(name, task, wanted)
    return _limited(task, wanted.timeout_seconds)


def _queue(name: str, task: dsl.PipelineTask, wanted: Resources) -> None:
    """Put a step's pod into its queue. The step `train` without GPUs follows a TrainJob, which waits in its place."""
    given = ((QUEUE, QUEUE_LABEL, wanted.queue), (PRIORITY, PRIORITY_LABEL, wanted.priority))
    for variable, label, value in given:
        if value and name == TRAIN:
            task.set_env_variable(variable, value)
        if value and (name != TRAIN or wanted.gpus):
            kubernetes.add_pod_label(task, label, value)


def _limited(task: dsl.PipelineTask, seconds: int | None) -> dsl.PipelineTask:
    """Limit the time of a task, from when its pod has a node. Without an image, the limit is short."""
    limit = seconds if _platform.get().image else UNBOUND_SECONDS
    return kubernetes.set_timeout(task, limit) if limit else task


def most_arms() -> int:
    """The platform's limit of arms at the same time; 0: none. Each arm trains, so the limit of `train` counts, too."""
    return _platform.get().arms or most(TRAIN)


def most(name: str) -> int:
    """The platform's limit of tasks of the step `name` at the same time; 0: none."""
    return _platform.get().steps.get(name, NOTHING).parallelism


def server_resources() -> dict[str, Any]:
    """What the platform gives to the pods of a deployed model; the argument of a task that renders them."""
    if (named := _named.get(None)) is not None:
        named.add(SERVER)
    return resources_of_server(_platform.get())


def resources_of_server(platform: Platform) -> dict[str, Any]:
    """What this platform gives to the pods of a deployed model, as `ServerResources` reads it."""
    return platform.steps.get(SERVER, NOTHING).model_dump(exclude_unset=True)


def steps_of(pipelines: Iterable[Callable[[Platform], BaseComponent]]) -> frozenset[str]:
    """Return the names of all steps in the DAGs of these pipelines."""
    token = _named.set(set())
    try:
        for bind in pipelines:
            bind(Platform())
        return frozenset(_named.get())
    finally:
        _named.reset(token)


def platform_of(image: str, path: Path | None, steps: Collection[str], *, arms: int = 0) -> Platform:
    """Build the platform of an image and of a YAML file; manifests/overlays/a100/steps.yaml is an example.

    Args:
        image: name@sha256:..., or empty for a pipeline that no cluster can run.
        path: the file with the resources of steps; None requests nothing.
        steps: the names that the file may use.
        arms: the limit of arms at the same time.

    Raises:
        ConfigError: the file is missing or not YAML, or has an unknown step or an unknown or invalid field.
    """
    if path is None:
        return Platform(image=image, arms=arms)
    fields = f"Use these fields of a step: {', '.join(Resources.model_fields)}. Steps: {', '.join(sorted(steps))}."
    try:
        given = BY_STEP.validate_python(parse_yaml(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--platform {path}: {error}.", remedy="Name a YAML file of steps. " + fields) from None
    except ValidationError as error:
        raise ConfigError(explain(error, str(path)), remedy=fields) from None
    unknown = sorted(set(given) - set(steps))
    if unknown:
        raise ConfigError(
            f"{path}: no pipeline has a step {', '.join(unknown)}.", remedy=did_you_mean(unknown[0], steps) + fields
        )
    found = Platform(image=image, steps=given, arms=arms)
    try:
        ServerResources.model_validate(resources_of_server(found))
    except ValidationError as error:
        fields = ", ".join(ServerResources.model_fields)
        raise ConfigError(
            explain(error, f"{path}: {SERVER}"),
            remedy=f"A server does not end, and uses one GPU. Its fields: {fields}.",
        ) from None
    return found
