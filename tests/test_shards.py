from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema, shards, storage, uris
from pipeline.errors import MismatchedProposals, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.run_record import RunRecord

PAIRS = [(f"p{i}", f"/data/{i}.jpg") for i in range(11)]


def _manifest(place: Path, pairs: list[tuple[str, str]] = PAIRS) -> Manifest:
    uri = f"{place}/manifest.parquet"
    write_manifest(uri, (ManifestRow(i, u, 1, 1, None) for i, u in pairs), None)
    return open_manifest(uri)


def test_shards_cover_the_manifest_once(tmp_path: Path) -> None:
    planned = shards.cut_manifest(_manifest(tmp_path), 4).build_shards("run")
    assert [(s.ordinal, s.first_row, s.rows) for s in planned] == [(0, 0, 4), (1, 4, 4), (2, 8, 3)]
    assert len({s.key for s in planned}) == 3
    assert planned[1].part_name == f"part-000001-{planned[1].key}.parquet"


def test_the_dataset_digest_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    digests = {shards.cut_manifest(manifest, sizes).dataset for sizes in (1, 3, 100, [5, 6])}
    assert len(digests) == 1
    assert shards.cut_manifest(manifest, 3, limit=10).dataset not in digests


def test_another_orientation_is_another_dataset(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    turned = replace(manifest, exif="apply")
    assert cut_digest(manifest) != cut_digest(turned)


def cut_digest(manifest: Manifest) -> str:
    return shards.cut_manifest(manifest, 4).dataset


def test_a_shard_of_the_same_images_keeps_its_key(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    by_size = shards.cut_manifest(manifest, 4).build_shards("run")
    assert shards.cut_manifest(manifest, [4, 7]).build_shards("run")[0].key == by_size[0].key
    assert shards.cut_manifest(manifest, 4, limit=8).build_shards("run") == by_size[:2]
    ids, uris = zip(*PAIRS[4:8], strict=True)
    assert shards.compute_shard_key("run", shards.digest_images(ids, uris)) == by_size[1].key


def test_keys_change_with_run_ids_and_uris(tmp_path: Path) -> None:
    def keys(pairs: list[tuple[str, str]], run: str = "run") -> list[str]:
        return [s.key for s in shards.cut_manifest(_manifest(tmp_path, pairs), 6).build_shards(run)]

    usual = keys(PAIRS)
    assert not set(keys(PAIRS, "other run")) & set(usual)
    for changed in (("q", PAIRS[2][1]), (PAIRS[2][0], "/elsewhere/2.jpg")):
        first, second = keys([*PAIRS[:2], changed, *PAIRS[3:]])
        assert first != usual[0]
        assert second == usual[1]
    assert keys([PAIRS[1], PAIRS[0], *PAIRS[2:]])[0] != usual[0]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4, unique=True), st.data())
