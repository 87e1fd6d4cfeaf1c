"""KubeRay's files against its definitions, Kubernetes' schemas and the operator's own checks."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.cluster import cluster_files
from tests.cluster.dockerfile import read_stages
from tests.cluster.resource_schema import InvalidResource, ResourceDefinition

Resource = dict[str, Any]
Definitions = dict[str, ResourceDefinition]

RESOURCES = cluster_files.read_resources()
RAY_KINDS = {name: item for name, item in RESOURCES.items() if item["apiVersion"] == "ray.io/v1"}
JOBS = {name: item for name, item in RAY_KINDS.items() if item["kind"] == "RayJob"}
KUBERNETES = "1.34"
"""Release whose schemas the resources must fit."""


def _get_cluster(resource: Resource) -> Resource:
    spec = resource["spec"]
    return dict(spec["rayClusterSpec"] if resource["kind"] == "RayJob" else spec)


def _iterate_templates(resource: Resource) -> Iterator[tuple[str, Resource]]:
    """The pod templates of a resource by group."""
    if resource["kind"] == "Job":
        yield "job", resource["spec"]["template"]
        return
    cluster = _get_cluster(resource)
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


TEMPLATES = {
    f"{name}-{group}": template
    for name, resource in RESOURCES.items()
    if resource["kind"] in ("Job", "RayJob", "RayCluster")
    for group, template in _iterate_templates(resource)
}


def _validate_pod(template: Resource) -> None:
    metadata = {"name": "pod"} | template.get("metadata", {})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_each_step_has_its_file() -> None:
    assert set(JOBS) == {"propose", "train", "detect", "analyze"}
    assert {"cluster", "prepare", "network-policy", "pod-monitor", "alerts"} <= set(RESOURCES)
    listed = cluster_files.read_yaml(cluster_files.BASE / "kustomization.yaml")["resources"]
    assert sorted(listed) == sorted(f"{name}.yaml" for name in RESOURCES)


@pytest.mark.parametrize("name", RAY_KINDS)
def test_a_resource_fits_its_definition(name: str, definitions: Definitions) -> None:
    resource = RAY_KINDS[name]
    rules = definitions[resource["kind"]].validate(resource)
    assert rules > 0 or resource["kind"] == "RayCluster"


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("spec", "backoffLimit", "backofLimit"),
        ("spec", "deletionStrategy", "deletionstrategy"),
        ("spec.rayClusterSpec.authOptions", "secretName", "secretname"),
        ("spec.rayClusterSpec.autoscalerOptions", "idleTimeoutSeconds", "idleTimeout"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0", "envFrom", "envfrom"),
    ],
)
def test_a_misspelled_field_is_an_error(
    path: str, right: str, wrong: str, definitions: Definitions
) -> None:
    resource = copy.deepcopy(JOBS["propose"])
    holder: Any = resource
    for key in path.split("."):
        holder = holder[int(key) if key.isdigit() else key]
    holder[wrong] = holder.pop(right)
    with pytest.raises(InvalidResource, match=wrong):
        definitions["RayJob"].validate(resource)


def test_a_wrong_type_and_a_broken_rule_are_errors(definitions: Definitions) -> None:
    resource = copy.deepcopy(JOBS["propose"])
    resource["spec"]["backoffLimit"] = "2"
    with pytest.raises(InvalidResource, match="backoffLimit"):
        definitions["RayJob"].validate(resource)
    resource = copy.deepcopy(JOBS["propose"])
    resource["spec"]["deletionStrategy"]["deletionRules"][0]["condition"] = {"ttlSeconds": 60}
    with pytest.raises(InvalidResource, match="requires either the JobStatus or"):
        definitions["RayJob"].validate(resource)


@pytest.mark.parametrize("name", ["prepare", "network-policy"])
def test_kubernetes_own_kinds_fit_their_schemas(name: str) -> None:
    kubernetes_validate.validate(RESOURCES[name], KUBERNETES, strict=True)
    misspelled = copy.deepcopy(RESOURCES[name])
    misspelled["spec"]["podselector"] = misspelled["spec"].pop("podSelector", {})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelled, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_template_fits_kubernetes_schema(name: str) -> None:
    """The pods of all kinds, also where KubeRay's definitions are missing."""
    _validate_pod(TEMPLATES[name])
    misspelled = copy.deepcopy(TEMPLATES[name])
    misspelled["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate_pod(misspelled)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_runs_as_a_user_with_bounds_and_its_store(name: str) -> None:
    template = TEMPLATES[name]
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} <= set(requests)
    assert {"memory", "ephemeral-storage"} <= set(limits)
    for resource in requests.keys() & limits.keys():
        assert _read_quantity(requests[resource]) <= _read_quantity(limits[resource])
    sources = container["envFrom"]
    assert {"configMapRef": {"name": "fast-rcnn-run"}} in sources
    assert {"secretRef": {"name": "fast-rcnn-store"}} in sources
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "fast-rcnn-pipeline"
    assert "env" not in container, (
        "addresses and credentials come from the ConfigMap and the Secret"
    )


