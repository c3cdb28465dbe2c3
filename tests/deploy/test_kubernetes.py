"""The manifests, rendered by kustomize and held against schemas; no cluster is needed, and none has run them.

Kubernetes' own kinds: the schemas of kubernetes-validate. KEDA and the Prometheus operator: models made from their
CRDs. KServe: the table at the end of this file. An apiVersion that none of these knows fails.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy import operator_rules, shm
from server.__main__ import parse_options
from server.embedded import ServerOptions
from tests.deploy.promql import Database
from tests.deploy.test_compose import amount
from tests.deploy.tools import program, validator

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir() if path.is_dir())
VERSION = "1.37"
Resource = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Resource, ...]:
    """What `kubectl apply -k` would send."""
    command = [program("kubectl"), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def one(overlay: str, kind: str, name: str | None = None) -> Resource:
    (found,) = (r for r in rendered(overlay) if r["kind"] == kind and name in (None, r["metadata"]["name"]))
    return found


def check(resource: Resource) -> None:
    """Raise when a resource does not fit the schema of its kind, or when nobody knows its kind."""
    group = resource["apiVersion"].split("/")[0]
    if group in _OPERATORS:
        _check_against_models(resource, _OPERATORS[group])
    elif (resource["apiVersion"], resource["kind"]) in _TABLE:
        jsonschema.validate(resource, _TABLE[resource["apiVersion"], resource["kind"]])
    else:
        kubernetes_validate.validate(resource, VERSION, strict=True)


_OPERATORS = {
    "keda.sh": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com": "cloudcoil.models.prometheus_operator.v1",
}


def _check_against_models(resource: Resource, module: str) -> None:
    validator("cloudcoil/pydantic.py")
    sys.path.insert(0, str(validator("bin").parent))
    try:
        models = importlib.import_module(module)
    finally:
        sys.path.pop(0)
    parsed = getattr(models, resource["kind"]).model_validate(resource)
    unknown = _missing(resource, parsed.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert not unknown, f"{resource['kind']} has no {', '.join(unknown)}"


def _missing(given: Any, known: Any, path: str = "") -> list[str]:
    """Paths of what a model let fall: it takes unknown fields in silence."""
    if isinstance(given, dict) and isinstance(known, dict):
        lost = [f"{path}.{key}" for key in given if key not in known]
        return lost + [x for key in given if key in known for x in _missing(given[key], known[key], f"{path}.{key}")]
    if isinstance(given, list) and isinstance(known, list):
        return [x for a, b in zip(given, known, strict=True) for x in _missing(a, b, f"{path}[]")]
    return []


# --- schemas --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_fits_its_schema(overlay: str) -> None:
    resources = rendered(overlay)
    assert len(resources) > 1
    for resource in resources:
        check(resource)


@pytest.mark.parametrize(
    "resource",
    [
        {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}},
        {"apiVersion": "keda.sh/v2", "kind": "Nothing", "metadata": {"name": "x"}},
        {"apiVersion": "serving.kserve.io/v1", "kind": "InferenceService", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}},
    ],
    ids=lambda resource: resource["apiVersion"],
)
def test_an_unknown_version_or_field_fails(resource: Resource) -> None:
    with pytest.raises(
        (
            AttributeError,  # no such kind in the module
            kubernetes_validate.SchemaNotFoundError,
            kubernetes_validate.ValidationError,
        )
    ):
        check(resource)


@pytest.mark.parametrize(("overlay", "kind"), [("keda", "ScaledObject"), ("monitoring", "PodMonitor")])
def test_a_misspelt_field_of_a_custom_resource_fails(overlay: str, kind: str) -> None:
    resource = one(overlay, kind)
    with pytest.raises(AssertionError, match="misspelt"):
        check({**resource, "spec": {**resource["spec"], "misspelt": 1}})


def test_a_misspelt_field_of_kserve_fails() -> None:
    service = one("kserve", "InferenceService")
    service = {**service, "spec": {"predictor": {**service["spec"]["predictor"], "minReplica": 1}}}
    with pytest.raises(jsonschema.ValidationError):
        check(service)


# --- promises -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_a_rolling_update_never_takes_capacity_away(overlay: str) -> None:
    strategy = one(overlay, "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_the_selectors_find_the_pods(overlay: str) -> None:
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [one(overlay, "Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [r["spec"]["selector"] for r in rendered(overlay) if r["kind"] == "Service"]
    selectors += [one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def triton(overlay: str) -> Resource:
    (container,) = one(overlay, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_probes_ask_the_ensemble_and_liveness_infers(overlay: str) -> None:
    container = triton(overlay)
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/v2/models/face3d/ready"
    assert container["livenessProbe"]["exec"]["command"][:2] == ["python3", "-m"]


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_models_do_not_change_inside_a_running_pod(overlay: str) -> None:
    container = triton(overlay)
    (models,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
    assert models["readOnly"]


@pytest.mark.parametrize("overlay", ["cpu", "keda"])
def test_what_dies_in_a_pod_is_started_again_in_it_before_kubelet_ends_the_container(overlay: str) -> None:
    container = triton(overlay)
    (supervise,) = (v["value"] for v in container["env"] if v["name"] == "FACE3D_SUPERVISE")
    settings = parse_options([*container.get("args", []), "--supervise", supervise])
    assert settings.supervision.period == 5
    assert settings.triton.model_control_mode == "explicit"
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 100
    monitored = {endpoint["port"] for endpoint in one("monitoring", "PodMonitor")["spec"]["podMetricsEndpoints"]}
    assert monitored == {"metrics", "supervisor"}
    assert monitored <= {port["name"] for port in container["ports"]}


def test_nobody_looks_for_a_supervisor_beside_a_gpu() -> None:
    assert {port["name"] for port in triton("gpu")["ports"]} == {"http", "grpc", "metrics"}
    (control,) = (v["value"] for v in triton("gpu")["env"] if v["name"] == "FACE3D_CONTROL")
    assert control == "none"


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "keda"])
def test_a_pod_gets_longer_to_end_than_triton_takes(overlay: str) -> None:
    pod = one(overlay, "Deployment")["spec"]["template"]["spec"]
    (sleep,) = (int(word) for word in triton(overlay)["lifecycle"]["preStop"]["exec"]["command"] if word.isdigit())
    assert pod["terminationGracePeriodSeconds"] > sleep + ServerOptions().exit_timeout + 10


@pytest.mark.parametrize(
    ("overlay", "kind"), [("cpu", "Deployment"), ("gpu", "Deployment"), ("gpu", "Job"), ("keda", "Deployment")]
)
def test_pods_meet_the_restricted_standard_and_have_limits(overlay: str, kind: str) -> None:
    pod = one(overlay, kind)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert not container["image"].endswith((":latest", ":replace-me"))


@pytest.mark.parametrize(("overlay", "flavour"), [("cpu", None), ("gpu", "tensorrt"), ("fusion", None)])
def test_shared_memory_is_what_the_formula_says(overlay: str, flavour: str | None) -> None:
    volumes = one(overlay, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (size,) = (v["emptyDir"]["sizeLimit"] for v in volumes if v["name"] == "shm")
    assert sum(shm.needs(flavour=flavour, fusion=overlay == "fusion").values()) <= amount(
        size.lower().removesuffix("i")
    )


def test_fusion_is_on_in_its_overlay_alone() -> None:
    on = {"name": "FACE3D_FUSION", "value": "1"}
    for overlay in ("cpu", "fusion"):
        pod = one(overlay, "Deployment")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert (on in container["env"]) == (overlay == "fusion")
        limit = amount(container["resources"]["limits"]["memory"].lower().removesuffix("i"))
        assert limit > amount("2g") + sum(shm.needs(fusion=overlay == "fusion").values())
    files = {entry["name"]: entry.get("value") for entry in container["env"]}
    (mount,) = (entry["mountPath"] for entry in container["volumeMounts"] if entry["name"] == "fusion")
    assert files["FACE3D_FUSION_CERTIFICATE"] == f"{mount}/certificate.pem"
    assert files["FACE3D_FUSION_KEY"] == f"{mount}/key.pem"


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_autoscaler_follows_the_recording_rule(overlay: str) -> None:
    scaler = one(overlay, "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    assert metric["external"]["metric"]["name"] == "face3d_queue_compute_worst"
    assert scaler["scaleTargetRef"]["name"] == one(overlay, "Deployment")["metadata"]["name"]
    assert scaler["minReplicas"] >= 2


def test_keda_scales_alone_and_by_a_query_that_can_be_answered() -> None:
    assert not [r for r in rendered("keda") if r["kind"] == "HorizontalPodAutoscaler"]
    spec = one("keda", "ScaledObject")["spec"]
    (trigger,) = spec["triggers"]
    database = Database()
    database.add({"__name__": "face3d:queue_compute:worst"}, 0, 0.7)
    assert list(database.query(trigger["metadata"]["query"], 0).values()) == [0.7]
    hpa = one("cpu", "HorizontalPodAutoscaler")["spec"]
    assert float(trigger["metadata"]["threshold"]) == 0.25
    assert hpa["metrics"][0]["external"]["target"]["value"] == "250m"
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]


def test_the_network_lets_in_clients_and_prometheus_and_nothing_out_but_spans_and_names() -> None:
    policy = one("cpu", "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {8000, 8001, 8002, 8003}
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {4318, 53}
    for rule in (*policy["ingress"], *policy["egress"]):
        assert rule.get("from") or rule.get("to"), "a rule for everybody"


def test_a_job_builds_plans_on_the_gpu_that_the_pods_want() -> None:
    job, pod = one("gpu", "Job")["spec"]["template"]["spec"], one("gpu", "Deployment")["spec"]["template"]["spec"]
    assert job["nodeSelector"] == pod["nodeSelector"]
    assert job["containers"][0]["image"] == triton("gpu")["image"]
    assert job["restartPolicy"] == "Never"


def test_the_init_container_refuses_a_release_that_was_changed(tmp_path: Path) -> None:
    (container,) = one("cpu", "Deployment")["spec"]["template"]["spec"]["initContainers"]
    release, models = tmp_path / "model_repository", tmp_path / "models"
    (release / "regressor" / "1").mkdir(parents=True)
    (release / "regressor" / "1" / "model.onnx").write_text("weights")
    models.mkdir()
    script = container["args"][0].replace("/release.sha256", str(tmp_path / "release.sha256"))
    script = script.replace("/models/", f"{models}/").replace("cd /model_repository", f"cd {release}")
    script = script.replace("cp -R /model_repository/.", f"cp -R {release}/.")
    made = re.search(r"find .*?release\.sha256", (ROOT / "deploy/docker/models.Dockerfile").read_text())
    assert made
    summing = made[0].replace("/release.sha256", str(tmp_path / "release.sha256"))
    subprocess.run(["sh", "-c", summing], cwd=release, check=True)

    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode == 0
    assert (models / "regressor" / "1" / "model.onnx").read_text() == "weights"
    (release / "regressor" / "1" / "model.onnx").write_text("other weights")
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode != 0


def test_the_operators_rules_are_the_rules() -> None:
    assert yaml.safe_load(operator_rules.TARGET.read_text()) == operator_rules.resource()


# --- KServe: the fields this project uses, after the CRDs of KServe 0.15 ---------------------------------------------
def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


_STRING, _ANY = {"type": "string"}, {"type": "object"}
_METADATA = _object("name", name=_STRING, namespace=_STRING, annotations=_ANY, labels=_ANY)
_MODEL = _object(
    "modelFormat",
    modelFormat=_object("name", name=_STRING, version=_STRING),
    runtime=_STRING,
    protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
    storageUri={"type": "string", "pattern": "^(oci|s3|gs|pvc|https)://"},
)
_PREDICTOR = _object("model", minReplicas={"type": "integer"}, maxReplicas={"type": "integer"}, model=_MODEL)
_FORMAT = _object("name", name=_STRING, version=_STRING, autoSelect={"type": "boolean"})
_RUNTIME = _object(
    "containers supportedModelFormats",
    supportedModelFormats={"type": "array", "items": _FORMAT},
    protocolVersions={"type": "array", "items": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}},
    multiModel={"type": "boolean"},
    containers={"type": "array", "items": _ANY},
    volumes={"type": "array", "items": _ANY},
)
_TABLE: dict[tuple[str, str], dict[str, Any]] = {
    (version, kind): _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )
    for version, kind, spec in (
        ("serving.kserve.io/v1beta1", "InferenceService", _object("predictor", predictor=_PREDICTOR)),
        ("serving.kserve.io/v1alpha1", "ServingRuntime", _RUNTIME),
    )
}


def test_the_containers_of_the_kserve_runtime_are_containers_of_kubernetes() -> None:
    spec = one("kserve", "ServingRuntime")["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, VERSION, strict=True
    )
    assert one("kserve", "InferenceService")["spec"]["predictor"]["model"]["runtime"] == "face3d"
