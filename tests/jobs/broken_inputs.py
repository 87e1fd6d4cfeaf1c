"""Commands that work, and a folder with wrong inputs that a user may pass to them instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.engine.drawn_images import draw_images, write_random_checkpoint
from tests.outputs import make_object, write_annotations, write_detections, write_proposals
from tests.sources.small_datasets import coco_content, write_voc

BOX = (10, 10, 40, 40)
PROPOSE = "propose --manifest {w}/m.parquet --output {w}/out"
DETECT = "detect --manifest {w}/m.parquet --checkpoint {w}/checkpoint --output {w}/out"
SCORE = "analyze detections --detections {w}/detections --manifest {w}/m.parquet --output {w}/out"
COMPARE = "analyze compare --detections {w}/detections {w}/detections --manifest {w}/m.parquet"
COMPARE += " --output {w}/out"
RECALL = "analyze proposals --proposals {w}/proposals --manifest {w}/m.parquet --output {w}/out"
TRAIN = "train --manifest {w}/m.parquet --proposals {w}/proposals --recipe tiny --output {w}/out"
VOC = "prepare voc --root {w}/voc --split train --output {w}/out"
COCO = "prepare coco --annotations {w}/coco.json --images {w}/voc --output {w}/out"
FOLDER = "prepare folder --images {w}/images --output {w}/out"


def write_world(root: Path) -> None:
    """Fill a folder with valid and broken inputs of each kind; `{w}` in the commands is this folder."""
    paths = draw_images(root / "images", 4)
    uri_by_image = {path.stem: str(path) for path in paths}
    objects = {name: [make_object("cat", BOX)] for name in uri_by_image}
    good = write_annotations(
        f"{root}/m.parquet", objects, ("cat",), size=(80, 60), uris=uri_by_image
    )
    _write_bad_manifests(root, Path(good).read_bytes())
    write_voc(root / "voc")
    (root / "coco.json").write_text(json.dumps(coco_content()))
    (root / "folder").mkdir()
    (root / "noimages").mkdir()
    (root / "noimages" / "text.jpg").write_text("text")
    write_proposals(f"{root}/proposals", good, dict.fromkeys(uri_by_image, (BOX,)))
    write_proposals(f"{root}/incomplete", good, dict.fromkeys(uri_by_image, (BOX,)))
    next((root / "incomplete").glob("part-*")).unlink()
    write_proposals(f"{root}/fewer", good, dict.fromkeys(("000", "001"), (BOX,)))
    write_proposals(f"{root}/others", f"{root}/other.parquet", {f"o{i}": [BOX] for i in range(4)})
    write_detections(f"{root}/detections", good, dict.fromkeys(uri_by_image, ()), ("cat",))
    write_detections(f"{root}/fewer_detections", good, {"000": ()}, ("cat",))
    others = dict.fromkeys((f"o{i}" for i in range(4)), ())
    write_detections(f"{root}/others_detections", f"{root}/other.parquet", others, ("cat",))
    rows = {image: [("cat", 0.5, BOX)] for image in uri_by_image}
    write_detections(f"{root}/cut_detections", good, rows, ("cat",))
    part = sorted((root / "cut_detections").glob("part-*"))[1]
    part.write_bytes(part.read_bytes()[:-100])
    record = root / "detections" / "run.json"
    record.write_text(record.read_text().replace('"test"', '"detect"'))
    _write_checkpoints(root)
    flat = {name: [make_object("cat", (10, 10, 40, 10))] for name in uri_by_image}
    write_annotations(f"{root}/flat.parquet", flat, ("cat",), size=(80, 60), uris=uri_by_image)
    write_annotations(
        f"{root}/empty.parquet", dict.fromkeys(uri_by_image, ()), ("cat",), uris=uri_by_image
    )
    dogs = {name: [make_object("dog", BOX)] for name in uri_by_image}
    moved = {name: f"{root}/moved/{name}.png" for name in uri_by_image}
    write_annotations(f"{root}/moved.parquet", objects, ("cat",), size=(80, 60), uris=moved)
    write_annotations(f"{root}/dogs.parquet", dogs, ("dog",), size=(80, 60), uris=uri_by_image)


def _write_bad_manifests(root: Path, good: bytes) -> None:
    write_annotations(f"{root}/other.parquet", {f"o{i}": [] for i in range(4)}, ("cat",))
    write_annotations(f"{root}/unlabelled.parquet", {f"{i:03d}": None for i in range(4)})
    (root / "zero.parquet").write_bytes(b"")
    (root / "garbage.parquet").write_bytes(b"PAR1 garbage PAR1")
    (root / "cut.parquet").write_bytes(good[: len(good) // 2])
    (root / "page.parquet").write_bytes(good[:4] + bytes(200) + good[204:])
    pq.write_table(pa.table({"image_id": ["a"]}), root / "columns.parquet")
    pq.write_table(pa.table({"image_id": [1], "uri": ["a"]}), root / "types.parquet")
    pq.write_table(schema.MANIFEST.empty_table(), root / "rows.parquet")
    pq.write_table(pa.table({"image_id": ["a", "b"], "uri": ["a", None]}), root / "null.parquet")
    pq.write_table(pa.table({"image_id": ["a", "a"], "uri": ["a", "b"]}), root / "twice.parquet")
    pq.write_table(pa.table({"image_id": [None, "b"], "uri": ["a", "b"]}), root / "noid.parquet")
    latin = pa.array([b"caf\xe9", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image_id": ["a", "b"], "uri": latin}), root / "latin.parquet")
    for name, classes in (("commas", b"cat,dog"), ("five", b"5"), ("mixed", b'["cat", 5]')):
        classes_schema = schema.MANIFEST.with_metadata({b"classes": classes})
        pq.write_table(classes_schema.empty_table(), root / f"{name}.parquet")
    write_annotations(f"{root}/zebras.parquet", {"a": [make_object("zebra", BOX)]}, ("zebra",))
    for name, label in (("a", "cat"), ("b", "dog")):
        rows = [ManifestRow(name, name, 9, 9, ())]
        write_manifest(f"{root}/disagree/{name}.parquet", rows, (label,))


def _write_checkpoints(root: Path) -> None:
    good = Path(write_random_checkpoint(root))
    record = json.loads((good / "model.json").read_text())
    broken_records = {
        "json": "{",
        "fields": json.dumps(record | {"architecture": {"backbone": 7}}),
        "version": json.dumps(record | {"version": 9}),
    }
    for name, text in broken_records.items():
        shutil.copytree(good, root / name)
        (root / name / "model.json").write_text(text)
    shutil.copytree(good, root / "truncated")
    shutil.copytree(good, root / "weightless")
    weights = (good / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(weights[:1000])
    (root / "weightless" / "model.safetensors").unlink()
