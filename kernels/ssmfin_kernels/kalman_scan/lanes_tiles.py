"""Owns the way between memory, where a series is a row, and lanes, where a step is one: squares transposed."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ssmfin_kernels.kalman_scan.lanes import W, compiled

SIDE = 8  # of the square that is transposed at once: a cache line of float64
_VECTOR = ir.VectorType(ir.DoubleType(), SIDE)


def _square(past_caches: bool) -> Any:
    """Code of target[to + j to_stride + k] = source[at + k at_stride + j] for j, k < SIDE; float64, inside the arrays.

    Bit by bit: exchanging bit d of the row with bit d of the column, for d = 1, 2, 4, makes rows columns. Past the
    caches, every row of the target starts a line of 64 bytes.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def row(array, kind, start, stride, j):  # type: ignore[no-untyped-def]
            data = context.make_array(kind)(context, builder, array).data
            offset = builder.add(start, builder.mul(stride, ir.Constant(stride.type, j)))
            return builder.bitcast(builder.gep(data, [offset], inbounds=True), _VECTOR.as_pointer())

        kinds = signature.args
        rows = [builder.load(row(args[3], kinds[3], args[4], args[5], j), align=8) for j in range(SIDE)]
        for d in (1, 2, 4):
            for j in range(SIDE):
                if j & d:
                    continue
                low, high = rows[j], rows[j | d]
                first = [SIDE + (c ^ d) if c & d else c for c in range(SIDE)]
                second = [SIDE + c if c & d else c ^ d for c in range(SIDE)]
                lanes = ir.VectorType(ir.IntType(32), SIDE)
                rows[j] = builder.shuffle_vector(low, high, ir.Constant(lanes, first))
                rows[j | d] = builder.shuffle_vector(low, high, ir.Constant(lanes, second))
        for j in range(SIDE):
            place = row(args[0], kinds[0], args[1], args[2], j)
            stored = builder.store(rows[j], place, align=8 * SIDE if past_caches else 8)
            if past_caches:
                _past_caches(builder, stored)
        return context.get_dummy_value()

    return codegen


def _past_caches(builder: Any, stored: Any) -> None:
    stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


@intrinsic
def _transpose_square(typingctx, target, to, to_stride, source, at, at_stride):  # type: ignore[no-untyped-def]
    """`_square`, by ordinary stores."""
    return types.void(target, types.int64, types.int64, source, types.int64, types.int64), _square(False)


@intrinsic
def _stream_square(typingctx, target, to, to_stride, source, at, at_stride):  # type: ignore[no-untyped-def]
    """`_square`, past the caches."""
    return types.void(target, types.int64, types.int64, source, types.int64, types.int64), _square(True)


@intrinsic
def _stream_line(typingctx, target, to, source, at):  # type: ignore[no-untyped-def]
    """target[to : to + SIDE] = source[at : at + SIDE], past the caches; target[to] starts a line of 64 bytes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def line(array, kind, start):
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [start], inbounds=True), _VECTOR.as_pointer())

        kinds = signature.args
        value = builder.load(line(args[2], kinds[2], args[3]), align=8)
        stored = builder.store(value, line(args[0], kinds[0], args[1]), align=8 * SIDE)
        _past_caches(builder, stored)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), codegen


@intrinsic
def settle(typingctx):  # type: ignore[no-untyped-def]
    """Wait until every store of this thread, `out_of_lanes` included, is seen by all."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@compiled
def into_lanes(tile, source, start, stride, n, count):
    """tile[s * W + i] = source[start + i * stride + s] for s < count; lanes from n on repeat the first."""
    whole = count - count % SIDE
    for i0 in range(0, W, SIDE):
        squares = whole if i0 + SIDE <= n else 0
        for s in range(0, squares, SIDE):
            _transpose_square(tile, s * W + i0, W, source, start + i0 * stride + s, stride)
        for i in range(i0, i0 + SIDE):
            at = start + (i if i < n else 0) * stride
            for s in range(squares, count):
                tile[s * W + i] = source[at + s]


@compiled
def out_of_lanes(target, start, stride, tile, at, n, count, scratch):
    """target[start + i * stride + s] = tile[at + s * W + i] for i < n, s < count; scratch: SIDE * count.

    Whole cache lines go to memory past the caches, which would fetch each line before it is overwritten: that took
    longer than the filter. `settle` makes them visible to other threads. Where rows start lines, as in results of a
    whole number of lines a series, squares go there as they are; elsewhere rows are put together in `scratch`.
    """
    whole = count - count % SIDE
    base = target.ctypes.data // 8  # in float64 from address 0
    on_lines = (base + start) % SIDE == 0 and stride % SIDE == 0 and whole == count
    for i0 in range(0, n, SIDE):
        last = min(i0 + SIDE, n)
        squares = whole if i0 + SIDE <= n else 0
        if on_lines and squares > 0:
            for s in range(0, squares, SIDE):
                _stream_square(target, start + i0 * stride + s, stride, tile, at + s * W + i0, W)
            continue
        for s in range(0, squares, SIDE):
            _transpose_square(scratch, s, count, tile, at + s * W + i0, W)
        for i in range(i0, last):
            for s in range(squares, count):
                scratch[(i - i0) * count + s] = tile[at + s * W + i]
        for i in range(i0, last):
            to, row = start + i * stride, (i - i0) * count
            first = min(-(base + to) % SIDE, count)
            end = first + (count - first) // SIDE * SIDE
            for s in range(first):
                target[to + s] = scratch[row + s]
            for s in range(first, end, SIDE):
                _stream_line(target, to + s, scratch, row + s)
            for s in range(end, count):
                target[to + s] = scratch[row + s]
