"""Pickles are loaded without running what they name, whatever opcodes they hold."""

import pickle
import random
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UnreadableDataset
from pipeline.untrusted.plain_pickle import NumericArray, load_plain_pickle

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_loaded_as_pickle_loads_them(value, protocol):
    data = pickle.dumps(value, protocol=protocol)
    if not _holds_long(value):
        assert load_plain_pickle(data) == value


def _holds_long(value):
    """Whether an integer needs the opcode for thousands of digits, which is rejected."""
    if isinstance(value, int):
        return value.bit_length() > 2000
    if isinstance(value, dict):
        return any(map(_holds_long, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_long, value))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["<f4", ">f4", "f2", "f8", "i1", ">i8", "u2", "b1"])
def test_numeric_arrays_and_scalars_are_loaded(protocol, kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    views = [array, np.asfortranarray(array), array[:, ::2], array[:0], array[0], array[0, 1]]
    for view, value in zip(views, load_plain_pickle(pickle.dumps(views, protocol)), strict=True):
        if isinstance(view, np.generic):
            assert value == view.item()
        else:
            assert isinstance(value, NumericArray)
            np.testing.assert_array_equal(value.values, view)
            assert value.values.dtype == view.dtype.newbyteorder("=")


class HarmfulPickle:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran code')",))


def global_name(module, name):
    return b"c" + module + b"\n" + name + b"\n"


def make_text(text):
    return b"\x8c" + bytes([len(text)]) + text


POINTERS = struct.pack("<Q", 0x4141414141414141) * 4
OBJECT_TYPE = (
    global_name(b"numpy", b"dtype") + make_text(b"O8") + b"\x89\x88\x87R"
    b"(K\x03" + make_text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
)
FLOAT_TYPE = global_name(b"numpy", b"dtype") + make_text(b"f8") + b"\x89\x88\x87R"
ARRAY = global_name(b"numpy.core.multiarray", b"_reconstruct") + b")R"


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (pickle.dumps(HarmfulPickle()), "exec"),
        (global_name(b"os", b"system") + b"(S'true'\ntR.", "os.system"),
        (global_name(b"numpy", b"load") + b".", "numpy.load"),
        (
            global_name(b"numpy.core.numeric", b"_frombuffer")
            + b"(C\x20"
            + POINTERS
            + OBJECT_TYPE
            + b"K\x04\x85"
            + make_text(b"C")
            + b"tR.",
            "type 'O8', expected numbers",
        ),
        (ARRAY + b"(K\x01K\x04\x85" + OBJECT_TYPE + b"\x89C\x20" + POINTERS + b"tb.", "type 'O8'"),
        (ARRAY + b"(K\x01K\x04\x85" + FLOAT_TYPE + b"\x89C\x08" + POINTERS[:8] + b"tb.", "8 bytes"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOAT_TYPE + b"\x89C\x00tb.", "shape"),
        (ARRAY + b"(K\x01K\x01\x85" + FLOAT_TYPE + b"\x89](K\x01etb.", "not of numbers"),
        (FLOAT_TYPE + b"(K\x03U\x01<N(U\x01at}K\x08K\x01K\x10tb.", "structured"),
        (global_name(b"numpy", b"dtype") + b")\x81.", "opcode"),
        (global_name(b"numpy", b"dtype") + b"}b.", "no array"),
        (b"}U\x01a\x85R.", "not a name"),
        (b"]U\x01aK\x01s.", "no dict"),
        (b"}K\x01a.", "no list"),
        (b"\x80\x04\x8f.", "opcode"),
        (b"Pid\n.", "opcode"),
        (b"\x82\x01.", "opcode"),
        (b"}K\x01K\x02\x86K\x01s.", "a key of type tuple"),
        (b"}(K\x01u.", "without a value"),
        (global_name(b"builtins", b"bytes") + b"J\xff\xff\xff\x7f\x85R.", "made by a call"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "ends within"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**63) + b".", "ends within"),
        (b"", "not a readable pickle"),
        (b"garbage", "rejected|not a readable pickle"),
        (pickle.dumps({"ids": []})[:-3], "not a readable pickle"),
    ],
)
def test_a_pickle_of_more_than_plain_values_is_rejected(opcodes, message):
    with pytest.raises(UnreadableDataset, match=message):
        load_plain_pickle(opcodes)


def test_keys_that_take_for_ever_to_hash_are_rejected():
    key = ("x",)
    for _ in range(60):
        key = (key, key)
    data = b"\x80\x04}" + pickle.dumps(key, protocol=4)[11:-1] + b"K\x01s."
    with pytest.raises(UnreadableDataset, match="a key of type tuple"):
        load_plain_pickle(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r" + struct.pack("<I", 2**28) + b".",
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
        b"}p" + b"9" * 30 + b"\n.",
    ],
)
def test_a_memo_index_takes_no_memory(data):
    tracemalloc.start()
    try:
        assert load_plain_pickle(data) == {}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_damaged_pickles_load_or_are_rejected():
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    whole = pickle.dumps({"ids": [1, "b"], "boxes": [array], "scores": [[0.5]], "bbox_mode": 0})
    generator = random.Random(0)
    rejected = 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            load_plain_pickle(bytes(damaged))
        except UnreadableDataset:
            rejected += 1
    assert rejected > 1000
