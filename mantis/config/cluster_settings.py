"""The sections `cluster` and `tracking` of a recipe: where a run is executed, and where it is shown."""

from typing import Annotated

from pydantic import Field, StringConstraints

from mantis.config.field_types import Name
from mantis.config.identity import Settings

# An API server refuses other amounts and other names of queues. Without these patterns, only `train` would find out.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$", coerce_numbers_to_str=True)]
QueueName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?$")]


class ClusterSettings(Settings):
    """Where `training.launcher: trainjob` runs the ranks. None of it decides a result."""

    section = "cluster"

    namespace: Name = Field("mantis", description="Of the TrainJobs; has the Secret mantis-store.")
    image: str = Field("", description="Of the ranks; empty: the image that the launching step itself runs in.")
    runtime: Name = Field("mantis-deepspeed", description="The ClusterTrainingRuntime.")
    queue: QueueName = Field("", description="A LocalQueue of Kueue; the job waits in it for as long as it takes.")
    resources: dict[str, Quantity] = Field(
        {}, description="Per node, instead of the runtime's, e.g. {nvidia.com/gpu: 4, memory: 400Gi}."
    )


class TrackingSettings(Settings):
    """Where runs are shown."""

    section = "tracking"

    experiment: str = "mantis"
