"""Owns the loop of the realized kernel: weighted autocovariances of sessions, eight sessions in the lanes of a vector.

Every sum is added in numpy's own order (pairwise: halves down to 128 terms, eight partial sums in each), so that the
result has the bits of the array operations that define it, `noise.weighted_autocovariances`. No (D, n) products are
written to memory, which is what those cost.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import numpy as np
from numba import njit

LANES = 8
_LEAF = 128  # terms that numpy adds without halving
_DEPTH = 60
_loop = njit(cache=True, nogil=True, error_model="numpy")


@_loop
def _leaf(x, first, lag, n, partial, out):
    """out[l] = sum of x[i + lag, l] x[i, l] over n <= 128 terms from `first`."""
    if n < 8:
        for lane in range(LANES):
            out[lane] = -0.0
        end = first
    else:
        for j in range(8):
            for lane in range(LANES):
                partial[j, lane] = x[first + j + lag, lane] * x[first + j, lane]
        end = first + n - n % 8
        for i in range(first + 8, end, 8):
            for j in range(8):
                for lane in range(LANES):
                    partial[j, lane] += x[i + j + lag, lane] * x[i + j, lane]
        for lane in range(LANES):
            out[lane] = ((partial[0, lane] + partial[1, lane]) + (partial[2, lane] + partial[3, lane])) + (
                (partial[4, lane] + partial[5, lane]) + (partial[6, lane] + partial[7, lane])
            )
    for i in range(end, first + n):
        for lane in range(LANES):
            out[lane] += x[i + lag, lane] * x[i, lane]


@_loop
def _leaves(n, first, count, depth):
    """How numpy halves n terms: where each leaf begins, how many terms it has, how deep it lies; the number of leaves.

    Written as a stack: numba 0.68 crashes on functions that call themselves once they come from its cache.
    """
    begin, size, level = np.empty(_DEPTH, np.int64), np.empty(_DEPTH, np.int64), np.empty(_DEPTH, np.int64)
    begin[0], size[0], level[0] = 0, n, 0
    waiting, leaves = 1, 0
    while waiting > 0:
        waiting -= 1
        at, terms, deep = begin[waiting], size[waiting], level[waiting]
        if terms <= _LEAF:
            first[leaves], count[leaves], depth[leaves] = at, terms, deep
            leaves += 1
        else:
            half = terms // 2
            half -= half % 8
            begin[waiting], size[waiting], level[waiting] = at + half, terms - half, deep + 1
            begin[waiting + 1], size[waiting + 1], level[waiting + 1] = at, half, deep + 1  # the left half comes first
            waiting += 2
    return leaves


@_loop
def _pairwise(x, lag, leaves, first, count, depth, partial, sums, level):
    """sums[0, l] = sum of x[i + lag, l] x[i, l] over the terms of the leaves."""
    held = 0
    for leaf in range(leaves):
        _leaf(x, first[leaf], lag, count[leaf], partial, sums[held])
        level[held] = depth[leaf]
        while held > 0 and level[held] == level[held - 1]:  # two halves of one whole
            for lane in range(LANES):
                sums[held - 1, lane] += sums[held, lane]
            held -= 1
            level[held] -= 1
        held += 1


@_loop
def weighted_autocovariances(returns, lags, weights):
    """(D,) gamma_0 + sum_{h <= lags} weights[:, h - 1] gamma_h; `noise.weighted_autocovariances` has the arguments."""
    D, n = returns.shape
    out = np.empty(D)
    x, partial, sums = np.empty((n, LANES)), np.empty((8, LANES)), np.empty((_DEPTH, LANES))
    room = n // (_LEAF // 4) + 1  # a leaf has more than 32 terms, unless it is the only one
    first, count, depth = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    level = np.empty(_DEPTH, np.int64)
    for begin in range(0, D, LANES):
        for lane in range(LANES):
            d = min(begin + lane, D - 1)
            for i in range(n):
                x[i, lane] = returns[d, i]
        own = min(LANES, D - begin)
        for h in range(lags[begin] + 1):  # the widest of the eight
            leaves = _leaves(n - h, first, count, depth)
            _pairwise(x, h, leaves, first, count, depth, partial, sums, level)
            for lane in range(own):
                if h == 0:
                    out[begin + lane] = sums[0, lane]
                elif h <= lags[begin + lane]:
                    out[begin + lane] += weights[begin + lane, h - 1] * sums[0, lane]
    return out
