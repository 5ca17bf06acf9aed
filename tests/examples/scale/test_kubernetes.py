"""The Kubernetes job: what has to agree in it agrees, and its command is one that the project has."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml

from mm_cpgd.config.loading import load_config
from tests.paths import ROOT


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    text = (ROOT / "examples" / "scale" / "kubernetes.yaml").read_text()
    return {part["kind"]: part for part in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def container(parts: dict[str, Any]) -> dict[str, Any]:
    (found,) = parts["Job"]["spec"]["template"]["spec"]["containers"]
    return found


def test_the_number_of_machines_is_the_same_in_all_places(
    parts: dict[str, Any], container: dict[str, Any]
) -> None:
    job = parts["Job"]["spec"]
    (nodes,) = [entry["value"] for entry in container["env"] if entry["name"] == "NODES"]
    assert job["completions"] == job["parallelism"] == int(nodes)
    assert job["completionMode"] == "Indexed"


def test_the_first_pod_has_the_name_that_the_others_look_for(
    parts: dict[str, Any], container: dict[str, Any]
) -> None:
    service, job = parts["Service"], parts["Job"]
    subdomain = job["spec"]["template"]["spec"]["subdomain"]
    # The name of an indexed job's pod is that of the job and its number; its domain, that of the service.
    assert f"--master_addr {job['metadata']['name']}-0.{subdomain} " in container["args"][0]
    assert service["metadata"]["name"] == subdomain
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}


def test_the_command_is_a_run_of_this_project(container: dict[str, Any]) -> None:
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    text = container["args"][0]
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    words = shlex.split(text)
    start = words.index("mm_cpgd")
    assert words[start - 1 : start + 2] == ["-m", "mm_cpgd", "train"]
    assert words[-1] == "--resume"
    config = load_config(ROOT / words[start + 2], words[start + 3 : -1])
    assert config.distributed.strategy == "fsdp2"
    assert words[words.index("--nproc_per_node") + 1] == str(
        container["resources"]["limits"]["nvidia.com/gpu"]
    )


def test_every_mounted_volume_is_defined(parts: dict[str, Any], container: dict[str, Any]) -> None:
    defined = {volume["name"] for volume in parts["Job"]["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == defined
