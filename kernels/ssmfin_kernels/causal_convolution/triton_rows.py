"""Owns what both Triton kernels of the causal convolution do: read taps and rows, weigh them, the sigmoid."""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.dispatch import interpreting

INTERPRETED = tl.constexpr(interpreting())
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(value):
    if INTERPRETED or value.dtype == tl.float64:
        return 1.0 / (1.0 + tl.exp(-value))
    else:
        # ftz: without it the two approximations take seven more instructions, for results below 1e-38
        power = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [value * -LOG2_E], tl.float32, is_pure=True, pack=1
        )
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], tl.float32, is_pure=True, pack=1
        )


@triton.jit
def load_taps(weight_ptr, bias_ptr, d, inside, K: tl.constexpr, HAS_BIAS: tl.constexpr, STATE: tl.constexpr):
    """Taps by lag, and the bias."""
    taps = ()
    for j in tl.static_range(K):
        taps = taps + (tl.load(weight_ptr + d * K + (K - 1 - j), mask=inside, other=0.0).to(STATE),)
    shift = tl.zeros(d.shape, STATE)
    if HAS_BIAS:
        shift = tl.load(bias_ptr + d, mask=inside, other=0.0).to(STATE)
    return taps, shift


@triton.jit
def earlier_rows(
    x_ptr, initial_ptr, i, first, d, inside, T, D, K: tl.constexpr, HAS_INITIAL: tl.constexpr, STATE: tl.constexpr
):
    """The K - 1 inputs before step `first`, those before the first of all taken from the initial state."""
    window = ()
    for j in tl.static_range(K - 1):
        t = first + (j - (K - 1))
        value = tl.load(x_ptr + (i * T + t) * D + d, mask=(t >= 0) & (t < T) & inside, other=0.0).to(STATE)
        if HAS_INITIAL:
            before = (i * (K - 1) + (K - 1 + t)) * D + d
            value += tl.load(initial_ptr + before, mask=(t < 0) & inside, other=0.0).to(STATE)
        window = window + (value,)
    return window


@triton.jit
def fetch(pointer, left, inside, D, STEPS: tl.constexpr):
    """STEPS rows, the first at `pointer`, `left` before the end: as they lie in memory, nothing waits for them here."""
    rows = ()
    for r in tl.static_range(STEPS):
        rows = rows + (tl.load(pointer + r * D, mask=(left > r) & inside, other=0.0),)
    return rows


@triton.jit
def fetch_at(pointer, first, start, inside, T, D, STEPS: tl.constexpr):
    """STEPS rows from `start` on."""
    rows = ()
    for r in tl.static_range(STEPS):
        at = pointer + tl.cast(start + r, tl.int64) * D
        rows = rows + (tl.load(at, mask=(first + (start + r) < T) & inside, other=0.0),)
    return rows


@triton.jit
def before_activation(seen, r: tl.constexpr, taps, shift, far, K: tl.constexpr, HAS_RESET: tl.constexpr):
    value = shift + taps[0] * seen[r + K - 1]
    for j in tl.static_range(1, K):
        part = taps[j] * seen[r + K - 1 - j]
        if HAS_RESET:
            part = tl.where(far >= j, part, 0.0)
        value += part
    return value
