"""Rows of an earlier output for images that did not change: located, checked, taken over or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import schema, shards
from pipeline.errors import (
    InvalidConfiguration,
    MismatchedOutput,
    StorageError,
    UnreadableDataset,
)
from pipeline.manifests import Manifest
from pipeline.object_facts import ObjectFacts
from pipeline.run_record import RunRecord
from pipeline.runs import reusable_rows, reuse, reuse_index
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Report
from pipeline.runs.reuse import open_earlier_output
from tests.runs.reuse_outputs import (
    build_record,
    build_rows,
    list_images,
    open_output,
    write_images,
    write_output,
)

OLD = [f"i{row}" for row in range(10)]
GROWN = ["new0", *OLD[:5], "new1", *OLD[5:], "new2"]


def _run(
    tmp_path: Path, manifest: Manifest, check: str = "size", *, row: int | None = None
) -> tuple[dict[str, float], Report]:
    """Take over what can be and compute the rest, as a worker does; returns the run of each image's row."""
    options = RunOptions(reuse=str(tmp_path / "old"), reuse_check=check)  # type: ignore[arg-type]
    ready = open_output(str(tmp_path / "new"), manifest, 5)
    earlier = open_earlier_output(options, ready.record, manifest)
    assert earlier is not None
    plan = earlier.locate(ready, manifest)
    assert plan is not None
    report, runs = Report(), {}
    for shard in ready.shards:
        images = list_images(manifest, shard)
        reusable = plan.select(shard, row)
        if row is not None:
            images = images[row : row + 1]
        reused = None if reusable is None else reusable.take(images, report)
        others = images if reused is None else reused.leave_out(images)
        table = build_rows(others, ready.record.fingerprint, 2.0)
        if reused is not None:
            table = reused.merge(table)
        assert table["image_id"].to_pylist() == [image.image_id for image in images]
        if earlier.has_keys:
            assert table["image_key"].to_pylist() == [image.key for image in images]
        fingerprint = schema.read_metadata(table.schema, "fingerprint")
        assert fingerprint == ready.record.fingerprint
        firsts = [of_image[0][0] for of_image in table["boxes"].to_pylist()]
        runs |= dict(zip(table["image_id"].to_pylist(), firsts, strict=True))
    return runs, report


@pytest.mark.parametrize("check", ["name", "size", "content"])
def test_a_grown_manifest_costs_only_its_new_images(tmp_path: Path, check: str) -> None:
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD))
    runs, report = _run(tmp_path, write_images(tmp_path, GROWN, "grown"), check)
    assert runs == {name: 1.0 if name in OLD else 2.0 for name in GROWN}
    assert (report.counts["reused"], report.counts["not_reused"]) == (10, 0)


def test_single_images_are_taken_over_too(tmp_path: Path) -> None:
    """A shard whose worker died twice is done image by image."""
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD))
    runs, _ = _run(tmp_path, write_images(tmp_path, GROWN, "grown"), row=0)
    assert runs == {"new0": 2.0, "i4": 1.0, "i8": 1.0}


@pytest.mark.parametrize(
    ("check", "changed"), [("name", []), ("size", ["i2"]), ("content", ["i2", "i3"])]
)
def test_what_counts_as_changed_is_the_users_choice(
    tmp_path: Path, check: str, changed: Sequence[str]
) -> None:
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD))
    (tmp_path / "images" / "i2").write_bytes(b"other size")
    (tmp_path / "images" / "i3").write_bytes(b"I3I3I3")  # the same size
    runs, report = _run(tmp_path, write_images(tmp_path, OLD), check)
    assert [name for name, run in runs.items() if run == 2.0] == changed
    assert report.counts["not_reused"] == len(changed)


def test_failed_and_missing_images_are_done_again(tmp_path: Path) -> None:
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD), failed=["i1"])
    manifest = write_images(tmp_path, OLD)
    (tmp_path / "images" / "i7").rename(tmp_path / "gone")
    options = RunOptions(reuse=str(tmp_path / "old"))
    ready = open_output(str(tmp_path / "new"), manifest, 10)
    earlier = open_earlier_output(options, ready.record, manifest)
    assert earlier is not None
    plan = earlier.locate(ready, manifest)
    assert plan is not None
    reusable = plan.select(ready.shards[0])
    assert reusable is not None
    reused = reusable.take(list_images(manifest, ready.shards[0]), Report())
    assert reused is not None
    assert reused.find_others(10).tolist() == [1, 7]


