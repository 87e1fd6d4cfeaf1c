import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.side_table import MAX_VALUES, read_side_table
from pipeline.errors import StorageError, UnreadableDataset

IDS = pa.chunked_array([["b", "a", "absent"]])


def write(tmp_path, text):
    (tmp_path / "side.csv").write_text(text)
    return read_side_table(f"{tmp_path}/side.csv")


def find_names(side, column):
    positions = side.find_slices(IDS)[column]
    return [side.columns[column].names[k] if k >= 0 else None for k in positions]


def test_texts_and_flags_are_slices(tmp_path):
    side = write(tmp_path, "image_id,country,indoor\na,NO,true\nb,SE,\nc,NO,false\n")
    assert find_names(side, "country") == ["SE", "NO", None]
    assert find_names(side, "indoor") == [None, "true", None]
    assert side.count_images(IDS) == 2


def test_few_whole_numbers_are_slices_and_many_numbers_quartiles(tmp_path):
    rows = "".join(
        f"{name},{index % 3},{index * 1.5}\n" for index, name in enumerate("abcdefghijklmnopqr")
    )
    side = write(tmp_path, "image_id,camera,height\n" + rows)
    assert find_names(side, "camera") == ["1", "0", None]
    assert len(side.columns["height"].names) == 4
    assert find_names(side, "height")[1].startswith("up to")


def test_rare_values_share_a_slice(tmp_path):
    rows = "".join(f"i{index},v{index}\n" for index in range(MAX_VALUES + 5)) + "a,v0\nb,v44\n"
    side = write(tmp_path, "image_id,value\n" + rows)
    assert len(side.columns["value"].names) == MAX_VALUES + 1
    assert find_names(side, "value") == ["v44", "v0", None]
    rare = side.find_slices(pa.chunked_array([["i9"]]))["value"][0]
    assert side.columns["value"].names[rare] == "other"


def test_parquet_is_read_with_ids_that_look_like_numbers(tmp_path):
    path = tmp_path / "side.parquet"
    pq.write_table(pa.table({"image_id": [12, 13], "day": ["mon", "tue"]}), path)
    side = read_side_table(str(path))
    assert side.find_slices(pa.chunked_array([["13"]]))["day"].tolist() == [1]


def test_ids_keep_their_zeros(tmp_path):
    side = write(tmp_path, "image_id,day\n0012,mon\n12,tue\n")
    assert side.count_images(pa.chunked_array([["0012"]])) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,day\na,mon\n", "no column image_id; it has name, day"),
        ("image_id\na\n", "0 columns beside image_id"),
        ("image_id,day\na,mon\na,tue\n", "several rows for image 'a'"),
        ("image_id,day,day\na,mon,tue\n", "two columns of one name"),
        ("image_id,day\na,mon,tue\n", "neither Parquet nor CSV"),
        ("PAR1", "not readable Parquet"),
        ("", "neither Parquet nor CSV"),
    ],
)
def test_anything_else_is_rejected_by_name(tmp_path, text, message):
    with pytest.raises(UnreadableDataset, match=message) as error:
        write(tmp_path, text)
    assert "side.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        read_side_table(f"{tmp_path}/absent.csv")
