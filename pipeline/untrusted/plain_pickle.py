"""Loads pickles of containers, numbers, texts and numeric numpy arrays, and calls nothing that they name.

A pickle is a program for a stack machine. This one runs the opcodes that plain values need; the names of
numpy's constructors lead to functions of this module, which build arrays from a checked type, shape and
length. numpy's own constructors are not safe: an array of objects reads its bytes as pointers.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableDataset

_NUMERIC_TYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_TEXT_TYPE = re.compile(r"[<>=|]?U[1-9][0-9]{0,3}")
_LARGEST_NDIM = 8

_OPCODES = (
    *(
        pickle.PROTO,
        pickle.FRAME,
        pickle.STOP,
        pickle.MARK,
        pickle.POP,
        pickle.POP_MARK,
        pickle.DUP,
    ),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.FLOAT, pickle.BINFLOAT),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1),
    *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.LIST, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS),
    *(pickle.DICT, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS, pickle.GET, pickle.BINGET),
    *(pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
)
"""What plain values need: no sets, whose elements are hashed, no classes, no extensions, no ids."""


class NumericType:
    """The place of numpy's dtype: of a number, or of a text, which only scalars may have."""

    def __init__(self, *arguments: Any) -> None:
        """Take the arguments of `numpy.dtype`: the type's text, whether to align, whether to copy."""
        text = arguments[0] if arguments else None
        if isinstance(text, bytes):
            text = text.decode("latin1")
        if not isinstance(text, str) or not (
            _NUMERIC_TYPE.fullmatch(text) or _TEXT_TYPE.fullmatch(text)
        ):
            raise UnreadableDataset(f"it has an array of type {text!r:.40}, expected numbers")
        self.dtype = np.dtype(text)

    def set_state(self, state: Any) -> None:
        """Take numpy's state, in which only the byte order may be set."""
        if not (isinstance(state, tuple) and 5 <= len(state) <= 9):
            raise UnreadableDataset("the type of an array is damaged")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise UnreadableDataset("it has an array of a structured type, expected numbers")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class NumericArray:
    """The place of a numpy array; `values` is the real one, with numbers in native byte order."""

    def __init__(self) -> None:
        """Start empty, as `numpy._core.multiarray._reconstruct` does; the state comes later."""
        self.values: NDArray[Any] = np.empty(0)

    def set_state(self, state: Any) -> None:
        """Take numpy's state: version, shape, type, whether in Fortran's order, bytes."""
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnreadableDataset("an array is damaged")
        _, shape, kind, is_fortran, content = state
        self.values = _build_array(content, kind, shape, "F" if is_fortran is True else "C")


def _build_array(content: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if isinstance(content, str):  # bytes of a pickle of Python 2
        content = content.encode("latin1")
    if not isinstance(kind, NumericType) or not isinstance(content, bytes | bytearray):
        raise UnreadableDataset("it has an array that is not of numbers")
    if kind.dtype.kind == "U":
        raise UnreadableDataset("it has an array of texts, expected numbers")
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _LARGEST_NDIM
        and all(type(side) is int and 0 <= side < 2**48 for side in shape)
    ):
        raise UnreadableDataset(f"it has an array of shape {type(shape).__name__}")
    expected = math.prod(shape) * kind.dtype.itemsize
    if len(content) != expected:
        raise UnreadableDataset(
            f"it has an array of {len(content)} bytes, its shape needs {expected}"
        )
    values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if order == "F" else "C")
    return values.astype(kind.dtype.newbyteorder("="))


def _reconstruct(*_: Any) -> NumericArray:
    return NumericArray()


def _build_from_buffer(*arguments: Any) -> NumericArray:
    content, kind, shape, order = arguments
    array = NumericArray()
    array.values = _build_array(content, kind, shape, order)
    return array


def _build_scalar(*arguments: Any) -> Any:
    kind, content = arguments
    if isinstance(kind, NumericType) and kind.dtype.kind == "U" and isinstance(content, bytes):
        order = "be" if kind.dtype.byteorder == ">" else "le"
        return content.decode(f"utf-32-{order}").rstrip("\0")
    return _build_array(content, kind, (1,), "C")[0].item()


