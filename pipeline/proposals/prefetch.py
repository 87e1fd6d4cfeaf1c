"""The processor's prefetch, which Numba does not offer: it loads a cache line before it is needed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(_typing: Any, rows: Any, row: Any) -> Any:
    """Prefetch the cache line where `rows[row]` of a contiguous array begins, for reading and writing."""
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
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        to_write, keep_near, data = integer(1), integer(3), integer(1)
        builder.call(instruction, [builder.bitcast(address, byte), to_write, keep_near, data])
        return context.get_dummy_value()

    return types.void(rows, row), generate
