"""The prepare job: a manifest from each source, one line of counts, and errors before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.prepare import main
from jobs.prepare_options import (
    Coco,
    Cvat,
    Folder,
    Img2dataset,
    Labelme,
    Labelstudio,
    Lvis,
    Openimages,
    Parquet,
    Prepare,
    Voc,
    Webdataset,
    Yolo,
)
from pipeline.errors import (
    InvalidBox,
    InvalidConfiguration,
    StorageError,
    TooManyInvalidImages,
    UnreadableDataset,
)
from pipeline.manifests import open_manifest
from pipeline.shards import cut_manifest
from tests.sources.containers import encode_image, write_image_table, write_tar
from tests.sources.small_datasets import coco_content, voc_xml, write_coco, write_image, write_voc
from tests.sources.test_cvat import BOX, write_cvat
from tests.sources.test_img2dataset import write_shard
from tests.sources.test_labelme import DOG, write_labelme
from tests.sources.test_labelstudio import region, task, write_export
from tests.sources.test_lvis import lvis_content, write_lvis
from tests.sources.test_openimages import write_openimages
from tests.sources.test_yolo import write_yolo

REPOSITORY = Path(__file__).parents[2]


def test_prepare_voc_prints_its_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_voc(tmp_path / "voc")
    target = f"{tmp_path}/out/train.parquet"
    main(Voc(root=str(root), split="train", output=target))
    assert capsys.readouterr().out == (
        f"2 images, 2 objects (dog 1, cat 1), 2 classes: {target}\nleft out or repaired: nothing\n"
    )
    manifest = open_manifest(target)
    assert (manifest.rows, manifest.classes) == (2, ("cat", "dog"))


def test_voc_with_every_option_rejects_a_split_without_valid_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_voc(tmp_path / "VOC2012")
    options = Voc(
        root=str(tmp_path),
        year=2012,
        split="test",
        classes=("dog", "cat"),
        unlabelled=True,
        skip_invalid=True,
        output=str(tmp_path / "out"),
    )
    (tmp_path / "VOC2012" / "JPEGImages" / "c.jpg").write_bytes(b"text")
    with pytest.raises(UnreadableDataset, match="no images"):
        main(options)
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    assert capsys.readouterr().out == ""


def test_coco_is_prepared_into_a_memory_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = write_coco(tmp_path, coco_content())
    target = f"memory://{tmp_path.name}/coco"
    main(Coco(annotations=annotations, images=images, output=target))
    assert "2 objects (dog 1, person 1, crowd: 1), 2 classes" in capsys.readouterr().out
    assert open_manifest(target).category_ids == (1, 18)


def test_a_damaged_image_of_a_folder_is_rejected_or_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_voc(tmp_path / "voc") / "JPEGImages"
    (images / "d.jpg").write_bytes(b"")
    output = str(tmp_path / "manifest.parquet")
    (images / "notes.txt").write_text("")
    with pytest.raises(TooManyInvalidImages, match=r"1 of 4 images are invalid.*d\.jpg"):
        main(Folder(images=str(images), output=output))
    assert not Path(output).exists()
    main(Folder(images=str(images), output=output, skip_invalid=True))
    assert capsys.readouterr().out == (
        f"3 images, unlabelled: {output}\n"
        "left out or repaired: 1 image invalid: left out; 1 file left out (.txt 1)\n"
    )
    assert open_manifest(output).read(0, 3).column("objects").null_count == 3


def test_an_unwritable_output_fails_before_the_dataset_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        main(Folder(images=str(tmp_path / "gone"), output=str(tmp_path / "file" / "m.parquet")))


def test_an_error_leaves_an_earlier_manifest_unchanged(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    options = Voc(root=str(root), split="train", output=f"{tmp_path}/m.parquet")
    main(options)
    before = (tmp_path / "m.parquet").read_bytes()
    (root / "Annotations" / "b.xml").write_text(voc_xml("b.jpg", ("dog", 9, 9, 1, 1)))
    with pytest.raises(InvalidBox, match="inverted"):
        main(replace(options, strict=True))
    (root / "Annotations" / "b.xml").write_text("<annotation>")
    with pytest.raises(TooManyInvalidImages, match="1 of 2 images"):
        main(options)
    assert (tmp_path / "m.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.parquet*")] == ["m.parquet"]


def test_impossible_options_are_rejected(tmp_path: Path) -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidConfiguration, match="--max-invalid is"):
            Folder(images=str(tmp_path), output=str(tmp_path), max_invalid=share)
    with pytest.raises(InvalidConfiguration, match=r"--strict .*--skip-invalid"):
        Folder(images=str(tmp_path), output=str(tmp_path), strict=True, skip_invalid=True)


@pytest.mark.parametrize("option", ["root", "images"])
def test_a_password_never_reaches_a_manifest(tmp_path: Path, option: str) -> None:
    uri, output = "http://alice:canary@127.0.0.1:9/data", f"{tmp_path}/m.parquet"
    options = (
        Folder(images=uri, output=output)
        if option == "images"
        else Voc(root=uri, split="train", output=output)
    )
    with pytest.raises(InvalidConfiguration, match="storage-options") as caught:
        main(options)
    assert "canary" not in str(caught.value)
    assert not Path(output).exists()


def test_applied_rotations_are_recorded(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 9)).save(images / "a.jpg", exif=exif)
    digests = set()
    for mode, size in (("ignore", (12, 9)), ("apply", (9, 12))):
        output = f"{tmp_path}/{mode}.parquet"
        main(Folder(images=str(images), output=output, exif=mode))  # type: ignore[arg-type]
        manifest = open_manifest(output)
        row = manifest.read(0, 1).to_pylist()[0]
        assert (manifest.exif, (row["width"], row["height"])) == (mode, size)
        digests.add(cut_manifest(manifest, 1).dataset)
    assert len(digests) == 2


def test_a_fifo_among_the_images_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_voc(tmp_path / "voc") / "JPEGImages"
    os.mkfifo(images / "fifo.jpg")
    main(Folder(images=str(images), output=f"{tmp_path}/m.parquet"))
    assert "left out or repaired: 1 file left out (special 1)" in capsys.readouterr().out


def test_names_with_colons_are_files(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_image(images / "cam::01.jpg")
    write_image(images / "zip::b?.jpg")
    main(Folder(images=str(images), output=f"{tmp_path}/m.parquet"))
    assert open_manifest(f"{tmp_path}/m.parquet").rows == 2


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "Annotations" / "a.xml").write_text(voc_xml("a.jpg", ("café", 1, 1, 9, 9)))
    target = f"{tmp_path}/é.parquet"
    process = _job(
        "voc", "--root", str(root), "--split", "train", "--output", target, PYTHONIOENCODING="ascii"
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "(caf\\xe9 1)" in process.stdout


@pytest.mark.parametrize("output", ["out", "out/manifest.parquet"])
def test_a_folder_output_gets_a_manifest_parquet(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_voc(tmp_path / "voc")
    main(Voc(root=str(root), split="train", output=f"{tmp_path}/{output}"))
    assert capsys.readouterr().out.splitlines()[0].endswith(f": {tmp_path}/out/manifest.parquet")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.parquet"]


def _job(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/prepare.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )


def test_prepare_runs_as_a_script(tmp_path: Path) -> None:
    root = str(write_voc(tmp_path / "voc"))
    target = f"{tmp_path}/out"
    process = _job(
        "voc", "--root", root, "--split", "train", "--classes", "dog", "cat", "--output", target
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("2 images, 2 objects")
    assert open_manifest(target).classes == ("dog", "cat")

    rejected = _job("voc", "--root", root, "--split", "trian", "--output", target)
    assert rejected.returncode == 2
    assert rejected.stdout == ""
    assert rejected.stderr == (
        f"error: VOC list ImageSets/Main/trian.txt does not exist in {root}; lists here: test, train\n"
    )
    assert _job("voc", "--root", root).returncode == 2


@pytest.mark.parametrize(
    ("source", "images"),
    [
        ("yolo", {"images/train/a.jpg": 2, "images/train/b.jpg": 0}),
        ("openimages", {"000a": 2, "000b": 1}),
        ("lvis", {"9": 1, "4": 0}),
        ("cvat", {"a.jpg": 1, "sub/b.jpg": 0}),
        ("labelme", {"a.jpg": 1, "b.png": 0}),
        ("labelstudio", {"a.jpg": 1, "sub/b.jpg": 0}),
    ],
)
def test_every_annotation_format_becomes_a_manifest(
    tmp_path: Path, source: str, images: dict[str, int]
) -> None:
    output = f"{tmp_path}/out/manifest.parquet"
    main(_write_source(source, tmp_path / "data", output))
    manifest = open_manifest(output)
    rows = manifest.read(0, manifest.rows).to_pylist()
    assert {row["image_id"]: len(row["objects"]) for row in rows} == images
    assert all((row["width"], row["height"]) == (40, 30) for row in rows)
    assert manifest.classes


def _write_source(source: str, root: Path, output: str) -> Prepare:
    if source == "yolo":
        return Yolo(root=str(write_yolo(root)), split="train", output=output)
    if source == "openimages":
        images, boxes, classes = write_openimages(root)
        return Openimages(images=images, boxes=boxes, classes=classes, output=output)
    if source == "lvis":
        annotations, images = write_lvis(root, lvis_content())
        return Lvis(annotations=annotations, images=images, output=output)
    if source == "cvat":
        annotations, images = write_cvat(root, BOX)
        return Cvat(annotations=annotations, images=images, output=output)
    if source == "labelme":
        return Labelme(root=str(write_labelme(root, DOG)), output=output)
    annotations, images = write_export(root, task("a.jpg", region()), task("sub/b.jpg"))
    return Labelstudio(annotations=annotations, images=images, output=output)


def test_a_csv_that_is_read_is_never_written(tmp_path: Path) -> None:
    images, boxes, _ = write_openimages(tmp_path)
    for option in ("boxes", "classes"):
        options = Openimages(images=images, boxes=boxes, output=f"{tmp_path}/boxes.parquet")
        options = replace(options, **{option: f"{tmp_path}/boxes.parquet"})
        with pytest.raises(InvalidConfiguration, match=f"is the --{option}"):
            main(options)


def test_images_in_containers_are_prepared_where_they_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"x.jpg": encode_image(1), "y.jpg": encode_image(2)})
    table = write_image_table(tmp_path / "data" / "b.parquet", [encode_image(3)])
    write_shard(tmp_path / "c", "parquet")
    target = f"{tmp_path}/m.parquet"
    sources = (
        Webdataset(tars=(str(tar),), output=target),
        Parquet(data=(str(table),), output=target),
        Img2dataset(root=f"{tmp_path}/c", output=target),
    )
    for options, images in zip(sources, (2, 1, 3), strict=True):
        main(options)
        assert capsys.readouterr().out.startswith(f"{images} image")
        assert (open_manifest(target).has_members, open_manifest(target).rows) == (True, images)


def test_a_manifest_is_not_written_among_the_data(tmp_path: Path) -> None:
    table = write_image_table(tmp_path / "data" / "b.parquet", [encode_image(3)])
    before = table.read_bytes()
    with pytest.raises(InvalidConfiguration, match=r"b\.parquet is the --data"):
        main(Parquet(data=(str(tmp_path / "data"),), output=str(table)))
    with pytest.raises(InvalidConfiguration, match=r"lies in the --data .* choose another folder"):
        main(Parquet(data=(str(tmp_path / "data"),), output=str(tmp_path / "data")))
    assert table.read_bytes() == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["b.parquet"]