def _encode(*arguments: Any) -> bytes:
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnreadableDataset("it has bytes in an unknown encoding")
    return text.encode("latin1")


def _build_empty_bytes(*arguments: Any) -> bytes:
    """Protocols up to 2 write empty bytes as a call without arguments; with a number it takes memory."""
    if arguments:
        raise UnreadableDataset("it has bytes that are made by a call")
    return b""


def _build_dict(*arguments: Any) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for key, value in arguments[0] if arguments else ():
        content[_check_key(key)] = value
    return content


def _build_integer(*arguments: Any) -> int:
    (value,) = arguments
    if type(value) is not int:
        raise UnreadableDataset("bbox_mode is not an integer")
    return value


def _check_key(key: Any) -> Any:
    if type(key) not in (str, int, bytes):  # the hash of nested tuples can take for ever
        raise UnreadableDataset(f"a dict has a key of type {type(key).__name__}, expected a text")
    return key


class _Name:
    """A name of the pickle that may be called. It is no class and has no attributes that a pickle can set."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


_NAMES: Mapping[str, _Name] = {
    **{
        f"numpy.{core}.{name}": _Name(call)
        for core in ("core", "_core")
        for name, call in {
            "multiarray._reconstruct": _reconstruct,
            "multiarray.scalar": _build_scalar,
            "numeric._frombuffer": _build_from_buffer,
        }.items()
    },
    "numpy.ndarray": _Name(_reconstruct),
    "numpy.dtype": _Name(NumericType),
    "collections.OrderedDict": _Name(_build_dict),
    "_codecs.encode": _Name(_encode),
    "__builtin__.bytes": _Name(_build_empty_bytes),
    "builtins.bytes": _Name(_build_empty_bytes),
    "detectron2.structures.boxes.BoxMode": _Name(_build_integer),
}


class _Opcodes(dict[int, Callable[..., None]]):
    """The opcodes that run, each with its method."""

    def __missing__(self, opcode: int) -> Any:
        raise UnreadableDataset(f"it holds more than plain values (opcode {bytes([opcode])!r})")


class _PlainUnpickler(pickle._Unpickler):
    """The stack machine of the standard library, in Python, so that its memo is a dict of what is used."""

    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _NAMES:
            raise UnreadableDataset(f"it refers to {full_name:.100}, which proposals do not need")
        return _NAMES[full_name]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        name = self.stack[-1]
        if not isinstance(name, _Name) or type(arguments) is not tuple:
            raise UnreadableDataset("it calls something that is not a name")
        self.stack[-1] = name.call(*arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, NumericArray | NumericType):
            raise UnreadableDataset("it sets the state of something that is no array")
        target.set_state(state)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._get_top(list).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._get_top(list).extend(values)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(_iterate_pairs(items)))

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._get_top(dict)[_check_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._get_top(dict).update(_iterate_pairs(items))

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        content = self.read(length) if length < 2**48 else b""
        if len(content) != length:
            raise UnreadableDataset("it ends within an array")
        self.append(content)

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.metastack.pop()
        self.append = self.stack.append
        return items

    def _get_top(self, kind: type[Any]) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise UnreadableDataset(f"it adds items to something that is no {kind.__name__}")
        return self.stack[-1]

    dispatch = _Opcodes(
        {opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in _OPCODES}
        | {
            pickle.REDUCE[0]: load_reduce,
            pickle.BUILD[0]: load_build,
            pickle.APPEND[0]: load_append,
            pickle.APPENDS[0]: load_appends,
            pickle.DICT[0]: load_dict,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.BYTEARRAY8[0]: load_bytearray8,
        }
    )


def _iterate_pairs(items: list[Any]) -> Any:
    if len(items) % 2:
        raise UnreadableDataset("a dict has a key without a value")
    return ((_check_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def load_plain_pickle(data: bytes) -> Any:
    """Load a pickle; arrays in it become `NumericArray`, numpy's scalars Python's numbers.

    Raises:
        UnreadableDataset: damaged, or it holds something else than containers, numbers, texts and arrays.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except UnreadableDataset as error:
        raise UnreadableDataset(f"it is rejected: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__} {error}".strip()
        raise UnreadableDataset(f"it is not a readable pickle: {reason:.200}") from error
