"""A report made by Ray tasks on an object store: the same pages and thumbnails as one made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage, uris
from pipeline.engine.analyze.ray_executor import RayExecutor
from pipeline.report.writing import write_report
from tests.report.hand_made import write_run


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_write_the_same_report_into_a_bucket(s3_folder: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_report(str(tmp_path), run.metrics, run.sources)
    summary = write_report(s3_folder, run.metrics, run.sources, executor=RayExecutor())
    assert summary.unreadable == 1
    local = tmp_path / "report"
    files = [path for path in local.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".jpg" for path in files) == summary.thumbnails > 3
    for path in files:
        name = path.relative_to(local).as_posix()
        assert storage.read(uris.join(s3_folder, "report", name)) == path.read_bytes(), name
    for folder in ("galleries", "classes", "images"):
        names = set(storage.list_names(uris.join(s3_folder, "report", folder)))
        assert names == {path.name for path in (local / folder).iterdir()}
