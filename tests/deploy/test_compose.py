"""docker-compose.yml against the compose specification's schema, and against what this project promises of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy import shm
from server.embedded import ServerOptions
from tests.deploy.dockerfile import parse
from tests.deploy.tools import validator

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVING = ("cpu", "gpu")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def amount(text: str) -> int:
    """'2gb' -> bytes; of '${NAME:-2gb}' the default."""
    text = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", text)
    match = re.fullmatch(r"(\d+)([kmg])b?", text)
    assert match, text
    return int(match[1]) * _UNITS[match[2]]


def test_it_is_a_compose_file() -> None:
    schema = json.loads(validator("check_jsonschema/builtin_schemas/vendor/compose-spec.json").read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(COMPOSE))
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


def test_the_schema_finds_a_misspelt_key() -> None:
    schema = json.loads(validator("check_jsonschema/builtin_schemas/vendor/compose-spec.json").read_text())
    wrong = {"services": {"cpu": {**SERVICES["cpu"], "read_olny": True}}}
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(wrong))


def test_the_profiles_are_there() -> None:
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {
        *("cpu", "gpu", "proxy", "monitoring", "perf")
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_closed_as_far_as_it_goes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    limits = service["deploy"]["resources"]["limits"]
    assert amount(limits["memory"]) > 0
    assert limits["pids"] > 0


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_a_user_that_is_not_root(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        user = parse(ROOT / service["build"]["dockerfile"])[-1].last("USER").text
    elif name == "perf":
        pytest.skip("NVIDIA's SDK image; it listens to nobody and ends after the measurement")
    else:
        user = service["user"]
    assert int(user.split(":")[0]) > 0


@pytest.mark.parametrize("name", SERVING)
def test_health_is_a_real_inference(name: str) -> None:
    service = SERVICES[name]
    image = parse(ROOT / service["build"]["dockerfile"])[-1].last("HEALTHCHECK").text
    assert service["healthcheck"]["test"][1:] == json.loads(image.removeprefix("CMD "))


@pytest.mark.parametrize(("name", "flavour"), [("cpu", None), ("gpu", "tensorrt")])
def test_shared_memory_is_what_the_formula_says(name: str, flavour: str | None) -> None:
    service = SERVICES[name]
    needed = sum(shm.needs(flavour=flavour).values())
    assert needed <= amount(service["shm_size"]) < 2 * needed
    assert needed < sum(shm.needs(flavour=flavour, fusion=True).values()) <= amount("4gb"), "as the comment says"
    assert service["ipc"] == "private"
    # Shared memory counts as memory of the container.
    assert amount(service["deploy"]["resources"]["limits"]["memory"]) > amount(service["shm_size"]) + 2 * (1 << 30)


def test_the_formula_counts_what_the_configurations_say() -> None:
    # preprocess: a file of 32 MiB and whether it stays whole, a picture, the canvas, six numbers and four; eight at
    # once, one of them for a large texture; twice.
    row = (32 << 20) + 1 + 2048 * 2048 * 3 + 3 * 512 * 512 + 6 * 4 + 4 * 4
    large = row + (4096 * 3072 - 2048 * 2048) * 3
    assert shm.needs()["preprocess"] == (7 * row + large) * 2
    assert "fusion" not in shm.needs()
    # pair: two files of 32 MiB, in and out, and what lies between the two rows and the source's, one and a half times.
    assert shm.needs(fusion=True)["pair"] > 2 * 4 * (32 << 20)
    assert "regressor" not in shm.needs(flavour="tensorrt")


@pytest.mark.parametrize("name", SERVING)
def test_the_container_outlives_tritons_exit_timeout(name: str) -> None:
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    steps = parse(ROOT / "deploy/docker/cpu.Dockerfile")[-1].last("ENV").text
    timeout = int(re.search(r"FACE3D_EXIT_TIMEOUT=(\d+)", steps)[1]) if name == "cpu" else 30  # type: ignore[index]
    # `EmbeddedServer.stop` gives the processes ten seconds more.
    assert grace > timeout + 10 > ServerOptions().exit_timeout


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only_unless_somebody_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert name == "proxy" or port.startswith(("127.0.0.1:", "${FACE3D_BIND:-127.0.0.1}:")), port


def test_secrets_are_files_that_git_never_sees() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/deploy/secrets/" in ignored
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("deploy/secrets/")
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(password|admin_key|token)\s*[:=]\s*[\"']?[a-z0-9]{8,}", text)


@pytest.mark.parametrize("name", ["plans", "gpu", "supervisor"])
def test_the_gpu_services_share_one_image_of_one_tag(name: str) -> None:
    serving = dict(
        line.split("=") for line in (ROOT / "deploy/serving.env").read_text().splitlines() if line[:1].isalpha()
    )
    arguments = SERVICES[name]["build"]["args"]
    for key in ("TRITON_TAG", "TENSORRT_VERSION"):
        assert arguments[key] == f"${{{key}:-{serving[key]}}}"


def test_the_gpu_server_waits_for_its_plans() -> None:
    assert SERVICES["gpu"]["depends_on"]["plans"]["condition"] == "service_completed_successfully"
    assert SERVICES["plans"]["restart"] == "no"
    assert SERVICES["gpu"]["volumes"] == ["plans:/plans:ro"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_from_here_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./") and source != "./out/perf":
            assert (ROOT / source).exists(), source
        elif not source.startswith("./"):
            assert source in COMPOSE["volumes"]


def test_what_prometheus_reads_are_services_of_this_file() -> None:
    config = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for names in (entry["names"] for entry in job["dns_sd_configs"]):
            assert set(names) <= set(SERVICES)
