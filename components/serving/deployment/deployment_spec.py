"""The objects that serve a model on Kubernetes, as a pure function of the model and of what a person asks for."""

from collections.abc import Sequence
from typing import Any

from kubernetes import client

from components.serving.deployment.deployment_request import DeploymentRequest, check_request
from components.serving.deployment.server_needs import ServerResources, needs_of_model
from components.serving.deployment.server_pod import KEY_SECRET, PORT, PORT_NAME, ServerPod
from mantis.artifacts.manifest import Manifest
from mantis.config.cluster_settings import QUEUE_LABEL
from mantis.kubernetes_yaml import kubernetes_yaml
from mantis.store.base import ObjectStore

PREFIX = "model-"  # so that no name of a person meets an object of manifests/base
ASKS = {"mantis-kfp/asks": "true"}  # the label of the pods and namespaces that may reach a server
PART_OF = {"app.kubernetes.io/part-of": "mantis-kfp", "app.kubernetes.io/name": "model-server"}
KSERVE, KSERVE_KIND = "serving.kserve.io/v1beta1", "InferenceService"
KSERVE_CONTAINER = "kserve-container"  # the name by which KServe knows the container that answers


def rendered(store: ObjectStore, model: Manifest, asked: DeploymentRequest) -> str:
    """The objects that serve a model of the store, as YAML for kubectl, with comments about their use.

    Raises:
        ConfigError: as `check_request`, or the model has no weights in the store.
    """
    pod = _pod(store, model, asked)
    objects = (
        [_inference_service(pod, model, asked), _policy(pod, asked)] if asked.kserve else _objects(pod, model, asked)
    )
    return _head(pod, model, asked) + kubernetes_yaml(objects)


def _pod(store: ObjectStore, model: Manifest, asked: DeploymentRequest) -> ServerPod:
    check_request(store, asked)
    served = asked.name or model.fingerprint[:12]
    resources = ServerResources.model_validate(asked.resources)
    return ServerPod(
        name=PREFIX + served,
        served=served,
        model=model.key,
        store=store.url,
        image=asked.image,
        resources=resources,
        needs=needs_of_model(model, gpus=resources.gpus),
        container=KSERVE_CONTAINER if asked.kserve else "server",
    )


def _objects(pod: ServerPod, model: Manifest, asked: DeploymentRequest) -> Sequence[dict[str, Any]]:
    found = [_deployment(pod, model, asked), _service(pod, asked)]
    if asked.replicas > 1:
        budget = client.V1PodDisruptionBudget(
            api_version="policy/v1",
            kind="PodDisruptionBudget",
            metadata=_metadata(pod, asked),
            spec=client.V1PodDisruptionBudgetSpec(
                max_unavailable=1, selector=client.V1LabelSelector(match_labels=pod.selector)
            ),
        )
        found.append(_plain(budget))
    return [*found, _policy(pod, asked)]


def _deployment(pod: ServerPod, model: Manifest, asked: DeploymentRequest) -> dict[str, Any]:
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={**PART_OF, **pod.labels}, annotations=_origin(model)),
        spec=pod.specification(replicas=asked.replicas),
    )
    spec = client.V1DeploymentSpec(
        replicas=asked.replicas,
        selector=client.V1LabelSelector(match_labels=pod.selector),
        # A start that takes its whole time is no failure yet.
        progress_deadline_seconds=pod.needs.start_seconds + 300,
        revision_history_limit=3,
        template=template,
    )
    metadata = _metadata(pod, asked, annotations=_origin(model))
    if pod.resources.queue:
        metadata.labels[QUEUE_LABEL] = pod.resources.queue
    return _plain(client.V1Deployment(api_version="apps/v1", kind="Deployment", metadata=metadata, spec=spec))


def _service(pod: ServerPod, asked: DeploymentRequest) -> dict[str, Any]:
    port = client.V1ServicePort(name=PORT_NAME, port=PORT, target_port=PORT_NAME, app_protocol="http")
    spec = client.V1ServiceSpec(selector=pod.selector, ports=[port])
    return _plain(client.V1Service(api_version="v1", kind="Service", metadata=_metadata(pod, asked), spec=spec))


def _policy(pod: ServerPod, asked: DeploymentRequest) -> dict[str, Any]:
    """Clients reach the port of the server. It reaches what manifests/base allows to a client of the store."""
    chosen = client.V1LabelSelector(match_labels=ASKS)
    peers = [
        client.V1NetworkPolicyPeer(pod_selector=chosen),
        client.V1NetworkPolicyPeer(namespace_selector=chosen),
    ]
    ports = [client.V1NetworkPolicyPort(port=PORT, protocol="TCP")]
    spec = client.V1NetworkPolicySpec(
        pod_selector=client.V1LabelSelector(match_labels=pod.selector),
        policy_types=["Ingress", "Egress"],
        ingress=[client.V1NetworkPolicyIngressRule(_from=peers, ports=ports)],
    )
    return _plain(
        client.V1NetworkPolicy(
            api_version="networking.k8s.io/v1", kind="NetworkPolicy", metadata=_metadata(pod, asked), spec=spec
        )
    )


def _inference_service(pod: ServerPod, model: Manifest, asked: DeploymentRequest) -> dict[str, Any]:
    """An InferenceService without Knative, whose one container is the server. KServe makes Deployment and Service."""
    mode = {"serving.kserve.io/deploymentMode": "RawDeployment"}
    metadata = _metadata(pod, asked, annotations={**mode, **_origin(model)})
    predictor = {
        "minReplicas": asked.replicas,
        "maxReplicas": asked.replicas,
        "labels": {**PART_OF, **pod.labels},
        **_plain(pod.specification(replicas=asked.replicas)),
    }
    return {"apiVersion": KSERVE, "kind": KSERVE_KIND, "metadata": _plain(metadata), "spec": {"predictor": predictor}}


def _metadata(pod: ServerPod, asked: DeploymentRequest, annotations: dict[str, str] | None = None) -> Any:
    labels = {**PART_OF, **pod.selector}
    return client.V1ObjectMeta(name=pod.name, namespace=asked.namespace, labels=labels, annotations=annotations)


def _origin(model: Manifest) -> dict[str, str]:
    return {"mantis-kfp/model": model.key} | ({"mantis-kfp/run": model.made_by.run} if model.made_by.run else {})


def _plain(value: Any) -> dict[str, Any]:
    """An object of the client in the form of the API server."""
    return dict(client.ApiClient().sanitize_for_serialization(value))


def _head(pod: ServerPod, model: Manifest, asked: DeploymentRequest) -> str:
    kubectl = f"kubectl -n {asked.namespace}"
    if asked.kserve:
        watch, service = f"{kubectl} get inferenceservice {pod.name}", f"{pod.name}-predictor"
        port = 80
    else:
        watch, service, port = f"{kubectl} rollout status deployment/{pod.name}", pod.name, PORT
    return (
        f"# A server of {model.key}; clients call it {pod.served!r}.\n"
        f"# The Secret {KEY_SECRET} holds the key of clients; the Job make-secrets of manifests/base makes it.\n"
        f"# Watch it:  {watch}\n"
        f"# Ask it:    http://{service}.{asked.namespace}.svc:{port}/v1, from pods or namespaces with the label "
        'mantis-kfp/asks: "true"\n'
        f"# From here: {kubectl} port-forward service/{service} 8000:{port}\n"
    )