def test_an_image_that_moved_is_another_one(tmp_path: Path) -> None:
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD))
    (tmp_path / "moved").mkdir()
    runs, report = _run(tmp_path, write_images(tmp_path / "moved", OLD))
    assert set(runs.values()) == {2.0}
    assert report.counts["reused"] == 0


def test_a_stated_md5_decides_without_reading_and_another_one_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETag of an object that is encrypted by a key of KMS is no MD5 of its bytes."""
    manifest = write_images(tmp_path, OLD)
    write_output(str(tmp_path / "old"), manifest)
    real_md5 = reusable_rows.identify_content(b"i0" * 3).md5
    reads: list[str] = []

    def read_image(uri: str, member: object = None) -> bytes:
        reads.append(Path(uri).name)
        return Path(uri).read_bytes()

    monkeypatch.setattr(
        reusable_rows,
        "read_object_facts",
        lambda uri: ObjectFacts(6, real_md5 if uri.endswith("i0") else "0" * 32),
    )
    monkeypatch.setattr(reusable_rows, "read_image", read_image)
    (tmp_path / "images" / "i3").write_bytes(b"I3I3I3")
    runs, _ = _run(tmp_path, manifest)
    assert sorted(reads) == OLD[1:]
    assert [name for name, run in runs.items() if run == 2.0] == ["i3"]


def test_a_store_that_fails_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard is retried; otherwise a passing error would cost the image."""
    manifest = write_images(tmp_path, OLD)
    write_output(str(tmp_path / "old"), manifest)

    def fail(*arguments: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(reusable_rows, "read_object_facts", fail)
    monkeypatch.setattr(reusable_rows, "read_image", fail)
    with pytest.raises(StorageError, match="away"):
        _run(tmp_path, manifest)


def test_a_damaged_part_costs_time_but_no_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = write_output(str(tmp_path / "old"), write_images(tmp_path, OLD))
    (tmp_path / "old" / earlier.shards[1].part_name).write_bytes(b"PAR1")
    runs, _ = _run(tmp_path, write_images(tmp_path, OLD))
    assert [name for name, run in runs.items() if run == 2.0] == OLD[4:8]
    assert "1 parts are not taken over" in caplog.text


def test_other_settings_are_rejected_in_one_line_that_names_them(tmp_path: Path) -> None:
    manifest = write_images(tmp_path, OLD)
    write_output(str(tmp_path / "old"), manifest)
    options = RunOptions(reuse=str(tmp_path / "old"))
    with pytest.raises(MismatchedOutput, match=r"proposals\.seed: 0 there, 7 now") as error:
        open_earlier_output(options, build_record(manifest, 4, seed=7), manifest)
    assert "\n" not in str(error.value)
    with pytest.raises(MismatchedOutput, match="job: propose there, detect now"):
        open_earlier_output(options, RunRecord("detect", {}), manifest)


@pytest.mark.parametrize(
    ("provenance", "fingerprint", "is_same"),
    [
        ({"algorithm": "selective_search", "seed": 0}, "another run", True),
        ({"algorithm": "selective_search", "seed": 1}, "run", False),
        ({"algorithm": "imported", "digest": "d"}, "run", True),
        ({"algorithm": "imported", "digest": "d"}, "another run", False),
    ],
)
def test_stored_proposals_are_the_same_if_they_follow_from_their_settings(
    tmp_path: Path, provenance: dict[str, Any], fingerprint: str, is_same: bool
) -> None:
    manifest = write_images(tmp_path, OLD)
    old = str(tmp_path / "old")
    ready = write_output(old, manifest)
    before = {"algorithm": provenance["algorithm"], "seed": 0}
    if provenance["algorithm"] == "imported":
        before = provenance
    stored = {"stored": before, "fingerprint": "run"}
    settings = {**ready.record.settings, "proposals": stored}
    RunRecord("propose", settings).write(old)
    for shard in ready.shards:  # their parts name the run
        (tmp_path / "old" / shard.part_name).unlink()
        record = RunRecord("propose", settings)
        table = build_rows(list_images(manifest, shard), record.fingerprint, 1.0)
        shards.put_part(old, shard, table)
    current = replace(
        ready.record,
        settings={
            **settings,
            "proposals": {"stored": provenance, "fingerprint": fingerprint},
            "dataset": "a grown one",
        },
    )
    options = RunOptions(reuse=old)
    if is_same:
        assert open_earlier_output(options, current, manifest) is not None
        return
    with pytest.raises(MismatchedOutput, match=r"proposals\.(seed|fingerprint)"):
        open_earlier_output(options, current, manifest)


def _write_without_keys(tmp_path: Path, manifest: Manifest) -> None:
    """An output of an earlier release."""
    ready = write_output(str(tmp_path / "old"), manifest)
    for shard in ready.shards:
        table = shards.Parts(ready.uri, (shard,)).read(shard)
        names = [field.name for field in schema.IMAGE_FACTS]
        shards.put_part(ready.uri, shard, table.drop_columns(names))


def test_rows_of_an_earlier_release_hold_if_its_images_are_the_first_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write_without_keys(tmp_path, write_images(tmp_path, OLD))
    runs, report = _run(tmp_path, write_images(tmp_path, [*OLD, "new"], "grown"))
    assert runs == dict.fromkeys(OLD, 1.0) | {"new": 2.0}
    assert report.counts["reused"] == 10
    assert "counts as unchanged" in caplog.text


@pytest.mark.parametrize(
    ("names", "check", "error", "message"),
    [
        (GROWN, "size", MismatchedOutput, "only if its 10 images are the first ones"),
        (OLD[:9], "size", MismatchedOutput, "only if its 10 images are the first ones"),
        ([*OLD, "new"], "content", InvalidConfiguration, "--reuse-check size"),
    ],
)
def test_other_rows_of_an_earlier_release_are_rejected(
    tmp_path: Path, names: Sequence[str], check: Any, error: type[Exception], message: str
) -> None:
    _write_without_keys(tmp_path, write_images(tmp_path, OLD))
    grown = write_images(tmp_path, names, "grown")
    options = RunOptions(reuse=str(tmp_path / "old"), reuse_check=check)
    with pytest.raises(error, match=message):
        open_earlier_output(options, build_record(grown, 4), grown)


@pytest.mark.parametrize(
    ("break_output", "message"),
    [
        (lambda old: [path.unlink() for path in old.iterdir()], "has no run.json"),
        (lambda old: [path.unlink() for path in old.glob("part-*")], "no committed part"),
    ],
)
def test_what_is_no_output_is_rejected(
    tmp_path: Path, break_output: Callable[[Path], object], message: str
) -> None:
    manifest = write_images(tmp_path, OLD)
    write_output(str(tmp_path / "old"), manifest)
    break_output(tmp_path / "old")
    options = RunOptions(reuse=str(tmp_path / "old"))
    with pytest.raises(UnreadableDataset, match=message):
        open_earlier_output(options, build_record(manifest, 4), manifest)


def test_nothing_is_read_without_the_option_or_without_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_images(tmp_path, OLD)
    ready = write_output(str(tmp_path / "old"), manifest)
    assert open_earlier_output(RunOptions(), ready.record, manifest) is None
    options = RunOptions(reuse=str(tmp_path / "old"))
    earlier = open_earlier_output(options, build_record(manifest, 4), manifest)
    assert earlier is not None
    monkeypatch.delattr(reuse_index, "read_image_keys")
    monkeypatch.setattr(shards.Parts, "read", None)
    assert earlier.locate(ready, manifest) is None


def test_a_manifest_in_another_order_is_slow_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "MANY_PARTS", 2.5)
    write_output(str(tmp_path / "old"), write_images(tmp_path, OLD), size=1)
    order = np.random.default_rng(0).permutation(10)
    runs, _ = _run(tmp_path, write_images(tmp_path, [OLD[row] for row in order], "shuffled"))
    assert set(runs.values()) == {1.0}
    assert "in another order" in caplog.text


def test_rows_of_merged_releases_get_null_facts(tmp_path: Path) -> None:
    """A row without the optional columns keeps its place, with nulls in them."""
    images = list_images(write_images(tmp_path, OLD), shards.Shard(0, "0" * 24, 0, 4))
    table = build_rows(images[:1], "run", 1.0)
    names = [field.name for field in schema.IMAGE_FACTS]
    reused = reusable_rows.ReusedRows(table.drop_columns(names), np.array([2]))
    merged = reused.merge(build_rows([images[1], images[3]], "run", 2.0))
    assert merged["image_id"].to_pylist() == ["i1", "i3", "i0"]
    assert merged["image_key"].null_count == 1
