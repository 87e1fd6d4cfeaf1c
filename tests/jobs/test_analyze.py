import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import analyze
from jobs.analyze import AnalyzeDetections, AnalyzeProposals, CompareRuns, main
from pipeline import imaging
from pipeline.errors import StorageError
from tests.jobs.command import read_error_output, run_job
from tests.outputs import (
    FailedImage,
    make_object,
    write_annotations,
    write_detections,
    write_proposals,
)

ROOT = Path(__file__).parents[2]
A, B = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path):
    images = {
        "one": [make_object("[red]cat", A)],
        "two": [make_object("dog", B)],
        "three": [make_object("dog", B)],
    }
    return write_annotations(str(tmp_path / "m.parquet"), images, ("[red]cat", "dog"))


def test_detections_are_scored_printed_and_written(tmp_path, manifest, capsys):
    rows = {"one": [("[red]cat", 0.9, A)], "two": FailedImage("UnreadableImage", "decode")}
    uri = write_detections(str(tmp_path / "d"), manifest, rows, ("[red]cat", "dog", "emu"))
    main(AnalyzeDetections(detections=uri, manifest=manifest, output=str(tmp_path / "out")))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["voc_map50"] == 0.5
    assert metrics["voc07_map50"] == 0.5
    assert metrics["coco_ap"] == pytest.approx(0.5)
    assert (metrics["images"], metrics["failed"], metrics["detections"]) == (2, 1, 1)
    assert [row["label"] for row in metrics["per_class"]] == ["[red]cat", "dog"]
    printed = capsys.readouterr().out
    assert "[red]cat" in printed  # a label is not read as markup
    assert "decode: UnreadableImage" in printed
    assert "note: the manifest has no class emu" in printed
    assert "note: scored over the first 2 of the manifest's 3 images" in printed


@pytest.mark.parametrize("kind", ["detections", "proposals", "compare"])
def test_scores_are_written_before_a_reader_can_close_the_pipe(
    kind, tmp_path, manifest, monkeypatch
):
    def close_pipe(*arguments, **options):
        raise BrokenPipeError

    monkeypatch.setattr(analyze.Console, "print", close_pipe)
    monkeypatch.setattr(analyze, "print_lines", close_pipe)
    out = str(tmp_path / "out")
    if kind == "proposals":
        uri = write_proposals(str(tmp_path / "p"), manifest, {"one": [A], "two": [], "three": []})
        options, names = AnalyzeProposals(proposals=uri, manifest=manifest, output=out), {"metrics"}
    else:
        rows = {"one": [("[red]cat", 0.9, A)], "two": [], "three": []}
        uri = write_detections(str(tmp_path / "d"), manifest, rows, ("[red]cat", "dog"))
        options, names = (
            AnalyzeDetections(detections=uri, manifest=manifest, output=out),
            {"metrics", "thresholds"},
        )
    if kind == "compare":
        options = CompareRuns(detections=(uri, uri), manifest=manifest, output=out)
        names = {"comparison"}
    with pytest.raises(BrokenPipeError):
        main(options)
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == names


def test_a_label_cannot_command_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    label = "\x1b]0;mine\x07cat\nall"
    manifest = write_annotations(
        str(tmp_path / "m.parquet"), {"one": [make_object(label, A)]}, (label,)
    )
    uri = write_detections(str(tmp_path / "d"), manifest, {"one": [(label, 0.9, A)]}, (label,))
    main(AnalyzeDetections(detections=uri, manifest=manifest, output=str(tmp_path / "out")))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b]0;mine\\x07cat\\nall" in printed


def test_proposals_are_scored_printed_and_plotted(tmp_path, manifest, capsys):
    rows = {"one": [A], "two": [A, B], "three": FailedImage("TimedOut")}
    uri = write_proposals(str(tmp_path / "p"), manifest, rows)
    main(AnalyzeProposals(proposals=uri, manifest=manifest, output=str(tmp_path / "out")))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["recall50"] == pytest.approx(2 / 3)
    assert metrics["mabo"] == pytest.approx(0.75)
    assert imaging.read_size((tmp_path / "out/recall.png").read_bytes()) == (1200, 480)
    printed = capsys.readouterr().out
    assert "TimedOut" in printed
    assert "recall@0.5" in printed


def test_a_comparison_is_printed_and_written(tmp_path, manifest, capsys):
    classes = ("[red]cat", "dog")
    runs = {
        "worse": {"one": [("[red]cat", 0.9, A)], "two": [], "three": FailedImage()},
        "better": {"one": [("[red]cat", 0.9, A)], "two": [("dog", 0.5, B)], "three": []},
    }
    uris = [write_detections(str(tmp_path / n), manifest, r, classes) for n, r in runs.items()]
    main(CompareRuns(detections=tuple(uris), manifest=manifest, output=str(tmp_path / "out")))
    comparison = json.loads((tmp_path / "out/comparison.json").read_text())
    assert comparison["voc_map50"]["difference"] == pytest.approx(0.25)  # dog: one of two found
    assert [row["ap_area"]["difference"] for row in comparison["per_class"]] == [0, 0.5]
    assert (comparison["images"], comparison["resamples"], comparison["seed"]) == (3, 1000, 0)
    changed = {(c["kind"], c["name"]): c for c in comparison["changed"]}
    assert [c["image_id"] for c in changed["class", "dog"]["largest"]] == ["two"]
    assert (tmp_path / "out/comparison/galleries/class-1.html").is_file()
    printed = capsys.readouterr().out
    assert f"second: {uris[1]}" in printed
    assert "[red]cat" in printed
    assert "95 % interval" in printed
    assert "+0.250" in printed


