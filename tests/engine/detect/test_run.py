"""Detection over a manifest, with a small random network on small images."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import imaging, manifests, proposals, shards
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.pyramid import Pyramid
from pipeline.engine.detect.detection_inputs import check_classes
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import (
    InvalidCheckpoint,
    InvalidConfiguration,
    MismatchedOutput,
    MismatchedProposals,
)
from pipeline.manifest_writer import write_manifest
from pipeline.proposals import stored_proposals
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.shards import Shard
from tests.engine.drawn_images import draw_images, write_damaged_manifest, write_random_checkpoint
from tests.project_log import read_project_log

pytestmark = pytest.mark.usefixtures("ray_cluster")

BOXES = ProposalSettings(strategy="single", max_boxes=50, min_side=8)
SETTINGS = DetectionSettings(
    postprocessing=PostprocessingSettings(score_threshold=0.0, max_per_image=20), precision="fp32"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_random_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def manifest_uri(tmp_path: Path) -> str:
    return write_damaged_manifest(tmp_path)


def _detect(
    uri: str,
    checkpoint: str,
    output: Path,
    *,
    proposals: str | ProposalSettings = BOXES,
    settings: DetectionSettings = SETTINGS,
    **options: Any,
) -> list[dict[str, Any]]:
    run_detection(
        uri,
        checkpoint,
        str(output),
        proposals=proposals,
        settings=settings,
        options=RunOptions(**{"max_failed_fraction": 0.5} | options),
        actors=ActorOptions(1),
    )
    return [
        row for table in shards.open_parts(str(output)).read_tables() for row in table.to_pylist()
    ]


def test_rows_hold_what_the_predictor_returns(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    rows = _detect(manifest_uri, checkpoint, tmp_path / "detections", shard_size=4)
    assert [row["image_id"] for row in rows] == [f"{i:03d}" for i in range(10)]
    failed = {r["image_id"]: (r["stage"], r["error_type"]) for r in rows if r["status"] == "failed"}
    assert failed == {
        "003": ("decode", "UnreadableImage"),
        "004": ("decode", "UnreadableImage"),
        "005": ("read", "MissingObject"),
    }
    from pipeline.detector.predictor import Predictor

    predictor = Predictor(checkpoint, postprocessing=SETTINGS.postprocessing, precision="fp32")
    image = imaging.decode_image((tmp_path / "images" / "001.png").read_bytes())
    boxes = proposals.selective_search(
        image, "single", seed=proposals.derive_image_seed(0, "001"), max_boxes=50, min_side=8
    )
    (expected,) = predictor([image], [boxes])
    detections = rows[1]["detections"]
    assert rows[1]["num_proposals"] == len(boxes)
    assert len(detections) == len(expected.scores) > 0
    assert [d["label"] for d in detections] == [("cat", "dog")[i] for i in expected.labels]
    np.testing.assert_allclose([d["score"] for d in detections], expected.scores, atol=1e-3)
    corners = [[d[name] for name in ("x1", "y1", "x2", "y2")] for d in detections]
    np.testing.assert_allclose(corners, expected.boxes, atol=0.1)


def test_stored_proposals_give_the_same_rows_and_their_failures_stay(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    run_proposals(
        manifest_uri,
        str(tmp_path / "boxes"),
        BOXES,
        RunOptions(shard_size=4, max_failed_fraction=1),
    )
    stored = _detect(
        manifest_uri,
        checkpoint,
        tmp_path / "stored",
        proposals=str(tmp_path / "boxes"),
        shard_size=99,
    )
    computed = _detect(manifest_uri, checkpoint, tmp_path / "computed", shard_size=4)
    assert len(shards.open_parts(str(tmp_path / "stored")).shards) == 3  # as the proposals have
    for stored_row, computed_row in zip(stored, computed, strict=True):
        assert (stored_row["status"], stored_row["num_proposals"]) == (
            computed_row["status"],
            computed_row["num_proposals"],
        )
        if stored_row["status"] == "ok":
            scores = [[d["score"] for d in row["detections"]] for row in (stored_row, computed_row)]
            np.testing.assert_allclose(*scores, atol=1e-3)


def test_a_rerun_uses_proposals_that_were_computed_again_in_other_shards(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    """The output keeps its shards, and each takes its rows from several parts."""
    boxes, output = tmp_path / "boxes", tmp_path / "detections"

    def propose(shard_size: int) -> None:
        options = RunOptions(shard_size=shard_size, overwrite=True, max_failed_fraction=1)
        run_proposals(manifest_uri, str(boxes), BOXES, options)

    propose(4)
    before = _detect(manifest_uri, checkpoint, output, proposals=str(boxes))
    propose(3)
    for part in sorted(output.glob("part-*"))[1:]:
        part.unlink()
    after = _detect(manifest_uri, checkpoint, output, proposals=str(boxes))
    assert [row["num_proposals"] for row in after] == [row["num_proposals"] for row in before]
    assert [row["status"] for row in after] == [row["status"] for row in before]
    stored = stored_proposals.open_stored_proposals(
        str(boxes), manifests.open_manifest(manifest_uri), 9
    )
    rows = stored.locate(2, 7)
    assert [(shard.ordinal, first, count) for shard, first, count in rows.spans] == [
        (0, 2, 1),
        (1, 0, 3),
        (2, 0, 3),
    ]
    assert rows.read_table()["image_id"].to_pylist() == [f"{i:03d}" for i in range(2, 9)]


def test_a_task_gets_the_shards_of_its_own_proposals_only(tmp_path: Path) -> None:
    """With a table of 100,000 shards in its arguments, each task took a third of a second to start."""
    planned = tuple(Shard(i, f"{i:024x}", 10 * i, 10) for i in range(100_000))
    parts = shards.Parts(str(tmp_path), planned)
    stored = stored_proposals.StoredProposals(parts, (10,) * len(planned), "", {})
    assert len(pickle.dumps(stored.locate(500_000, 10))) < 1000
    assert stored.locate(999_990, 10).spans == ((planned[-1], 0, 10),)


def test_proposals_of_other_images_are_rejected_by_name(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    run_proposals(
        manifest_uri,
        str(tmp_path / "boxes"),
        BOXES,
        RunOptions(shard_size=4, max_failed_fraction=1),
    )
    rows = [
        manifests.ManifestRow(f"other-{path.stem}", str(path), None, None, None)
        for path in draw_images(tmp_path / "others", 10)
    ]
    other = str(tmp_path / "other.parquet")
    write_manifest(other, rows, None)
    with pytest.raises(MismatchedProposals, match="row 0 is '000' there and 'other-000' here"):
        _detect(other, checkpoint, tmp_path / "detections", proposals=str(tmp_path / "boxes"))
    run_proposals(
        manifest_uri,
        str(tmp_path / "few"),
        BOXES,
        RunOptions(limit=6, shard_size=4, max_failed_fraction=1),
    )
    with pytest.raises(MismatchedProposals, match=r"for 6 images, but 10 .* --limit 6"):
        _detect(manifest_uri, checkpoint, tmp_path / "detections", proposals=str(tmp_path / "few"))
    limited = _detect(
        manifest_uri, checkpoint, tmp_path / "detections", proposals=str(tmp_path / "few"), limit=5
    )
    assert [row["image_id"] for row in limited] == [f"{i:03d}" for i in range(5)]


def test_proposals_of_the_same_images_elsewhere_are_used(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    run_proposals(
        manifest_uri,
        str(tmp_path / "boxes"),
        BOXES,
        RunOptions(shard_size=4, max_failed_fraction=1),
    )
    moved = [
        manifests.ManifestRow(path.stem, str(path), None, None, None)
        for path in draw_images(tmp_path / "moved", 10)
    ]
    write_manifest(str(tmp_path / "moved.parquet"), moved, None)
    rows = _detect(
        str(tmp_path / "moved.parquet"),
        checkpoint,
        tmp_path / "detections",
        proposals=str(tmp_path / "boxes"),
    )
    # Images that failed there have no boxes here, though the moved images are intact.
    assert [r["image_id"] for r in rows if r["stage"] == "propose"] == ["003", "004", "005"]


def test_scales_and_a_maximum_of_proposals_are_settings(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    plain = _detect(manifest_uri, checkpoint, tmp_path / "plain", limit=3)
    settings = json.loads((tmp_path / "plain" / "run.json").read_text())["settings"]
    assert not {"pyramid", "max_proposals", "cascade"} & set(settings)
    pyramid = Pyramid(scales=(60, 120), scale_cap=200)
    cascade = CascadeSettings(stop_after=9, stop_batch=2)  # its third batch is the last
    changed = dataclasses.replace(SETTINGS, pyramid=pyramid, max_proposals=5, cascade=cascade)
    output = tmp_path / "changed"
    rows = _detect(manifest_uri, checkpoint, output, limit=3, settings=changed)
    settings = json.loads((output / "run.json").read_text())["settings"]
    assert settings["pyramid"] == {"scales": [60, 120], "scale_cap": 200}
    assert settings["max_proposals"] == 5
    assert settings["cascade"] == {"stop_after": 9, "stop_batch": 2, "stop_score": None}
    counts = json.loads((output / "summary.json").read_text())["counts"]
    assert (counts["proposals"], counts["proposals_scored"]) == (15, 15)
    assert [row["num_proposals"] for row in rows] == [5, 5, 5]
    assert min(row["num_proposals"] for row in plain) > 5
    from pipeline.detector.predictor import Predictor

    predictor = Predictor(
        checkpoint, postprocessing=SETTINGS.postprocessing, precision="fp32", pyramid=pyramid
    )
    image = imaging.decode_image((tmp_path / "images" / "001.png").read_bytes())
    boxes = proposals.selective_search(
        image, "single", seed=proposals.derive_image_seed(0, "001"), max_boxes=50, min_side=8
    )
    (expected,) = predictor([image], [boxes[:5]])
    scores = [row["score"] for row in rows[1]["detections"]]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-3)
    with pytest.raises(MismatchedOutput, match="max_proposals: 5 there, nothing now"):
        _detect(manifest_uri, checkpoint, output, limit=3)
    tall = dataclasses.replace(SETTINGS, pyramid=Pyramid(scales=(60, 300)))
    with pytest.raises(InvalidConfiguration, match="short side 300 and cap 100"):
        _detect(manifest_uri, checkpoint, tmp_path / "tall", limit=3, settings=tall)


def test_a_rerun_with_other_settings_is_rejected_by_name(
    manifest_uri: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rules, precision, boxes, checkpoint, manifest, --limit, proposals, code: each is named."""
    other = Path(write_random_checkpoint(tmp_path / "other"))
    record = other / "model.json"
    record.write_text(record.read_text().replace('"short_side": 60', '"short_side": 64'))
    fewer = str(tmp_path / "fewer.parquet")
    rows = manifests.open_manifest(manifest_uri).read(0, 2, ["image_id", "uri"]).to_pylist()
    rows[1]["uri"] += "?moved"
    write_manifest(
        fewer,
        [manifests.ManifestRow(**row, width=None, height=None, objects=None) for row in rows],
        None,
    )
    for name, seed in (("boxes", 0), ("others", 1)):
        boxes = dataclasses.replace(BOXES, seed=seed)
        run_proposals(manifest_uri, str(tmp_path / name), boxes, RunOptions(limit=2, shard_size=4))
    computed, stored = tmp_path / "computed", tmp_path / "stored"
    _detect(manifest_uri, checkpoint, computed, limit=2)
    _detect(manifest_uri, checkpoint, stored, limit=2, proposals=str(tmp_path / "boxes"))
    before = {p: p.read_bytes() for p in computed.rglob("*") if p.is_file()}

    def expect_rejection(message: str, output: Path = computed, **changed: Any) -> None:
        arguments = {"uri": manifest_uri, "checkpoint": checkpoint, "limit": 2} | changed
        with pytest.raises(MismatchedOutput, match=message):
            _detect(arguments.pop("uri"), arguments.pop("checkpoint"), output, **arguments)

    postprocessing, precise = (
        PostprocessingSettings(score_threshold=0.5),
        dataclasses.replace(SETTINGS, precision="bf16"),
    )
    expect_rejection(
        r"keep.score_threshold: 0.0 there, 0.5 now",
        settings=dataclasses.replace(SETTINGS, postprocessing=postprocessing),
    )
    expect_rejection(r'precision: "fp32" there, "bf16" now', settings=precise)
    expect_rejection(
        r"proposals.*max_boxes: 50 there, 40 now",
        proposals=dataclasses.replace(BOXES, max_boxes=40),
    )
    expect_rejection(
        rf"checkpoint: \w+... of {checkpoint} there, \w+... of {other} now", checkpoint=str(other)
    )
    expect_rejection(rf"dataset: \w+... of {manifest_uri} there, \w+... of {fewer} now", uri=fewer)
    expect_rejection(r"images: 2 there, 3 now", limit=3)
    expect_rejection(
        rf"proposals.fingerprint: \w+... of {tmp_path}/boxes there, \w+... of {tmp_path}/others now",
        stored,
        proposals=str(tmp_path / "others"),
    )
    monkeypatch.setattr("pipeline.engine.detect.detection_inputs.ALGORITHM_VERSION", 0)
    expect_rejection(r"detector.version: \d+ there, 0 now")
    assert {p: p.read_bytes() for p in computed.rglob("*") if p.is_file()} == before


