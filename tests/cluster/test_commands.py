"""Commands in cluster/ parse by the options of the jobs and of Ray; scripts are linted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from ray._private.label_utils import validate_label_selector

from jobs import entry
from tests.cluster import cluster_files
from tests.cluster.demo.walkthrough import BUCKET, list_commands
from tests.cluster.ray_options import parse_ray
from tests.cluster.submission import list_submit_words
from tests.jobs.command import get_options_and_main

PYTHON_COMMANDS = cluster_files.find_commands("python")
RAY_COMMANDS = cluster_files.find_commands("ray")


def _get_job(words: list[str]) -> tuple[str, list[str]] | None:
    """The job that `python ...` runs and its arguments, or None for other code."""
    if words[:1] == ["-m"] and words[1].startswith("jobs."):
        return words[1].removeprefix("jobs."), words[2:]
    match = re.fullmatch(r"jobs/(\w+)\.py", words[0])
    return (match[1], words[1:]) if match else None


JOB_COMMANDS = [
    (place, *job) for place, words in PYTHON_COMMANDS if (job := _get_job(words)) is not None
]
SUBMITTED = [
    (place, *job)
    for place, words in RAY_COMMANDS
    if "--" in words and (job := _get_job(words[words.index("--") + 2 :])) is not None
]


def test_the_commands_are_found() -> None:
    jobs = {job for _, job, _ in JOB_COMMANDS}
    assert {"prepare", "propose", "train", "detect", "analyze"} <= jobs
    places = {place.partition(":")[0].partition(",")[0] for place, _, _ in JOB_COMMANDS + SUBMITTED}
    assert {"propose.yaml", "train.yaml", "detect.yaml", "analyze.yaml", "prepare.yaml"} <= places
    assert {"README.md", "skypilot.yaml"} <= places
    assert {words[0] for _, words in RAY_COMMANDS} >= {
        "start",
        "job",
        "up",
        "down",
        "get-auth-token",
    }
    assert SUBMITTED


@pytest.mark.parametrize(
    ("place", "job", "arguments"),
    [*JOB_COMMANDS, *SUBMITTED],
    ids=[f"{place}: {job}" for place, job, _ in [*JOB_COMMANDS, *SUBMITTED]],
)
def test_a_job_takes_these_options(place: str, job: str, arguments: list[str]) -> None:
    options, _ = get_options_and_main(job, tuple(arguments))
    entry.parse(options, arguments)


def test_a_misspelled_option_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    _, job, arguments = next(command for command in JOB_COMMANDS if command[1] == "detect")
    wrong = [word.replace("--checkpoint", "--chekpoint") for word in arguments]
    with pytest.raises(SystemExit):
        entry.parse(get_options_and_main(job, tuple(wrong))[0], wrong)
    assert "--chekpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words"), RAY_COMMANDS, ids=[f"{p}: ray {' '.join(w[:2])}" for p, w in RAY_COMMANDS]
)
def test_ray_takes_these_options(place: str, words: list[str]) -> None:
    options = parse_ray(words)
    if words[:2] != ["job", "submit"]:
        return
    assert isinstance(json.loads(options["runtime_env_json"] or "{}"), dict)
    amounts = json.loads(options["entrypoint_resources"] or "{}")
    assert all(amount > 0 for amount in amounts.values())
    selector = json.loads(options["entrypoint_label_selector"] or "{}")
    assert validate_label_selector(selector) is None
    assert options["entrypoint"], "without a command after --, nothing runs"


def test_a_command_shows_how_to_place_the_driver() -> None:
    shown = {word for _, words in RAY_COMMANDS for word in words if words[:2] == ["job", "submit"]}
    assert {"--entrypoint-label-selector", "--entrypoint-resources"} <= shown


def test_a_misspelled_option_of_ray_is_noticed() -> None:
    with pytest.raises(click.NoSuchOption, match="--dashbord-host"):
        parse_ray(["start", "--head", "--dashbord-host=0.0.0.0"])
    with pytest.raises(click.NoSuchOption, match="--entrypoint-resourcs"):
        parse_ray(["job", "submit", "--entrypoint-resourcs={}", "--", "true"])
    with pytest.raises(click.UsageError, match="no command summit"):
        parse_ray(["job", "summit"])


def test_the_readme_shows_the_commands_of_the_demo() -> None:
    """Those of the section Submit, in the demo's order, with another bucket."""
    readme = (cluster_files.CLUSTER / "README.md").read_text()
    (section,) = re.findall(r"^## Submit\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    shown = [words for block in blocks for words in cluster_files.split_commands(block)]
    demo = [
        [word.replace(f"s3://{BUCKET}/", "s3://bucket/") for word in list_submit_words(*words)]
        for words in list_commands()
    ]
    expected = [["ray", "job", *words] for words in demo]
    assert [words for words in shown if words in expected] == expected


@pytest.mark.parametrize(
    "path", sorted(cluster_files.CLUSTER.glob("*.sh")), ids=lambda path: path.name
)
def test_a_script_is_clean_and_asks_for_a_token(path: Path, tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    linted = subprocess.run([shellcheck, path], check=False, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    ended = subprocess.run(
        ["bash", path, "10.0.0.1:6379"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no token: set RAY_AUTH_TOKEN")
    assert ended.stderr.count("\n") == 1


def test_the_shell_parts_of_the_skypilot_file_are_clean(tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    task = cluster_files.read_yaml(cluster_files.CLUSTER / "skypilot.yaml")
    for part in ("setup", "run"):
        script = tmp_path / f"{part}.sh"
        script.write_text("#!/usr/bin/env bash\n" + task[part])
        # SC1090: a file that only exists on the machine.
        command = [shellcheck, "--exclude=SC1090", script]
        linted = subprocess.run(command, check=False, capture_output=True, text=True)
        assert linted.returncode == 0, linted.stdout


def test_the_readme_describes_every_file() -> None:
    readme = (cluster_files.CLUSTER / "README.md").read_text()
    files = [path for path in cluster_files.CLUSTER.rglob("*") if path.is_file()]
    names = {str(path.relative_to(cluster_files.CLUSTER)) for path in files} - {"README.md"}
    missing = [name for name in sorted(names) if name not in readme]
    assert not missing