def test_the_output_can_be_on_another_store(manifest, tmp_path):
    uri = write_detections(str(tmp_path / "d"), manifest, {"one": []}, ("dog",))
    main(AnalyzeDetections(detections=uri, manifest=manifest, output="memory://analysis/out"))
    import fsspec

    stored = fsspec.filesystem("memory").cat_file("/analysis/out/metrics.json")
    assert json.loads(stored)["voc_map50"] == 0


def test_matches_and_diagnostics_lie_beside_the_metrics(tmp_path, manifest, capsys):
    classes = ("[red]cat", "dog")
    rows = {"one": [("[red]cat", 0.9, A)], "two": [("dog", 0.8, A)], "three": []}
    uri = write_detections(str(tmp_path / "out"), manifest, rows, classes)  # the input's own folder
    options = AnalyzeDetections(detections=uri, manifest=manifest, output=uri, report_images=2)
    main(options)
    out = tmp_path / "out"
    record = json.loads((out / "matches/run.json").read_text())
    assert record["job"] == "analyze"
    assert record["inputs"]["detections"] == uri
    matches = pq.read_table(sorted((out / "matches").glob("part-*")))
    assert Counter(matches["kind"].to_pylist()) == {"detection": 2, "missed": 2}
    assert pq.read_table(out / "tide.parquet").num_rows > 0
    assert json.loads((out / "thresholds.json").read_text())["overall"] > 0
    assert (out / "report/index.html").is_file()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["coco_ar_100"] == 0.5
    assert metrics["tide"] is not None
    assert not metrics["partial"]
    first = capsys.readouterr().out
    main(options)  # nothing is left to match
    assert capsys.readouterr().out == first


def test_detections_without_annotations_are_counted(tmp_path, capsys):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": None, "two": None})
    rows = {"one": [("cat", 0.9, A)], "two": [("cat", 0.8, A), ("dog", 0.1, B)]}
    uri = write_detections(str(tmp_path / "d"), manifest, rows, ("cat", "dog"))
    main(AnalyzeDetections(detections=uri, manifest=manifest, output=str(tmp_path / "out")))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["coco_ap"], metrics["detections"], metrics["unlabelled"]) == (None, 3, 2)
    assert metrics["distributions"] is not None
    assert metrics["tide"] is None
    assert "the manifest has no annotated objects" in capsys.readouterr().out
    assert (tmp_path / "out/report/index.html").is_file()


@pytest.mark.parametrize("foreign", ["detections", "unknown"])
def test_matches_of_another_run_are_rejected(foreign, tmp_path, manifest, capsys):
    out = tmp_path / "out"
    rows = {"one": [("dog", 0.9, A)], "two": [], "three": []}
    uri = write_detections(str(tmp_path / "d"), manifest, rows, ("dog",))
    write_detections(str(out / "matches"), manifest, rows, ("dog",))
    if foreign == "unknown":
        (out / "matches/run.json").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    arguments = ("detections", "--detections", uri, "--manifest", manifest, "--output", str(out))
    assert run_job("analyze", *arguments) == 2
    error = read_error_output(capsys)
    assert error.count("\n") == 1
    expected = {"detections": "job: test there, analyze now", "unknown": "of an unknown run"}
    assert f"{out}/matches" in error
    assert expected[foreign] in error
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_score_that_is_no_number_is_named(tmp_path, manifest, capsys):
    rows = {"one": [("dog", float("nan"), A)], "two": [], "three": []}
    uri = write_detections(str(tmp_path / "d"), manifest, rows, ("dog",))
    arguments = ("--detections", uri, "--manifest", manifest, "--output", str(tmp_path / "out"))
    assert run_job("analyze", "detections", *arguments) == 2
    (line,) = [line for line in read_error_output(capsys).splitlines() if "score" in line]
    assert line.endswith("row 0 (image 'one'): a score is not a finite number")
    assert f"{uri}/part-000000" in line


def test_an_unwritable_output_fails_before_the_work(manifest, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        main(
            AnalyzeDetections(
                detections=str(tmp_path / "none"),
                manifest=manifest,
                output=str(tmp_path / "file/out"),
            )
        )


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_missing_path_prints_one_line_and_exits_with_2(tmp_path, manifest):
    completed = run_python(
        "jobs/analyze.py",
        *("detections", "--detections", str(tmp_path / "none")),
        *("--manifest", manifest, "--output", str(tmp_path / "out")),
    )
    assert completed.returncode == 2
    assert completed.stderr.strip().count("\n") == 0
    assert f"{tmp_path}/none holds no shards.parquet" in completed.stderr


def test_a_missing_subcommand_exits_with_2(manifest):
    assert run_python("-m", "jobs.analyze").returncode == 2


def test_the_job_imports_neither_ray_nor_torch():
    code = "import sys, jobs.analyze; print({'ray', 'torch', 'matplotlib'} & set(sys.modules))"
    assert run_python("-c", code).stdout.strip() == "set()"
