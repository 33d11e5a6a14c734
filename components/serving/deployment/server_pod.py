"""The pod that serves a model, as typed data: PodSecurity `restricted`, a root file system that nobody writes."""

import math
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from components.serving.deployment.server_needs import ServerNeeds, ServerResources, mebibytes
from components.serving.server_limits import KEY, STOP_SECONDS
from mantis.config.cluster_settings import AUTHORITIES, AUTHORITIES_FOLDER, GPU

PORT = 8000
PORT_NAME = "http1"  # a name that KServe knows; to Kubernetes it is any name
# Objects of manifests/base: an account without rights, the keys of a reader of the store, the key of clients.
ACCOUNT, STORE_SECRET, KEY_SECRET = "mantis-server", "mantis-store-read", "mantis-server"
HOST = "kubernetes.io/hostname"
DRAIN_SECONDS = 5  # in which the Service stops sending requests to a pod that ends
PROBE_SECONDS = 5
# A killed server leaves its copy of the model in /tmp, which outlives a container.
START = 'rm -rf /tmp/mantis-model-* && exec mantis "$@"'


@dataclass(frozen=True, kw_only=True)
class ServerPod:
    """A server of one model.

    Args:
        name: of the objects.
        served: the model's name for clients.
        model: the model's key in the store.
        store: the URL of the store.
        container: the container's name.
    """

    name: str
    served: str
    model: str
    store: str
    image: str
    resources: ServerResources
    needs: ServerNeeds
    container: str = "server"

    @property
    def selector(self) -> dict[str, str]:
        """The label that selects the pods of this server alone."""
        return {"mantis-kfp/server": self.name}

    @property
    def labels(self) -> dict[str, str]:
        """The labels of a pod. `mantis-kfp/client` lets it reach the store (manifests/base/network.yaml)."""
        return {**self.selector, "mantis-kfp/role": "server", "mantis-kfp/client": "true"}

    def specification(self, *, replicas: int) -> Any:
        """The V1PodSpec."""
        spread = client.V1TopologySpreadConstraint(
            max_skew=1,
            topology_key=HOST,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=client.V1LabelSelector(match_labels=self.selector),
        )
        gpu = client.V1Toleration(key=GPU, operator="Exists", effect="NoSchedule")
        return client.V1PodSpec(
            service_account_name=ACCOUNT,
            automount_service_account_token=False,
            enable_service_links=False,
            termination_grace_period_seconds=DRAIN_SECONDS + STOP_SECONDS + 15,
            security_context=client.V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=1000,
                run_as_group=1000,
                fs_group=1000,
                seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
            ),
            node_selector=self.resources.node_selector or None,
            tolerations=[gpu] if self.resources.gpus else None,
            topology_spread_constraints=[spread] if replicas > 1 else None,
            containers=[self._container()],
            volumes=[
                client.V1Volume(
                    name="tmp", empty_dir=client.V1EmptyDirVolumeSource(size_limit=mebibytes(self.needs.scratch))
                ),
                client.V1Volume(
                    name="authorities",
                    secret=client.V1SecretVolumeSource(secret_name=AUTHORITIES, optional=True),
                ),
            ],
        )

    def _container(self) -> Any:
        serve = ("model", "serve", self.model, "--store", self.store, "--name", self.served)
        key = client.V1SecretKeySelector(name=KEY_SECRET, key=KEY)
        return client.V1Container(
            name=self.container,
            image=self.image,
            command=["tini", "--", "sh", "-c", START, "sh", *serve, "--host", "0.0.0.0", "--port", str(PORT)],
            termination_message_policy="FallbackToLogsOnError",
            ports=[client.V1ContainerPort(name=PORT_NAME, container_port=PORT, protocol="TCP")],
            env_from=[client.V1EnvFromSource(secret_ref=client.V1SecretEnvSource(name=STORE_SECRET))],
            env=[
                client.V1EnvVar(name=KEY, value_from=client.V1EnvVarSource(secret_key_ref=key)),
                client.V1EnvVar(name="HOME", value="/tmp"),
                client.V1EnvVar(name="MANTIS_IMAGE", value=self.image),
            ],
            startup_probe=_probe(period=PROBE_SECONDS, failures=math.ceil(self.needs.start_seconds / PROBE_SECONDS)),
            readiness_probe=_probe(period=PROBE_SECONDS, failures=2),
            liveness_probe=_probe(period=20, failures=3),
            lifecycle=client.V1Lifecycle(
                pre_stop=client.V1LifecycleHandler(sleep=client.V1SleepAction(seconds=DRAIN_SECONDS))
            ),
            resources=self._amounts(),
            security_context=client.V1SecurityContext(
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=client.V1Capabilities(drop=["ALL"]),
            ),
            volume_mounts=[
                client.V1VolumeMount(name="tmp", mount_path="/tmp"),
                client.V1VolumeMount(name="authorities", mount_path=AUTHORITIES_FOLDER, read_only=True),
            ],
        )

    def _amounts(self) -> Any:
        memory, disk = self.resources.memory or mebibytes(self.needs.memory), mebibytes(self.needs.scratch)
        bound = {"memory": memory, "ephemeral-storage": disk}
        if self.resources.gpus:
            bound[GPU] = str(self.resources.gpus)
        return client.V1ResourceRequirements(requests={"cpu": self.resources.cpu, **bound}, limits=bound)


def _probe(*, period: int, failures: int) -> Any:
    path = client.V1HTTPGetAction(path="/health", port=PORT_NAME)
    return client.V1Probe(http_get=path, period_seconds=period, timeout_seconds=10, failure_threshold=failures)
