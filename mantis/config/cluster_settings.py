"""The sections `cluster` and `tracking` of a recipe: the place of the ranks, and the experiment in MLflow."""

from typing import Annotated

from pydantic import Field, StringConstraints

from mantis.config.field_types import Name
from mantis.config.identity import Settings

GPU = "nvidia.com/gpu"  # the resource of Kubernetes, and the usual taint of its nodes
# The Secret of the certificates that clients trust, and where pods mount it if it exists (manifests/base). The variable
# SSL_CERT_FILE, of the Secret mantis-store, names the file.
AUTHORITIES, AUTHORITIES_FOLDER = "mantis-authorities", "/etc/mantis"
# Labels of a job or a pod that Kueue reads.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
# The variables that give both to jobs whose recipe names none: a platform file sets them for the step `train`.
QUEUE, PRIORITY = "MANTIS_QUEUE", "MANTIS_PRIORITY"
# An API server refuses other amounts and other names of queues. Without these patterns, only `train` would find out.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$", coerce_numbers_to_str=True)]
QueueName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?$")]
# The reference of an image as container runtimes read it: [host[:port]/]path[:tag][@sha256:digest].
IMAGE_REFERENCE = (
    r"^(([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?)?$"
)
ImageReference = Annotated[str, StringConstraints(pattern=IMAGE_REFERENCE)]


class ClusterSettings(Settings):
    """Place of the ranks for `training.launcher: trainjob`, and of a server. None of these fields decides a result."""

    section = "cluster"

    namespace: Name = Field(
        "mantis", description="Namespace of the TrainJobs and of a server. It must hold the Secret mantis-store."
    )
    image: ImageReference = Field(
        "", description="Image of the ranks and of a server. Empty means the image of the step that asks for it."
    )
    runtime: Name = Field("mantis-deepspeed", description="Name of the ClusterTrainingRuntime.")
    queue: QueueName = Field(
        "",
        description="LocalQueue of Kueue. The job waits in it without a time limit. Empty means the queue that the "
        "platform file names for the step `train`.",
    )
    priority: QueueName = Field(
        "",
        description="WorkloadPriorityClass of Kueue, by which jobs wait and take each other's place. Empty means the "
        "class that the platform file names for the step `train`.",
    )
    gpu_hour_price: float | None = Field(
        None,
        ge=0,
        description="Price of an hour of one GPU, or of one rank without GPUs, in any currency. The report states the "
        "cost of training.",
    )
    resources: dict[str, Quantity] = Field(
        {}, description="Resources per node instead of the runtime's, e.g. {nvidia.com/gpu: 4, memory: 400Gi}."
    )
    deploy: bool = Field(
        False, description="Write the objects of a server of the model at the end of the run. Nothing is started."
    )


class TrackingSettings(Settings):
    """The experiment that shows the run in MLflow."""

    section = "tracking"

    experiment: str = "mantis"
