"""Asking for a cache line before it is needed: the processor's prefetch, which Numba has no name for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(_typing: Any, rows: Any, row: Any) -> Any:
    """Ask for the cache line where `rows[row]` of a contiguous array begins, to be read and written."""
    byte, integer, word = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, row_type = signature.args
        array = context.make_array(array_type)(context, builder, arguments[0])
        first = context.cast(builder, arguments[1], row_type, types.intp)
        address = cgutils.get_item_pointer2(
            context,
            builder,
            array.data,
            cgutils.unpack_tuple(builder, array.shape),
            cgutils.unpack_tuple(builder, array.strides),
            array_type.layout,
            [first] + [word(0)] * (array_type.ndim - 1),
        )
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        to_write, keep_near, data = integer(1), integer(3), integer(1)
        builder.call(ask, [builder.bitcast(address, byte), to_write, keep_near, data])
        return context.get_dummy_value()

    return types.void(rows, row), generate
