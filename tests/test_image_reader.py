"""Reading images out of containers: the right bytes, few requests, never another image's pixels."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import image_reader, manifests, schema, shards, storage
from pipeline.errors import ChangedContainer, MissingObject, UnreadableDataset
from pipeline.image_members import Member, read_members
from pipeline.image_reader import ImageReader, read_image
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.parquet_cells import CellReader
from pipeline.sources.parquet_images import open_parquet_images
from pipeline.sources.webdataset import open_webdataset
from tests.sources.containers import encode_image, write_image_table, write_tar

IMAGES = {f"{number}.jpg": encode_image(number) for number in range(6)}


@pytest.fixture
def rows(tmp_path: Path) -> list[ManifestRow]:
    write_tar(tmp_path / "a.tar", IMAGES)
    return list(open_webdataset([f"{tmp_path}/a.tar"]).rows)


def forget_checks() -> None:
    image_reader._checked.clear()


def test_neighbours_share_one_request(
    rows: list[ManifestRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[int] = []
    read_span = storage.read_span

    def count(uri: str, start: int, end: int) -> bytes:
        spans.append(end - start)
        return read_span(uri, start, end)

    monkeypatch.setattr(storage, "read_span", count)
    reader = ImageReader([(row.uri, row.member) for row in rows])
    assert [reader.read(index) for index in range(6)] == list(IMAGES.values())
    assert len(spans) == 1
    monkeypatch.setattr(image_reader, "LARGEST_SPAN", spans[0] // 2)
    assert ImageReader([(row.uri, row.member) for row in rows]).read(0) == IMAGES["0.jpg"]
    assert spans[1] <= spans[0] // 2
    monkeypatch.setattr(image_reader, "LARGEST_GAP", 0)
    apart = ImageReader([(rows[index].uri, rows[index].member) for index in (0, 2, 1)])
    assert [apart.read(index) for index in (0, 1, 2)] == [IMAGES[f"{n}.jpg"] for n in (0, 2, 1)]


def test_a_changed_tar_file_gives_no_other_pixels(tmp_path: Path, rows: list[ManifestRow]) -> None:
    read_image(rows[1].uri, rows[1].member)
    repacked = {name: IMAGES[name] for name in reversed(IMAGES)}
    write_tar(tmp_path / "a.tar", {"longer-name.jpg": encode_image(9, 80, 60), **repacked})
    # Within the minute in which the file is not looked up again, its headers show the change.
    with pytest.raises(ChangedContainer, match=r"a\.tar: bytes .* changed since the manifest"):
        read_image(rows[1].uri, rows[1].member)
    forget_checks()
    with pytest.raises(ChangedContainer, match=r"a\.tar changed since the manifest was made"):
        read_image(rows[1].uri, rows[1].member)
    (tmp_path / "a.tar").unlink()
    forget_checks()
    with pytest.raises(MissingObject, match=r"a\.tar"):
        read_image(rows[1].uri, rows[1].member)


def test_cells_are_read_one_row_group_at_a_time(tmp_path: Path) -> None:
    images = [encode_image(number) for number in range(5)]
    path = str(write_image_table(tmp_path / "a.parquet", images, row_group_size=2))
    reader = CellReader(cached_bytes=0)
    assert [reader.read(path, None, "image.bytes", row) for row in (0, 1, 4, 3)] == [
        images[row] for row in (0, 1, 4, 3)
    ]
    assert len(reader._groups) == 1
    assert reader.read(path, None, "image.bytes", 5) is None
    with pytest.raises(UnreadableDataset, match=r"has no column photo; it has image\.bytes"):
        reader.read(path, None, "photo", 0)


def test_a_changed_parquet_file_is_noticed(tmp_path: Path) -> None:
    path = write_image_table(tmp_path / "a.parquet", [encode_image(1), encode_image(2)])
    (_, row) = open_parquet_images([str(path)]).rows
    assert read_image(row.uri, row.member) == encode_image(2)
    write_image_table(path, [encode_image(2)])
    forget_checks()
    with pytest.raises(ChangedContainer, match=r"a\.parquet changed since the manifest was made"):
        read_image(row.uri, row.member)


def test_manifests_and_shard_keys_hold_the_place(tmp_path: Path, rows: list[ManifestRow]) -> None:
    uri = f"{tmp_path}/m.parquet"
    write_manifest(uri, rows, None, has_members=True)
    manifest = open_manifest(uri)
    assert manifest.has_members
    assert schema.read_metadata(pq.read_schema(uri), schema.VERSION_KEY) == schema.MEMBERS_VERSION
    table = manifest.read(2, 3, manifest.image_columns)
    assert read_members(table, uri, 2) == [row.member for row in rows[2:5]]
    cut = shards.cut_manifest(manifest, 4)
    ids, image_uris = [row.image_id for row in rows], [row.uri for row in rows]
    members = [row.member for row in rows]
    assert cut.digests[0] == shards.digest_images(ids[:4], image_uris[:4], members[:4])
    assert cut.digests[0] != shards.digest_images(ids[:4], image_uris[:4])
    moved = [*members[:3], Member(offset=0, length=1, header_checksum=1)]
    assert cut.digests[0] != shards.digest_images(ids[:4], image_uris[:4], moved)


def test_a_manifest_that_lost_its_metadata_keeps_the_place(
    tmp_path: Path, rows: list[ManifestRow]
) -> None:
    uri = f"{tmp_path}/m.parquet"
    write_manifest(uri, rows, None, has_members=True)
    pq.write_table(pq.ParquetFile(uri).read().replace_schema_metadata(None), uri)
    assert open_manifest(uri).has_members
    table = pq.ParquetFile(uri).read().drop_columns(["etag"])
    metadata = {schema.VERSION_KEY: str(schema.MEMBERS_VERSION)}
    pq.write_table(table.replace_schema_metadata(metadata), uri)
    with pytest.raises(UnreadableDataset, match="no column etag, which says where an image lies"):
        open_manifest(uri)


@pytest.mark.parametrize(
    "member",
    [
        Member(offset=5),
        Member(offset=5, length=5),
        Member(offset=-1, length=5, header_checksum=1),
        Member(row=1),
        Member(offset=1, length=2, header_checksum=1, row=3, image_column="image"),
        Member(etag="x"),
        Member(failure="gone", row=0, image_column="image"),
    ],
)
def test_half_a_place_is_an_error(tmp_path: Path, member: Member) -> None:
    uri = f"{tmp_path}/m.parquet"
    row = ManifestRow("a", "a.tar", None, None, None, member=member)
    write_manifest(uri, [row], None, has_members=True)
    with pytest.raises(UnreadableDataset, match=r"m\.parquet: row 0 has .*; expected offset"):
        shards.cut_manifest(open_manifest(uri), 1)


def test_files_of_their_own_stay_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(IMAGES["1.jpg"])
    assert read_image(f"{tmp_path}/a.jpg") == IMAGES["1.jpg"]
    uri = f"{tmp_path}/m.parquet"
    write_manifest(uri, [ManifestRow("a", f"{tmp_path}/a.jpg", 40, 30, None)], None)
    assert not open_manifest(uri).has_members
    assert manifests.open_manifest(uri).image_columns == ("image_id", "uri", "width", "height")
