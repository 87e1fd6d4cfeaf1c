"""No job writes over what it reads, whatever the two are called and with --overwrite too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import broken_inputs
from tests.jobs.command import read_error_output, run_job

pytestmark = pytest.mark.usefixtures("no_ray")

TRAIN = "train --manifest {w}/m.parquet --proposals {w}/proposals --recipe tiny --overwrite"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    broken_inputs.write_world(root)
    (root / "link").symlink_to(root)
    (root / "parts").mkdir()
    (root / "parts" / "a.parquet").write_bytes((root / "m.parquet").read_bytes())
    return root


def _read_files(root: Path) -> dict[str, bytes]:
    """The files below a folder, links not followed."""
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (
            "propose --manifest {w}/parts --output {w}/parts/../parts --overwrite",
            "manifest",
        ),
        (
            "detect --manifest {w}/m.parquet --checkpoint {w}/checkpoint --output {w}/link/checkpoint",
            "checkpoint",
        ),
        (
            "detect --manifest {w}/m.parquet --checkpoint {w}/checkpoint --proposals {w}/proposals"
            " --output {w}/link/proposals/ --overwrite",
            "proposals",
        ),
        (
            "compress --checkpoint {w}/checkpoint --output {w}/checkpoint/../checkpoint --overwrite",
            "checkpoint",
        ),
        (
            "compress --checkpoint {w}/checkpoint --manifest {w}/m.parquet --proposals {w}/proposals"
            " --output {w}/link/proposals --overwrite",
            "proposals",
        ),
        (f"{TRAIN} --output {{w}}/link/proposals", "proposals"),
        (
            f"{TRAIN} --weights {{w}}/checkpoint/model.safetensors --output {{w}}/checkpoint",
            "weights",
        ),
        (
            f"{TRAIN} --validation.manifest {{w}}/m.parquet"
            " --validation.proposals {w}/fewer --output {w}/fewer",
            "validation.proposals",
        ),
        (
            "exchange export --proposals {w}/proposals.pkl --output {w}/link/proposals.pkl",
            "proposals",
        ),
        (
            "analyze detections --detections {w}/detections --manifest {w}/m.parquet"
            " --slices {w}/slices.parquet --output {w}/link",
            "slices",
        ),
        (
            "analyze compare --detections {w}/comparison/a {w}/detections --manifest {w}/m.parquet"
            " --output {w}/link",
            "detections",
        ),
        (
            "export --detections {w}/detections --manifest {w}/m.parquet --format coco"
            " --output {w}/link/detections --overwrite",
            "detections",
        ),
        (
            "prepare coco --annotations {w}/m.parquet --images {w} --output {w}/link/m.parquet",
            "anno",
        ),
    ],
)
def test_an_output_that_is_an_input_is_rejected_and_the_input_stays(
    command: str, option: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _read_files(world)
    assert run_job(*command.format(w=world).split()) == 2
    error = read_error_output(capsys)
    assert f"the --{option}" in error
    assert error.count("\n") == 1
    assert _read_files(world) == before


def test_an_import_into_its_manifest_is_rejected(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--source", f"{world}/x.pkl", "--manifest", f"{world}/parts", "--output", "parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        assert run_job("exchange", "import", *arguments, "--overwrite") == 2
    assert "is the --manifest" in read_error_output(capsys)
    assert [path.name for path in (world / "parts").iterdir()] == ["a.parquet"]


def test_a_score_does_not_replace_its_manifest_but_may_be_beside_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "metrics.json"
    manifest.write_bytes((world / "m.parquet").read_bytes())
    arguments = ("analyze", "detections", "--detections", f"{world}/detections", "--manifest")
    assert run_job(*arguments, str(manifest), "--output", str(tmp_path)) == 2
    assert "would overwrite the --manifest" in read_error_output(capsys)
    assert manifest.read_bytes() == (world / "m.parquet").read_bytes()
    moved = manifest.rename(tmp_path / "m.parquet")
    assert run_job(*arguments, str(moved), "--output", str(tmp_path)) == 0
    assert manifest.is_file()


def test_a_manifest_does_not_replace_a_file_that_is_none(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "notes.parquet"
    target.write_text("mine")
    command = ("prepare", "folder", "--images", f"{world}/images", "--output", str(target))
    assert run_job(*command) == 2
    assert "exists and is not Parquet" in read_error_output(capsys)
    assert target.read_text() == "mine"
    target.unlink()
    assert [run_job(*command) for _ in range(2)] == [0, 0]