def test_reruns_keep_the_precision_that_auto_chose(
    manifest_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    """The second run plays one on a machine where auto chooses the other precision."""
    auto = dataclasses.replace(SETTINGS, precision="auto")
    output = tmp_path / "auto"
    _detect(manifest_uri, checkpoint, output, settings=auto, limit=3)
    record = json.loads((output / "run.json").read_text())
    assert record["settings"]["precision"] == "auto"
    other = {"bf16": "fp32", "fp32": "bf16"}[record["resolved"]["precision"]]
    record["resolved"]["precision"] = other
    (output / "run.json").write_text(json.dumps(record))
    for part in output.glob("part-*"):
        part.unlink()
    rows = _detect(manifest_uri, checkpoint, output, settings=auto, limit=3)
    assert json.loads((output / "run.json").read_text())["resolved"] == {"precision": other}
    from pipeline.detector.predictor import Predictor

    image = imaging.decode_image((tmp_path / "images" / "001.png").read_bytes())
    boxes = proposals.selective_search(
        image, "single", seed=proposals.derive_image_seed(0, "001"), max_boxes=50, min_side=8
    )
    scores = [d["score"] for d in rows[1]["detections"]]
    for precision, equal in ((other, True), (record["settings"]["precision"], False)):
        (expected,) = Predictor(
            checkpoint, postprocessing=SETTINGS.postprocessing, precision=precision
        )([image], [boxes])
        same = len(scores) == len(expected.scores) and np.allclose(
            scores, expected.scores, atol=1e-6
        )
        assert same == equal, precision


def test_a_damaged_checkpoint_is_rejected_by_name(manifest_uri: str, tmp_path: Path) -> None:
    damaged = Path(write_random_checkpoint(tmp_path))
    with pytest.raises(InvalidCheckpoint, match=r"nowhere.*model\.json does not exist"):
        _detect(manifest_uri, str(tmp_path / "nowhere"), tmp_path / "detections")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidCheckpoint, match=r"model\.safetensors"):
        _detect(manifest_uri, str(damaged), tmp_path / "detections")
    assert not list((tmp_path / "detections").glob("part-*"))


def test_the_log_names_the_classes_that_the_checkpoint_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path / "manifest.parquet")
    classes = ("cat", "zebra", "dog", "gnu")
    write_manifest(uri, [manifests.ManifestRow("a", "/a", 1, 1, [])], classes)
    check_classes(("dog", "cat", "car"), manifests.open_manifest(uri))
    (message,) = read_project_log(caplog)
    assert "2 of the 4 classes" in message
    assert message.endswith(": zebra, gnu")
