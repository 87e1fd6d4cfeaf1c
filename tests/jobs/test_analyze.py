import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.analyze import Compare, Detections, Proposals, main
from pipeline import imaging
from pipeline.errors import StorageError
from tests.outputs import (
    Failure,
    an_object,
    write_annotations,
    write_detections,
    write_proposals,
)

ROOT = Path(__file__).parents[2]
A, B = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path):
    images = {
        "one": [an_object("[red]cat", A)],
        "two": [an_object("dog", B)],
        "three": [an_object("dog", B)],
    }
    return write_annotations(str(tmp_path / "m.parquet"), images, ("[red]cat", "dog"))


def test_detections(tmp_path, manifest, capsys):
    rows = {"one": [("[red]cat", 0.9, A)], "two": Failure("UnreadableImage", "decode")}
    uri = write_detections(str(tmp_path / "d"), manifest, rows, ("[red]cat", "dog", "emu"))
    main(Detections(detections=uri, manifest=manifest, output=str(tmp_path / "out")))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["voc_map50"] == 0.5
    assert metrics["voc07_map50"] == 0.5
    assert metrics["coco_ap"] == pytest.approx(0.5)
    assert (metrics["images"], metrics["failed"], metrics["detections"]) == (2, 1, 1)
    assert [row["label"] for row in metrics["per_class"]] == ["[red]cat", "dog"]
    printed = capsys.readouterr().out
    assert "[red]cat" in printed  # a label is no markup
    assert "decode: UnreadableImage" in printed
    assert "note: the manifest has no class emu" in printed
    assert "note: scored over the first 2 of the manifest's 3 images" in printed


def test_proposals(tmp_path, manifest, capsys):
    rows = {"one": [A], "two": [A, B], "three": Failure("TimedOut")}
    uri = write_proposals(str(tmp_path / "p"), manifest, rows)
    main(Proposals(proposals=uri, manifest=manifest, output=str(tmp_path / "out")))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["recall50"] == pytest.approx(2 / 3)
    assert metrics["mabo"] == pytest.approx(0.75)
    assert imaging.size((tmp_path / "out/recall.png").read_bytes()) == (1200, 480)
    printed = capsys.readouterr().out
    assert "TimedOut" in printed
    assert "recall@0.5" in printed


def test_a_comparison(tmp_path, manifest, capsys):
    classes = ("[red]cat", "dog")
    runs = {
        "worse": {"one": [("[red]cat", 0.9, A)], "two": [], "three": Failure()},
        "better": {"one": [("[red]cat", 0.9, A)], "two": [("dog", 0.5, B)], "three": []},
    }
    uris = [write_detections(str(tmp_path / n), manifest, r, classes) for n, r in runs.items()]
    main(Compare(detections=tuple(uris), manifest=manifest, output=str(tmp_path / "out")))
    told = json.loads((tmp_path / "out/comparison.json").read_text())
    assert told["voc_map50"]["difference"] == pytest.approx(0.25)  # dog: one of two found
    assert [row["ap_area"]["difference"] for row in told["per_class"]] == [0, 0.5]
    assert (told["images"], told["resamples"], told["seed"]) == (3, 1000, 0)
    printed = capsys.readouterr().out
    assert f"second: {uris[1]}" in printed
    assert "[red]cat" in printed
    assert "95 % interval" in printed
    assert "+0.250" in printed


def test_an_output_on_another_store(manifest, tmp_path):
    uri = write_detections(str(tmp_path / "d"), manifest, {"one": []}, ("dog",))
    main(Detections(detections=uri, manifest=manifest, output="memory://analysis/out"))
    import fsspec

    stored = fsspec.filesystem("memory").cat_file("/analysis/out/metrics.json")
    assert json.loads(stored)["voc_map50"] == 0


def test_an_output_that_cannot_be_written_ends_before_the_work(manifest, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        main(
            Detections(
                detections=str(tmp_path / "none"),
                manifest=manifest,
                output=str(tmp_path / "file/out"),
            )
        )


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_missing_path_is_one_line_and_code_2(tmp_path, manifest):
    done = run(
        "jobs/analyze.py",
        *("detections", "--detections", str(tmp_path / "none")),
        *("--manifest", manifest, "--output", str(tmp_path / "out")),
    )
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert f"{tmp_path}/none holds no shards.parquet" in done.stderr


def test_a_subcommand_must_be_named(manifest):
    assert run("-m", "jobs.analyze").returncode == 2


def test_needs_neither_ray_nor_torch():
    code = "import sys, jobs.analyze; print({'ray', 'torch', 'matplotlib'} & set(sys.modules))"
    assert run("-c", code).stdout.strip() == "set()"
