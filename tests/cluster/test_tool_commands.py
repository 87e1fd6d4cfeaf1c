"""Commands of kubectl, docker, pip, sky and aws in cluster/: the files, names and pins in them exist."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pip._internal.commands import create_command
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

from tests.cluster import cluster_files
from tests.cluster.cluster_files import BASE, CLUSTER, OVERLAY, ROOT
from tests.cluster.dockerfile import read_stages

README = (CLUSTER / "README.md").read_text()
RESOURCES = cluster_files.read_resources()
STAGES = read_stages((CLUSTER / "Dockerfile").read_text())


def _normalise(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


PINS = {_normalise(name): version for name, version in cluster_files.read_pinned_versions().items()}
TEXTS = {
    str(path.relative_to(CLUSTER)): path.read_text()
    for path in CLUSTER.rglob("*")
    if path.is_file() and path.suffix != ".json"
}
PINNED = [
    (place, _normalise(name), version)
    for place, text in TEXTS.items()
    for name, version in re.findall(r"([A-Za-z][\w.-]*)==(\d[\w.]*)", text)
]


def test_versions_are_those_of_constraints() -> None:
    assert PINNED
    assert [pin for pin in PINNED if PINS[pin[1]] != pin[2]] == []
    builds = re.findall(r"(\d+\.\d+\.\d+)\+cpu", TEXTS["Dockerfile"])
    assert builds == [PINS["torch"]]


def _list_pip_commands() -> list[tuple[str, list[str]]]:
    commands = cluster_files.find_commands("pip")
    for stage in STAGES.values():
        for script in stage.list_arguments("RUN"):
            for words in cluster_files.split_commands(script):
                if words[:2] == ["pip", "install"]:
                    commands.append((f"Dockerfile, {stage.name}", words[1:]))
    return commands


PIP_COMMANDS = _list_pip_commands()


@pytest.mark.parametrize(("place", "words"), PIP_COMMANDS, ids=[p for p, _ in PIP_COMMANDS])
def test_pip_takes_these_options_and_extras(place: str, words: list[str]) -> None:
    assert words[0] == "install"
    options, requirements = create_command("install").parse_args(words[1:])
    (constraints,) = options.constraints
    in_image = "Dockerfile" in place or place.startswith(("aws.yaml", "gcp.yaml"))
    if constraints != "constraints.txt":
        assert in_image
        folder, _, name = constraints.rpartition("/")
        assert folder in STAGES["proposals"].list_arguments("WORKDIR")
        assert any(name in copied for copied in STAGES["proposals"].list_arguments("COPY"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in requirements:
        extras = re.search(r"\[(.*)\]", requirement)
        if extras:
            assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()


def test_every_node_file_installs_by_the_pins() -> None:
    places = {place.partition(":")[0].partition(",")[0] for place, _ in PIP_COMMANDS}
    assert places >= {"README.md", "aws.yaml", "gcp.yaml", "Dockerfile"}


def test_docker_builds_the_targets_of_the_dockerfile() -> None:
    ((_, build),) = [
        item for item in cluster_files.find_commands("docker") if item[1][0] == "build"
    ]
    assert (ROOT / build[build.index("--file") + 1]).is_file()
    (targets,) = re.findall(r"for target in ([\w ]+); do", README)
    assert targets.split() == list(STAGES)


KUBECTL = [words for _, words in cluster_files.find_commands("kubectl")]
SELECTED = [words for words in KUBECTL if "-l" in words]


def test_kubectl_applies_and_deletes_what_kustomize_builds() -> None:
    components = {
        item["metadata"]["labels"]["app.kubernetes.io/component"] for item in RESOURCES.values()
    }
    assert {words[0] for words in SELECTED} == {"apply", "delete"}
    for words in SELECTED:
        label, _, component = words[words.index("-l") + 1].partition("=")
        assert label == "app.kubernetes.io/component"
        assert component in components
        assert ROOT / words[words.index("-k") + 1] == OVERLAY


def test_a_step_is_deleted_before_it_is_applied_again() -> None:
    """An ended RayJob or Job stays, and Kubernetes calls an equal `apply` unchanged."""
    actions = [(words[0], words[words.index("-l") + 1]) for words in SELECTED]
    deletion = next(index for index, action in enumerate(actions) if action[0] == "delete")
    assert actions[deletion + 1] == ("apply", actions[deletion][1])
    assert "--ignore-not-found" in SELECTED[deletion]


def test_kubectl_names_what_the_files_name() -> None:
    overlay = cluster_files.read_yaml(OVERLAY / "kustomization.yaml")
    suffix, namespace = overlay["nameSuffix"], overlay["namespace"]
    text = "\n".join(path.read_text() for path in BASE.glob("*.yaml"))
    for words in KUBECTL:
        if "--namespace" in words:
            assert words[words.index("--namespace") + 1] == namespace
        if "create" in words and "secret" in words:
            assert re.search(rf"\b{words[words.index('generic') + 1]}\b", text)
    names = {f"{item['metadata']['name']}{suffix}" for item in RESOURCES.values()}
    assert set(re.findall(r"^job=(\S+)", README, re.MULTILINE)) <= names
    services = re.findall(r"service/(\S+)-head-svc", README)
    assert services
    assert set(services) <= names
    assert set(re.findall(r"--container (\S+)", README)) == {"ray-head"}


def test_sky_gets_each_secret() -> None:
    task = cluster_files.read_yaml(CLUSTER / "skypilot.yaml")
    comments = re.sub(r"(?m)^# ?", "", TEXTS["skypilot.yaml"])
    joined = re.sub(r"\\\n\s*", " ", README + comments)
    launches = [
        shlex.split(line)
        for line in joined.splitlines()
        if re.match(r" *sky (jobs )?launch ", line)
    ]
    assert len(launches) == 2
    for words in launches:
        assert (ROOT / next(word for word in words if word.endswith(".yaml"))).is_file()
        secrets = {words[index + 1] for index, word in enumerate(words) if word == "--secret"}
        assert secrets == task["secrets"].keys()


def test_aws_workers_have_a_role_that_the_head_may_pass_on() -> None:
    types = cluster_files.read_yaml(CLUSTER / "aws.yaml")["available_node_types"]
    profiles = {types[kind]["node_config"]["IamInstanceProfile"]["Name"] for kind in ("cpu", "gpu")}
    (profile,) = profiles
    policies: list[Any] = []
    for _, words in cluster_files.find_commands("aws"):
        options = dict(zip(words[2::2], words[3::2], strict=True))
        assert options.get("--instance-profile-name", profile) == profile
        policies += [json.loads(text) for key, text in options.items() if key.endswith("-document")]
    actions = {
        (statement["Action"], str(statement.get("Resource")).rpartition("/")[2])
        for policy in policies
        for statement in policy["Statement"]
    }
    assert actions == {("sts:AssumeRole", "None"), ("iam:PassRole", profile)}


def test_what_the_documented_commands_write_does_not_travel() -> None:
    """`--working-dir .` uploads the clone: outputs would exceed Ray's limit, secrets must stay."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = [page.read_text() for page in pages]
    names = {"stores.json", "VOCdevkit"}
    for text in texts:
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            names |= set(re.findall(r"--output ([a-z][\w.-]*)(?=[/\s])", block))
    names.remove("pipeline")  # the packaged ranking, trained again, belongs to the code
    (is_excluded,) = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    kept = [name for name in names if not is_excluded(Path(ROOT, name, "part.parquet"))]
    assert "out" in names
    assert not kept
    assert not is_excluded(ROOT / "jobs" / "propose.py")
    assert not is_excluded(ROOT / "pipeline" / "proposals" / "ranking_model.json")