def test_different_images_have_different_digests(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Each text comes after its length, so moving characters between texts changes the digest."""
    other = data.draw(st.lists(st.tuples(st.text(), st.text()), max_size=4))
    same = shards.digest_images(
        [i for i, _ in pairs], [u for _, u in pairs]
    ) == shards.digest_images([i for i, _ in other], [u for _, u in other])
    assert same == (pairs == other)


def test_moving_a_character_from_id_to_uri_changes_the_digest() -> None:
    assert shards.digest_images(["ab"], ["c"]) != shards.digest_images(["a"], ["bc"])
    assert shards.digest_images(["1:a"], [""]) != shards.digest_images(["1"], [":a"])


def test_an_earlier_cut_of_more_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        MismatchedProposals, match="has 11 images here, but the cut to follow has 12"
    ):
        shards.cut_manifest(_manifest(tmp_path), [6, 6])


def test_null_ids_and_uris_are_rejected(tmp_path: Path) -> None:
    for name in ("image_id", "uri"):
        columns = {"image_id": ["a", "b"], "uri": ["/a", "/b"]}
        columns[name] = ["x", None]
        pq.write_table(pa.table(columns), tmp_path / "m.parquet")
        with pytest.raises(UnreadableDataset, match=f"row 1 has a null {name}"):
            shards.cut_manifest(open_manifest(f"{tmp_path}/m.parquet"), 2)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_id_that_occurs_twice_is_rejected_in_any_shard(tmp_path: Path, size: int) -> None:
    pq.write_table(
        pa.table({"image_id": ["a", "b", "a"], "uri": ["/a", "/b", "/c"]}), tmp_path / "m.parquet"
    )
    with pytest.raises(UnreadableDataset, match=r"'a' occurs twice, in rows 0 and 2$"):
        shards.cut_manifest(open_manifest(f"{tmp_path}/m.parquet"), size)
    assert shards.cut_manifest(open_manifest(f"{tmp_path}/m.parquet"), size, limit=2).images == 2


def test_the_shard_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    planned = shards.cut_manifest(_manifest(tmp_path), 4).build_shards("run")
    assert shards.read_shard_table(str(tmp_path / "out")) is None
    shards.write_shard_table(str(tmp_path / "out"), planned)
    assert shards.read_shard_table(str(tmp_path / "out")) == planned


@pytest.mark.parametrize("content", ["bytes", "columns"])
def test_a_damaged_shard_table_is_rejected(tmp_path: Path, content: str) -> None:
    if content == "bytes":
        (tmp_path / "shards.parquet").write_bytes(b"PAR1 not really")
    else:
        pq.write_table(pa.table({"ordinal": [1]}), tmp_path / "shards.parquet")
    with pytest.raises(
        UnreadableDataset, match=r"shards\.parquet (is not readable Parquet|has no column key)"
    ):
        shards.read_shard_table(str(tmp_path))


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (0, "first_row", 2**62),
        (1, "first_row", 5),
        (2, "first_row", -1),
        (1, "ordinal", 7),
        (2, "ordinal", 1),
        (0, "rows", 0),
        (1, "rows", -4),
        (1, "rows", 2**62),
        (2, "key", "../../../etc/passwd00000"),
        (0, "key", ""),
    ],
)
def test_a_shard_table_with_gaps_overlaps_or_impossible_values_is_rejected(
    tmp_path: Path, row: int, column: str, value: object
) -> None:
    shards.write_shard_table(
        str(tmp_path), shards.cut_manifest(_manifest(tmp_path), 4).build_shards("run")
    )
    path = tmp_path / "shards.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(UnreadableDataset, match=r"shards\.parquet is damaged: entry \d"):
        shards.read_shard_table(str(tmp_path))


@pytest.fixture
def output(tmp_path: Path) -> tuple[str, list[shards.Shard]]:
    """A complete output of three parts, each with the ordinals of its rows."""
    out = f"{tmp_path}/out"
    planned = shards.cut_manifest(_manifest(tmp_path), 4).build_shards("run")
    shards.write_shard_table(out, planned)
    for shard in planned:
        numbers = list(range(shard.first_row, shard.first_row + shard.rows))
        table = pa.table({"row": numbers, "twice": [2 * n for n in numbers]})
        storage.put(uris.join(out, shard.part_name), shards.encode_part(table))
    return out, planned


def test_parts_are_read_in_order(output: tuple[str, list[shards.Shard]]) -> None:
    parts = shards.open_parts(output[0])
    assert parts.rows == 11
    assert parts.read_schema().names == ["row", "twice"]
    assert [
        n for table in parts.read_tables(["row"]) for n in table.column("row").to_pylist()
    ] == list(range(11))
    assert parts.read(output[1][2]).column("twice").to_pylist() == [16, 18, 20]


def test_a_listing_separates_committed_parts_from_strays(
    output: tuple[str, list[shards.Shard]],
) -> None:
    out, planned = output
    stray = f"part-000001-{'0' * 24}.parquet"
    for name in (stray, "summary.json", ".part-000001-x.partial", "part-1-abc.parquet"):
        storage.put(uris.join(out, name), b"")
    storage.remove(uris.join(out, planned[0].part_name))
    listing = shards.list_parts(out, planned)
    assert listing.committed == {1, 2}
    assert listing.strays == (stray,)


def test_an_unfinished_output_is_rejected(
    output: tuple[str, list[shards.Shard]], tmp_path: Path
) -> None:
    out, planned = output
    storage.remove(uris.join(out, planned[1].part_name))
    with pytest.raises(UnreadableDataset, match="lacks 1 of 3 shards"):
        shards.open_parts(out)
    with pytest.raises(UnreadableDataset, match=r"holds no shards\.parquet"):
        shards.open_parts(str(tmp_path))


def test_parts_that_a_store_does_not_list_yet_are_looked_up_by_name(
    output: tuple[str, list[shards.Shard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, planned = output
    monkeypatch.setattr(storage, "list_names", lambda uri: [planned[0].part_name])
    assert shards.open_parts(folder).shards == tuple(planned)
    partial = shards.open_parts(folder, may_lack_shards=True)
    assert partial.shards == (planned[0],)
    storage.remove(uris.join(folder, planned[1].part_name))
    with pytest.raises(UnreadableDataset, match="lacks"):
        shards.open_parts(folder)


def test_damaged_parts_are_rejected(output: tuple[str, list[shards.Shard]]) -> None:
    out, planned = output
    uri = uris.join(out, planned[0].part_name)
    whole = storage.read(uri)
    storage.put(uri, whole[: len(whole) // 2])
    with pytest.raises(UnreadableDataset, match=f"{planned[0].part_name} is not readable Parquet"):
        shards.open_parts(out).read(planned[0])
    with pytest.raises(UnreadableDataset, match=f"{planned[0].part_name} is not readable Parquet"):
        shards.open_parts(out).read_schema()
    storage.put(uri, shards.encode_part(pa.table({"row": [1]})))
    with pytest.raises(UnreadableDataset, match="has 1 rows, but its shard has 4"):
        shards.open_parts(out).read(planned[0])


def _set_version(path: Path, version: int) -> None:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": str(version)}), path)


def test_a_shard_table_of_a_newer_schema_is_rejected(
    output: tuple[str, list[shards.Shard]],
) -> None:
    path = Path(output[0]) / "shards.parquet"
    assert schema.read_metadata(pq.read_schema(path), "schema_version") == schema.VERSION
    _set_version(path, schema.VERSION + 1)
    with pytest.raises(UnreadableDataset, match=r"shards\.parquet has schema version 2"):
        shards.open_parts(output[0])


def test_a_part_of_a_newer_schema_is_rejected(output: tuple[str, list[shards.Shard]]) -> None:
    out, planned = output
    parts = shards.open_parts(out)
    _set_version(Path(out) / planned[0].part_name, schema.VERSION + 1)
    expected = rf"{planned[0].part_name} has schema version 2, and this release reads"
    with pytest.raises(UnreadableDataset, match=expected):
        parts.read_schema()
    with pytest.raises(UnreadableDataset, match=expected):
        parts.read(planned[0], ["row"])
    assert len(parts.read(planned[1])) == 4  # written without a version, as by earlier releases


def test_a_part_may_have_another_number_of_rows_than_its_shard_has_images(tmp_path: Path) -> None:
    planned = shards.cut_manifest(_manifest(tmp_path), 4).build_shards("f")
    table = pa.table({"row": range(7)})
    shards.put_part(str(tmp_path), planned[0], table, one_row_per_image=False)
    parts = shards.Parts(str(tmp_path), (planned[0],), one_row_per_image=False)
    assert parts.read(planned[0]).equals(table)
    with pytest.raises(UnreadableDataset, match="it has 7 rows, but its shard has 4"):
        shards.Parts(str(tmp_path), (planned[0],)).read(planned[0])
    data = (tmp_path / planned[0].part_name).read_bytes()
    (tmp_path / planned[1].part_name).write_bytes(data)
    with pytest.raises(UnreadableDataset, match="the part of another shard"):
        shards.Parts(str(tmp_path), (planned[1],), one_row_per_image=False).read(planned[1])


def test_an_unfinished_output_is_opened_only_if_asked(
    output: tuple[str, list[shards.Shard]],
) -> None:
    out, planned = output
    (Path(out) / planned[0].part_name).unlink()
    with pytest.raises(UnreadableDataset, match="lacks 1 of"):
        shards.open_parts(out)
    assert shards.open_parts(out, may_lack_shards=True).shards == tuple(planned[1:])
    for shard in planned[1:]:
        (Path(out) / shard.part_name).unlink()
    with pytest.raises(UnreadableDataset, match="lacks"):
        shards.open_parts(out, may_lack_shards=True)


def test_a_part_of_another_shard_or_run_is_rejected_by_readers(tmp_path: Path) -> None:
    out, record = f"{tmp_path}/out", RunRecord("propose", {"seed": 1})
    planned = shards.cut_manifest(_manifest(tmp_path), 4).build_shards(record.fingerprint)
    record.write(out)
    shards.write_shard_table(out, planned)

    def put(shard: shards.Shard, fingerprint: str = record.fingerprint) -> None:
        metadata = schema.add_metadata(pa.schema([]), {"fingerprint": fingerprint}).metadata
        table = pa.table({"row": range(shard.rows)}).replace_schema_metadata(metadata)
        shards.put_part(out, shard, table)

    for shard in planned:
        put(shard)
    parts = shards.open_parts(out)
    first, second = (Path(out) / shard.part_name for shard in planned[:2])
    assert len(parts.read(planned[0])) == 4
    first.write_bytes(second.read_bytes())
    for read in (lambda: parts.read(planned[0]), parts.read_schema):
        with pytest.raises(UnreadableDataset, match="the part of another shard; rerun the job"):
            read()
    put(planned[0], RunRecord("propose", {"seed": 2}).fingerprint)
    with pytest.raises(UnreadableDataset, match="a part of another run; rerun the job"):
        parts.read(planned[0])
    first.write_bytes(b"")
    with pytest.raises(UnreadableDataset, match="is not readable Parquet"):
        parts.read(planned[0])
    (Path(out) / "run.json").write_text("{}")
    with pytest.raises(UnreadableDataset, match=r"run\.json is damaged"):
        shards.open_parts(out)


def test_floats_of_a_flat_table_have_no_dictionary() -> None:
    scores = np.random.default_rng(0).random(1000).astype(np.float32)
    flat = pa.table({"label": ["cat", "dog"] * 500, "score": scores})
    nested = pa.table({"boxes": [[{"label": "cat", "x1": 0.5}]] * 1000})
    for table, expected in (
        (flat, {"label": True, "score": False}),
        (nested, {"boxes.list.element.label": True, "boxes.list.element.x1": True}),
    ):
        file = pq.ParquetFile(io.BytesIO(shards.encode_part(table)))
        assert file.read().equals(table)
        group = file.metadata.row_group(0)
        columns = [group.column(index) for index in range(group.num_columns)]
        assert {c.path_in_schema: c.has_dictionary_page for c in columns} == expected
