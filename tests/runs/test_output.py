"""The output folder of a run: overwritten at any moment, shared by two drivers, rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import shards, storage
from pipeline.errors import MismatchedOutput, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.options import RunOptions
from pipeline.runs.output import SUMMARY_NAME, RunOutput, list_shards_left, open_run
from pipeline.runs.run_plan import PlannedCluster, RunPlan

IMAGES = 10


class Killed(BaseException):
    """Acts as SIGKILL: nothing in the project catches it."""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(uri, (ManifestRow(f"p{i}", f"/{i}", 1, 1, None) for i in range(IMAGES)), None)
    return open_manifest(uri)


def _open(
    folder: str,
    manifest: Manifest,
    setting: str,
    size: int,
    check_images: Callable[[], float] = lambda: 0.0,
    **options: Any,
) -> RunOutput:
    run_options = RunOptions(shard_size=size, **options)
    cut = plan_cut(manifest, folder, run_options)
    record = RunRecord("test", {"dataset": cut.dataset, "setting": setting})
    return open_run(folder, record, cut, run_options, check_images)


def _run(folder: str, manifest: Manifest, setting: str, size: int, **options: Any) -> None:
    """A run whose rows name the setting that made them."""
    ready = _open(folder, manifest, setting, size, **options)
    for shard in ready.todo:
        _commit(ready, shard, setting)
    ready.finish({"setting": setting})


def _commit(ready: RunOutput, shard: shards.Shard, setting: str) -> None:
    numbers = range(shard.first_row, shard.first_row + shard.rows)
    rows = {
        "image_id": [f"p{i}" for i in numbers],
        "status": ["ok"] * shard.rows,
        "setting": [setting] * shard.rows,
    }
    shards.put_part(ready.uri, shard, pa.table(rows))


def _read_settings(folder: str) -> set[str]:
    """The settings that made the parts in the folder."""
    settings: set[str] = set()
    for path in Path(folder).glob("part-*.parquet"):
        settings.update(pq.read_table(path)["setting"].to_pylist())
    return settings


def _read(folder: str) -> list[tuple[str, str]]:
    return [
        (row["image_id"], row["setting"])
        for table in shards.open_parts(folder).read_tables()
        for row in table.to_pylist()
    ]


def _catch_rejection(action: Callable[[], object]) -> str:
    """The message that a user gets; empty if the action succeeded."""
    try:
        action()
    except (MismatchedOutput, UnreadableDataset) as error:
        return str(error)
    return ""


def _kill_at(count: int, patch: pytest.MonkeyPatch, *, done: bool) -> None:
    """SIGKILL at the `count`-th change of the folder: before it, or after it if `done`."""
    left = [count]

    def kill_around(change: Callable[..., Any]) -> Callable[..., Any]:
        def change_and_kill(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not done:
                raise Killed
            returned = change(*arguments)
            if left[0] == 0:
                raise Killed
            return returned

        return change_and_kill

    for name in ("put", "remove"):
        patch.setattr(storage, name, kill_around(getattr(storage, name)))


@pytest.mark.parametrize("done", [False, True])
def test_overwriting_is_safe_at_every_step(manifest: Manifest, tmp_path: Path, done: bool) -> None:
    """Killed anywhere, an output is the complete old one, or one that readers reject; never a mixture."""
    whole = {name: [(f"p{i}", name) for i in range(IMAGES)] for name in ("old", "new")}
    for step in range(1, 100):
        folder = str(tmp_path / f"output-{step}-{done}")
        _run(folder, manifest, "old", 4)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(step, patch, done=done)
            try:
                _run(folder, manifest, "new", 3, overwrite=True)
            except Killed:
                pass
            else:
                break
        assert len(_read_settings(folder)) <= 1, f"a mixture after step {step}"
        read = _catch_rejection(lambda folder=folder: _read(folder))
        assert "shards" in read if read else _read(folder) in whole.values()
        # The same command without --overwrite resumes, or says that the old run's record is there.
        rejection = _catch_rejection(lambda folder=folder: _run(folder, manifest, "new", 3))
        if rejection:
            assert 'setting: "old" there, "new" now' in rejection
            _run(folder, manifest, "new", 3, overwrite=True)
        assert _read(folder) == whole["new"]
        assert _read_settings(folder) == {"new"}
    assert step > 10, "the overwriting run changed the folder in fewer steps than it has parts"


@pytest.mark.parametrize("done", [False, True])
def test_a_run_killed_at_every_step_is_finished_by_the_next(
    manifest: Manifest, tmp_path: Path, done: bool
) -> None:
    for step in range(1, 100):
        folder = str(tmp_path / f"output-{step}-{done}")
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(step, patch, done=done)
            try:
                _run(folder, manifest, "new", 3)
            except Killed:
                pass
            else:
                break
        _run(folder, manifest, "new", 4)  # the output keeps its cut
        assert _read(folder) == [(f"p{i}", "new") for i in range(IMAGES)]
    assert step > 6


def test_images_are_checked_before_anything_is_changed_if_there_is_work(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "output"
    before: list[dict[str, bytes]] = []

    def read_files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    def check_images() -> float:
        before.append(read_files())
        raise UnreadableDataset("have they moved?")

    def assert_rejected(**options: Any) -> None:
        unchanged = read_files()
        with pytest.raises(UnreadableDataset, match="have they moved"):
            _open(str(folder), manifest, "same", 3, check_images, **options)
        assert before.pop() == read_files() == unchanged

    assert_rejected()
    _run(str(folder), manifest, "same", 3)
    _open(str(folder), manifest, "same", 3, check_images)  # nothing is left to do
    assert_rejected(overwrite=True)
    next(folder.glob("part-*")).unlink()
    assert_rejected()


def test_a_run_ends_in_a_store_that_lists_late_but_not_without_a_part(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "output")
    ready = _open(folder, manifest, "one", 4)
    for shard in ready.todo:
        _commit(ready, shard, "one")
    monkeypatch.setattr(storage, "list_names", lambda uri: [ready.shards[0].part_name])
    ready.finish({})
    assert storage.exists(f"{folder}/{SUMMARY_NAME}")
    storage.remove(f"{folder}/{ready.shards[1].part_name}")
    with pytest.raises(MismatchedOutput, match="were removed while the run was"):
        ready.finish({})


def test_two_drivers_of_one_cut_do_no_harm(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "output")
    first, second = (_open(folder, manifest, "same", 3) for _ in range(2))
    for ready in (second, first):
        for shard in ready.todo:
            _commit(ready, shard, "same")
    first.finish({})
    second.finish({})
    assert _read(folder) == [(f"p{i}", "same") for i in range(IMAGES)]


def test_a_driver_leaves_an_output_that_another_took_over(
    manifest: Manifest, tmp_path: Path
) -> None:
    """It would remove the other's parts as strays and call the output done."""
    folder = str(tmp_path / "output")
    first = _open(folder, manifest, "old", 3)
    second = _open(folder, manifest, "new", 4, overwrite=True)
    for ready, setting in ((first, "old"), (second, "new")):
        for shard in ready.todo:
            _commit(ready, shard, setting)
    with pytest.raises(MismatchedOutput, match="another run with other settings started here"):
        first.finish({})
    second.finish({})
    assert _read(folder) == [(f"p{i}", "new") for i in range(IMAGES)]
    assert _read_settings(folder) == {"new"}


