"""Input and output on separate stores, and a search for the keys in everything that was written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import shards, storage
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.engine.drawn_images import draw_images, write_random_checkpoint
from tests.jobs.test_s3 import upload

ROOT = Path(__file__).parents[2]
IMAGES = 6


@pytest.fixture
def session_folder() -> Iterator[Path]:
    """A folder for Ray's logs; its path is short, because Ray's sockets are there too."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _options(store: dict[str, str], **change: str) -> dict[str, dict[str, Any]]:
    """Options of the store under two addresses: one bucket to read from, one to write to."""
    keys = {"key": store["AWS_ACCESS_KEY_ID"], "secret": store["AWS_SECRET_ACCESS_KEY"]} | change
    port = store["AWS_ENDPOINT_URL"].rpartition(":")[2]
    return {
        "s3://tests-bucket": keys | {"endpoint_url": f"http://127.0.0.1:{port}"},
        "s3://other-bucket": keys | {"endpoint_url": f"http://localhost:{port}"},
    }


def _detect(
    folder: str, options: dict[str, Any], tmp_path: Path, session: Path
) -> subprocess.CompletedProcess[str]:
    """Run the job without store variables in its environment; its Ray logs into `session`."""
    options_file = tmp_path / "options.json"
    options_file.write_text(json.dumps(options))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {"RAY_TMPDIR": str(session), "AWS_EC2_METADATA_DISABLED": "true"}
    name = folder.rpartition("/")[2]
    command = [
        sys.executable,
        str(ROOT / "jobs" / "detect.py"),
        "--manifest",
        f"{folder}/m.parquet",
    ]
    command += ["--checkpoint", f"{folder}/checkpoint", "--output", f"s3://other-bucket/{name}"]
    command += ["--storage-options", str(options_file), "--strategy", "single", "--actors", "1"]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_each_store_gets_its_options_and_no_key_is_written(
    s3_folder: str, swift_store: dict[str, str], tmp_path: Path, session_folder: Path
) -> None:
    fsspec.filesystem("s3").makedirs("other-bucket", exist_ok=True)
    paths = draw_images(tmp_path / "images", IMAGES)
    paths[2].write_bytes(b"")
    upload(tmp_path / "images", f"{s3_folder}/images")
    upload(Path(write_random_checkpoint(tmp_path)), f"{s3_folder}/checkpoint")
    rows = [ManifestRow(p.stem, f"{s3_folder}/images/{p.name}", None, None, None) for p in paths]
    rows.append(ManifestRow("gone", f"{s3_folder}/images/gone.png", None, None, None))
    write_manifest(f"{s3_folder}/m.parquet", rows, None)

    options = _options(swift_store)
    process = _detect(s3_folder, options, tmp_path, session_folder)
    assert process.returncode == 1, process.stderr  # more images failed than allowed
    assert f"2 of {len(rows)} images failed" in process.stderr
    output = f"s3://other-bucket/{s3_folder.rpartition('/')[2]}"
    output_rows = [
        row for table in shards.open_parts(output).read_tables() for row in table.to_pylist()
    ]
    failed = {r["image_id"]: r["error_type"] for r in output_rows if r["status"] == "failed"}
    assert failed == {"002": "UnreadableImage", "gone": "MissingObject"}

    names = [f"logs/{name}" for name in storage.list_names(f"{output}/logs")]
    assert [name.partition("-")[0] for name in names] == ["logs/driver", "logs/progress"]
    written = [storage.read(f"{output}/{name}") for name in (*storage.list_names(output), *names)]
    logs = [p.read_bytes() for p in session_folder.rglob("*") if p.is_file()]
    assert written
    assert logs
    printed = [process.stdout.encode(), process.stderr.encode(), str(output_rows).encode()]
    secret = swift_store["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [text for text in [*written, *logs, *printed] if secret in text]


def test_a_wrong_key_is_rejected_and_not_shown(
    s3_folder: str, swift_store: dict[str, str], tmp_path: Path, session_folder: Path
) -> None:
    options = _options(swift_store, key="no-such-user", secret="hunter2-hunter2")
    process = _detect(s3_folder, options, tmp_path, session_folder)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"error: {s3_folder}/m.parquet cannot be looked up: access denied")
    assert "hunter2" not in line
    assert "no-such-user" not in line