def _read_quantity(text: str) -> Decimal:
    match = re.fullmatch(r"(\d+)(Gi|Mi|m|)", text)
    assert match, text
    factors = {"Gi": Decimal(2**30), "Mi": Decimal(2**20), "m": Decimal("0.001"), "": Decimal(1)}
    return Decimal(match[1]) * factors[match[2]]


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_image_is_a_target_of_the_dockerfile(name: str) -> None:
    stages = read_stages((cluster_files.CLUSTER / "Dockerfile").read_text())
    (container,) = TEMPLATES[name]["spec"]["containers"]
    image, _, tag = container["image"].partition(":")
    assert image == "fast-rcnn-pipeline"
    assert tag in stages
    is_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    assert is_gpu == (tag == "gpu")
    tolerated = [toleration["key"] for toleration in TEMPLATES[name]["spec"].get("tolerations", ())]
    assert is_gpu == ("nvidia.com/gpu" in tolerated)


@pytest.mark.parametrize("name", RAY_KINDS)
def test_a_cluster_passes_the_operators_checks(name: str) -> None:
    """What KubeRay 1.7 checks besides its definitions (ray-operator/controllers/ray/utils/validation.go)."""
    resource = RAY_KINDS[name]
    cluster = _get_cluster(resource)
    label = resource["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
    assert len(label) <= 47
    assert cluster["rayVersion"] == cluster_files.read_pinned_versions()["ray"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "fast-rcnn-token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    for group in (head, *cluster["workerGroupSpecs"]):
        assert "labels" not in group["rayStartParams"]
        assert not (group["rayStartParams"] and group.get("resources"))
        assert "restartPolicy" not in group["template"]["spec"], (
            "version 2 of the autoscaler needs Never"
        )
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_passes_the_operators_checks(name: str) -> None:
    spec = JOBS[name]["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["submissionMode"] == "HTTPMode"
    assert "clusterSelector" not in spec, "excludes backoffLimit"
    assert "shutdownAfterJobFinishes" not in spec, "excludes deletionRules"
    assert "submitterPodTemplate" not in spec
    ttls: dict[str, list[int]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        assert rule["policy"] != "DeleteWorkers", "the autoscaler excludes it"
        condition = rule["condition"]
        state = condition.get("jobStatus") or condition.get("jobDeploymentStatus")
        assert state in ("SUCCEEDED", "FAILED", "Failed")
        ttls.setdefault(state, []).append(condition["ttlSeconds"])
    assert all(times == sorted(times) for times in ttls.values()), "the cluster goes before the job"
    assert all(len(times) == 2 for times in ttls.values()), "no job stays for ever"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_starts_without_nodes_and_waits_for_them(name: str) -> None:
    groups = _get_cluster(JOBS[name])["workerGroupSpecs"]
    assert {group["minReplicas"] for group in groups} == {0}, "idle workers go, after a failure too"
    commands = JOBS[name]["spec"]["entrypoint"].split("&&")
    assert all("--no-capacity-after 1800" in command for command in commands)


def test_the_same_parts_are_the_same_in_all_files() -> None:
    """The files repeat the head and the groups, so that each can be read and applied alone."""
    heads, groups = [], []
    for resource in RAY_KINDS.values():
        for group, template in _iterate_templates(resource):
            stripped = copy.deepcopy(template)
            stripped["spec"]["containers"][0].pop("image")
            (heads if group == "head" else groups).append((group, stripped))
    assert all(head == heads[0] for head in heads)
    by_name: dict[str, Resource] = {}
    for group, template in groups:
        assert by_name.setdefault(group, template) == template
    assert set(by_name) == {"cpu", "gpu"}


def test_the_overlay_sets_names_images_and_addresses(definitions: Definitions) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl to render the overlay with")
    rendered = subprocess.run(
        [kubectl, "kustomize", str(cluster_files.OVERLAY)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    resources = list(yaml.safe_load_all(rendered))
    assert len(resources) == len(RESOURCES) + 1  # the ConfigMap
    (config,) = (item for item in resources if item["kind"] == "ConfigMap")
    assert {"DATASET_URI", "RUN_URI"} <= set(config["data"])
    for resource in resources:
        assert resource["metadata"]["namespace"] == "fast-rcnn"
        assert resource["metadata"]["name"].endswith("-voc")
        assert resource["metadata"]["labels"]["app.kubernetes.io/component"]
        if resource["kind"] in definitions:
            definitions[resource["kind"]].validate(resource)
        if resource["kind"] in ("Job", "RayJob", "RayCluster"):
            for _, template in _iterate_templates(resource):
                (container,) = template["spec"]["containers"]
                assert container["image"].startswith("registry.example.org/fast-rcnn-pipeline:")
                assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