def test_a_driver_that_loses_the_race_for_the_cut_stops_before_its_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no table; the other's, of another cut, is put right after this one's."""
    folder = str(tmp_path / "output")
    write_table = shards.write_shard_table

    def write_both(uri: str, planned: list[shards.Shard]) -> None:
        write_table(uri, planned)
        write_table(uri, shards.cut_manifest(manifest, 5).build_shards("other"))

    monkeypatch.setattr(shards, "write_shard_table", write_both)
    with pytest.raises(MismatchedOutput, match="another run started here at the same time"):
        _open(folder, manifest, "new", 3)


def test_a_driver_that_loses_the_race_for_the_record_stops_before_its_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find an empty folder: in the end the table is this one's, the record the other's."""
    folder = str(tmp_path / "output")
    write_table = shards.write_shard_table

    def write_after_the_other(uri: str, planned: list[shards.Shard]) -> None:
        RunRecord("test", {"setting": "other"}).write(uri)
        write_table(uri, planned)

    monkeypatch.setattr(shards, "write_shard_table", write_after_the_other)
    with pytest.raises(
        MismatchedOutput, match=r"run\.json is not of this run: another run with other"
    ):
        _open(folder, manifest, "new", 3)


def test_a_run_does_not_finish_under_the_record_of_another_run(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = str(tmp_path / "output")
    ready = _open(folder, manifest, "new", 3)
    for shard in ready.todo:
        _commit(ready, shard, "new")
    RunRecord("test", {"setting": "other"}).write(folder)
    with pytest.raises(MismatchedOutput, match=r"run\.json is not of this run"):
        ready.finish({})
    assert not (tmp_path / "output" / SUMMARY_NAME).exists()


def test_what_auto_resolved_to_stays_with_the_output(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "output")
    first, second = (_open(folder, manifest, "same", 3) for _ in range(2))
    assert not first.record.resolved
    resolved = first.resolve({"precision": "bf16"})
    assert resolved.record.resolved == {"precision": "bf16"}
    assert not first.record.resolved, "an output that a caller holds does not change"
    assert resolved.resolve({"precision": "bf16"}) == resolved
    with pytest.raises(MismatchedOutput, match=r"started with .*bf16.* this run has .*fp32"):
        second.resolve({"precision": "fp32"})
    for shard in resolved.todo:
        _commit(resolved, shard, "same")
    other = replace(second, record=replace(second.record, resolved={"precision": "fp32"}))
    with pytest.raises(MismatchedOutput, match="started with"):
        other.finish({})
    resolved.finish({})
    assert _open(folder, manifest, "same", 3).record.resolved == {"precision": "bf16"}
    assert not _open(folder, manifest, "same", 3, overwrite=True).record.resolved


def test_the_mean_size_of_the_checked_images_comes_with_the_output(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = str(tmp_path / "output")
    assert _open(folder, manifest, "same", 3, lambda: 150.0).mean_image_bytes == 150.0
    assert _open(folder, manifest, "same", 3, lambda: 170.0).mean_image_bytes == 170.0
    _run(folder, manifest, "same", 3)
    assert _open(folder, manifest, "same", 3, lambda: 170.0).mean_image_bytes == 0.0


def _write_output_of_earlier_release(folder: Path, manifest: Manifest) -> None:
    """An interrupted run's output as releases before the schema version wrote it: one part of four."""
    cut = shards.cut_manifest(manifest, 3)
    identity = {"job": "test", "settings": {"dataset": cut.dataset, "setting": "same"}}
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    record = identity | {"inputs": {}, "fingerprint": fingerprint, "versions": {}}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    planned = cut.build_shards(fingerprint)
    shards.write_shard_table(str(folder), planned)
    rows = {"image_id": [f"p{i}" for i in range(3)], "setting": ["earlier release"] * 3}
    pq.write_table(pa.table(rows), folder / planned[0].part_name)


def test_an_output_begun_by_an_earlier_release_is_rejected_and_never_mixed(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "output"
    _write_output_of_earlier_release(folder, manifest)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        MismatchedOutput, match=r"schema version: none \(an earlier release\) there, \d+ now"
    ):
        _run(str(folder), manifest, "same", 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    _run(str(folder), manifest, "same", 3, overwrite=True)
    assert _read(str(folder)) == [(f"p{i}", "same") for i in range(IMAGES)]
    assert _read_settings(str(folder)) == {"same"}


def _write_plan(folder: str, fingerprint: str) -> Path:
    RunPlan("test", fingerprint, IMAGES, 2, PlannedCluster(1, 2), 8).write(folder)
    return Path(folder) / "plan.json"


def test_a_run_begins_where_only_a_plan_is_and_keeps_it(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    plan = _write_plan(folder, "f" * 64)
    _run(folder, manifest, "a", 5)
    assert plan.is_file()


def test_overwriting_keeps_the_plan_of_the_new_run_alone(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = str(tmp_path / "out")
    _run(folder, manifest, "a", 5)
    record = RunRecord(
        "test", {"dataset": plan_cut(manifest, folder, RunOptions()).dataset, "setting": "b"}
    )
    plan = _write_plan(folder, record.fingerprint)
    _run(folder, manifest, "b", 5, overwrite=True)
    assert plan.is_file()
    _run(folder, manifest, "c", 5, overwrite=True)
    assert not plan.exists()


def test_the_shards_left_are_those_without_a_part(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    ready = _open(folder, manifest, "a", 5)
    _commit(ready, ready.shards[0], "a")
    cut = plan_cut(manifest, folder, RunOptions(shard_size=5))
    assert list_shards_left(folder, ready.record, cut) == [ready.shards[1]]
    with pytest.raises(MismatchedOutput, match="other settings"):
        list_shards_left(folder, RunRecord("test", {"setting": "b"}), cut)
