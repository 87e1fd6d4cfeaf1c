"""Each job on an unusable object store: one line that names the URI, within seconds."""

from __future__ import annotations

import time

import pytest

from tests.jobs.broken_inputs import DETECT, FOLDER, PROPOSE, RECALL, SCORE, VOC
from tests.jobs.command import read_error_output, run_job
from tests.swift import find_free_port, forget_clients

FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "bucket": ({}, "s3://no-such-bucket/"),
    "keys": ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, "access denied"),
    "credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "Unable to locate credentials",
    ),
    "endpoint": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"},
        "Could not connect to the endpoint URL",
    ),
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("command", "fault"),
    [
        *((command, "bucket") for command in (PROPOSE, DETECT, SCORE, RECALL, VOC, FOLDER)),
        *((command, "keys") for command in (PROPOSE, DETECT, SCORE, RECALL, VOC, FOLDER)),
        *((command, "credentials") for command in (DETECT, FOLDER)),
        *((command, "endpoint") for command in (DETECT, FOLDER)),
    ],
)
def test_an_unusable_store_is_one_line(
    command: str,
    fault: str,
    s3_folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables, message = FAULTS[fault]
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(port=find_free_port()))
    forget_clients()
    folder = "s3://no-such-bucket/folder" if fault == "bucket" else s3_folder
    capsys.readouterr()
    start = time.monotonic()
    assert run_job(*command.format(w=folder).split()) == 2
    assert time.monotonic() - start < 30
    error = read_error_output(capsys)
    assert error.startswith(f"error: {folder}/")
    assert error.count("\n") == 1
    assert message in error
    assert "hunter2" not in error
