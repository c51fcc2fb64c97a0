"""Owns the Triton kernels of the causal convolution, fused with bias and SiLU: each input read once, each output once.

A program owns BLOCK channels of SEGMENTS strips of time of one sequence. A thread walks its strip, STEPS steps at a
time, with the taps and the K - 1 inputs before in registers; the STEPS after them are under way from memory meanwhile.

Backward, the value before the activation is computed again. x_s reaches y_s .. y_{s+K-1}, so K - 1 unfinished gradients
move along in registers, and each strip goes K - 1 steps beyond its end. Gradients of weight and bias are summed over a
program's strips, then over programs by a second kernel, always in the same order: no atomics.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.causal_convolution.triton_rows import (
    before_activation,
    earlier_rows,
    fetch,
    fetch_at,
    load_taps,
    sigmoid,
)


@triton.jit
def forward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    initial_ptr,
    reach_ptr,
    y_ptr,
    final_ptr,
    T,
    D,
    strip,  # steps of a strip, a multiple of 2 STEPS
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    FINAL: tl.constexpr,  # the final state is the last K - 1 rows, and written here
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    columns = tl.cdiv(D, BLOCK)
    tiles = tl.cdiv(T, SEGMENTS * strip)
    column = tl.program_id(0) % columns
    tile = (tl.program_id(0) // columns) % tiles
    i = (tl.program_id(0) // (columns * tiles)).to(tl.int64)
    d = column * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = d < D
    first = (tile * SEGMENTS + tl.arange(0, SEGMENTS)[:, None]) * strip
    taps, shift = load_taps(weight_ptr, bias_ptr, d, inside, K, HAS_BIAS, STATE)
    base = (i * T + first) * D + d
    window = earlier_rows(x_ptr, initial_ptr, i, first, d, inside, T, D, K, HAS_INITIAL, STATE)
    # what is read and written next, and the steps from there to the end: pointers that move along cost two instructions
    # a row, places computed anew cost ten
    wide = tl.cast(D, tl.int64)
    source, target, left = x_ptr + base, y_ptr + base, T - first
    coming = fetch(source, left, inside, wide, STEPS)
    for _start in range(0, strip, 2 * STEPS):
        # two chunks a turn: with one, moving what has come to its place would wait for all that is under way
        for _half in tl.static_range(2):
            rows = coming
            source += STEPS * wide
            coming = fetch(source, left - STEPS, inside, wide, STEPS)
            seen = window
            for r in tl.static_range(STEPS):
                seen = seen + (rows[r].to(STATE),)
            for r in tl.static_range(STEPS):
                far = 0
                if HAS_RESET:
                    far = tl.load(reach_ptr + i * T + (T - left + r), mask=left > r, other=0)
                value = before_activation(seen, r, taps, shift, far, K, HAS_RESET)
                if SILU:
                    value *= sigmoid(value)
                tl.store(target + r * wide, value.to(y_ptr.dtype.element_ty), mask=(left > r) & inside)
            target += STEPS * wide
            left -= STEPS
            window = seen[STEPS:]
    if FINAL:  # noqa: SIM102 (the first is decided when compiling)
        if tile == tiles - 1:
            for j in tl.static_range(K - 1):
                row = tl.load(x_ptr + (i * T + (T - (K - 1) + j)) * D + d, mask=inside)
                tl.store(final_ptr + (i * (K - 1) + j) * D + d, row, mask=inside)


@triton.jit
def _backward_step(
    seen,
    grad,
    pending,
    r: tl.constexpr,
    t,
    taps,
    shift,
    reach_ptr,
    i,
    T,
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_RESET: tl.constexpr,
    STATE: tl.constexpr,
):
    """The gradient before the activation, its products with the K inputs seen, and the K unfinished gradients."""
    e = grad.to(STATE)
    far = 0
    if HAS_RESET:
        far = tl.load(reach_ptr + i * T + t, mask=t < T, other=0)
    if SILU:
        value = before_activation(seen, r, taps, shift, far, K, HAS_RESET)
        s = sigmoid(value)
        e = e * (s + value * s * (1.0 - s))
    shares, grown = (), ()
    for j in tl.static_range(K):  # pending[j] belongs to step t - 1 - j
        part = taps[j] * e
        share = e * seen[r + K - 1 - j]
        if HAS_RESET:
            part = tl.where(far >= j, part, 0.0)
            share = tl.where(far >= j, share, 0.0)
        if j == 0:
            grown = grown + (part,)
        else:
            grown = grown + (pending[j - 1] + part,)
        shares = shares + (share,)
    return e, shares, grown


@triton.jit
def _backward_chunk(
    rows,
    grads,
    window,
    pending,
    sums,
    total,
    begin,
    first,
    base,
    d,
    inside,
    i,
    taps,
    shift,
    reach_ptr,
    dx_ptr,
    d_initial_ptr,
    T,
    D,
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    STATE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """STEPS steps of every strip; what moves along: inputs before, unfinished gradients, sums."""
    seen = window
    for r in tl.static_range(STEPS):
        seen = seen + (rows[r].to(STATE),)
    for r in tl.static_range(STEPS):
        t = first + (begin + r)
        e, shares, grown = _backward_step(
            seen, grads[r], pending, r, t, taps, shift, reach_ptr, i, T, K, SILU, HAS_RESET, STATE
        )
        total += e
        added = ()
        for j in tl.static_range(K):
            added = added + (sums[j] + shares[j],)
        sums = added
        out = begin + r - (K - 1)  # the step whose gradient is complete; before the strip, it is another's
        at = dx_ptr + base + tl.cast(out, tl.int64) * D
        mask = (first + out < T) & (out >= 0) & inside
        tl.store(at, grown[K - 1].to(dx_ptr.dtype.element_ty), mask=mask)
        if HAS_INITIAL:
            at = d_initial_ptr + (i * (K - 1) + t) * D + d
            tl.store(at, grown[K - 1].to(d_initial_ptr.dtype.element_ty), mask=(t < K - 1) & inside)
        pending = grown[: K - 1]
    return seen[STEPS:], pending, sums, total


@triton.jit
def backward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    initial_ptr,
    reach_ptr,
    grad_ptr,
    dx_ptr,
    d_initial_ptr,
    sums_ptr,  # (B * tiles, K + 1, D): gradients of the taps by lag, then of the bias
    T,
    D,
    strip,  # steps of a strip, a multiple of 2 STEPS
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    columns = tl.cdiv(D, BLOCK)
    tiles = tl.cdiv(T, SEGMENTS * strip)
    column = tl.program_id(0) % columns
    tile = (tl.program_id(0) // columns) % tiles
    i = (tl.program_id(0) // (columns * tiles)).to(tl.int64)
    d = column * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = d < D
    first = (tile * SEGMENTS + tl.arange(0, SEGMENTS)[:, None]) * strip
    taps, shift = load_taps(weight_ptr, bias_ptr, d, inside, K, HAS_BIAS, STATE)
    base = (i * T + first) * D + d
    window = earlier_rows(x_ptr, initial_ptr, i, first, d, inside, T, D, K, HAS_INITIAL, STATE)
    zero = tl.zeros((SEGMENTS, BLOCK), STATE)
    pending, sums = (), (zero,)  # the K - 1 unfinished gradients; the sums by lag, the last that of the bias
    for _j in tl.static_range(K - 1):
        pending = pending + (zero,)
        sums = sums + (zero,)
    total = zero
    if STAGES:
        # rows come through shared memory, STAGES chunks under way
        for begin in tl.range(0, strip, STEPS, num_stages=STAGES):
            rows = fetch_at(x_ptr + base, first, begin, inside, T, D, STEPS)
            grads = fetch_at(grad_ptr + base, first, begin, inside, T, D, STEPS)
            window, pending, sums, total = _backward_chunk(
                rows, grads, window, pending, sums, total, begin, first, base, d, inside, i, taps, shift,
                reach_ptr, dx_ptr, d_initial_ptr, T, D, K, SILU, HAS_INITIAL, HAS_RESET, STATE, STEPS,
            )  # fmt: skip
    else:
        next_x = fetch_at(x_ptr + base, first, 0, inside, T, D, STEPS)
        next_grad = fetch_at(grad_ptr + base, first, 0, inside, T, D, STEPS)
        for start in range(0, strip, 2 * STEPS):
            for half in tl.static_range(2):  # two chunks a turn, as forward
                begin = start + half * STEPS
                rows, grads = next_x, next_grad
                next_x = fetch_at(x_ptr + base, first, begin + STEPS, inside, T, D, STEPS)
                next_grad = fetch_at(grad_ptr + base, first, begin + STEPS, inside, T, D, STEPS)
                window, pending, sums, total = _backward_chunk(
                    rows, grads, window, pending, sums, total, begin, first, base, d, inside, i, taps, shift,
                    reach_ptr, dx_ptr, d_initial_ptr, T, D, K, SILU, HAS_INITIAL, HAS_RESET, STATE, STEPS,
                )  # fmt: skip
    # K - 1 steps beyond the end: what they say of weight and bias is summed by the strip they belong to
    seen = window
    tail = fetch_at(x_ptr + base, first, strip, inside, T, D, K - 1)
    tail_grad = fetch_at(grad_ptr + base, first, strip, inside, T, D, K - 1)
    for r in tl.static_range(K - 1):
        seen = seen + (tail[r].to(STATE),)
    for r in tl.static_range(K - 1):
        t = first + (strip + r)
        _, _, grown = _backward_step(
            seen, tail_grad[r], pending, r, t, taps, shift, reach_ptr, i, T, K, SILU, HAS_RESET, STATE
        )
        out = strip + r - (K - 1)
        at = dx_ptr + base + tl.cast(out, tl.int64) * D
        mask = (first + out < T) & (out >= 0) & inside
        tl.store(at, grown[K - 1].to(dx_ptr.dtype.element_ty), mask=mask)
        if HAS_INITIAL:
            at = d_initial_ptr + (i * (K - 1) + t) * D + d
            tl.store(at, grown[K - 1].to(d_initial_ptr.dtype.element_ty), mask=(t < K - 1) & inside)
        pending = grown[: K - 1]
    to = sums_ptr + (i * tiles + tile) * (K + 1) * D + d
    for j in tl.static_range(K):
        tl.store(to + j * D, tl.sum(sums[j], 0)[None, :], mask=inside)
    tl.store(to + K * D, tl.sum(total, 0)[None, :], mask=inside)


@triton.jit
def sum_kernel(
    sums_ptr, d_weight_ptr, d_bias_ptr, rows, D, K: tl.constexpr, STATE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums over programs: one program a block of channels and lag (K for the bias)."""
    d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lag = tl.program_id(1)
    total = tl.zeros((ROWS, BLOCK), STATE)
    for start in range(0, rows, ROWS):
        row = (start + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        total += tl.load(sums_ptr + (row * (K + 1) + lag) * D + d[None, :], mask=(row < rows) & (d < D), other=0.0)
    value = tl.sum(total, 0)
    if lag == K:
        tl.store(d_bias_ptr + d, value.to(d_bias_ptr.dtype.element_ty), mask=d < D)
    else:
        at = d_weight_ptr + d.to(tl.int64) * K + (K - 1 - lag)
        tl.store(at, value.to(d_weight_ptr.dtype.element_ty), mask=d < D)
