"""Owns the tiles of the linear scan in Triton: how they are read, composed step by step, and written.

A tile is SEGMENTS x STEPS consecutive steps of BLOCK channels of one sequence; a thread holds STEPS consecutive steps
of a channel. A walk takes the steps of a sequence in the order of the recurrence, q = 0 .. T-1, at time t = q, or
t = T-1-q where it goes DOWN.

The backward pass is the same scan the other way (`naive.py`): at step t it takes the coefficient of the step before it
in its own direction, and multiplies by the state before t as it stores. It reads a, h and the gradient once.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.linear_scan.triton_maps import COMPLEX, PAIR, apply
from ssmfin_kernels.linear_scan.triton_words import again, fetch, load, parts, put, store


@triton.jit
def fetch_tile(
    a_ptr,
    x_ptr,
    h_ptr,
    row,
    first,
    column,
    T,
    D,
    BACKWARD: tl.constexpr,
    DOWN: tl.constexpr,
    KIND: tl.constexpr,
    HALF: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """STEPS coefficients, STEPS inputs and, backward, the STEPS states before them, in one tuple.

    Nothing is done with them here, so that all loads are under way before the first is waited for.
    """
    # the number one, or two of them in a word
    ONE: tl.constexpr = 1.0 if KIND != PAIR else 0x3F803F80 if HALF == tl.bfloat16 else 0x3C003C00  # noqa: SIM300
    coefficients, inputs, states = (), (), ()
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        source = (t + 1 if DOWN else t - 1) if BACKWARD else t  # the step whose coefficient leads here
        taken = (q > 0) & (q < T) if BACKWARD else q < T
        coefficients = coefficients + (fetch(a_ptr, row + source, column, D, taken, ONE, KIND, BLOCK),)
        inputs = inputs + (fetch(x_ptr, row + t, column, D, q < T, 0.0, KIND, BLOCK),)
        if BACKWARD:
            before = t - 1 if DOWN else t + 1
            states = states + (fetch(h_ptr, row + before, column, D, q < T - 1, 0.0, KIND, BLOCK),)
    return coefficients + inputs + states


@triton.jit
def compose_tile(
    raw,
    reset_ptr,
    row,
    first,
    T,
    BACKWARD: tl.constexpr,
    DOWN: tl.constexpr,
    HAS_RESET: tl.constexpr,
    KIND: tl.constexpr,
    STATE: tl.constexpr,
    HALF: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The tile with its resets in it, and the map through the steps of each thread; steps past the end do nothing."""
    coefficients = ()
    for r in tl.static_range(STEPS):
        word = raw[r]
        if HAS_RESET:
            q = first + r
            t = T - 1 - q if DOWN else q
            boundary = t + 1 if DOWN else t
            met = (q < T) & ((q > 0) | (not BACKWARD and not DOWN))
            cut = tl.load(reset_ptr + row + boundary, mask=met, other=0) != 0
            word = tl.where(cut, tl.zeros_like(word), word)
        coefficients = coefficients + (word,)
    pr, pi = coefficient(coefficients[0], BACKWARD, KIND, STATE, HALF, SEGMENTS, BLOCK)
    hr, hi = parts(raw[STEPS], KIND, STATE, HALF, SEGMENTS, BLOCK)
    zero = tl.zeros_like(pr)
    for r in tl.static_range(1, STEPS):
        ar, ai = coefficient(coefficients[r], BACKWARD, KIND, STATE, HALF, SEGMENTS, BLOCK)
        xr, xi = parts(raw[STEPS + r], KIND, STATE, HALF, SEGMENTS, BLOCK)
        hr, hi = apply(ar, ai, hr, hi, xr, xi, KIND, HAS_RESET)
        pr, pi = apply(ar, ai, pr, pi, zero, zero, KIND, HAS_RESET)
    kept = ()
    for r in tl.static_range(len(raw)):
        kept = kept + (again(coefficients[r] if r < STEPS else raw[r], KIND),)
    return kept, pr, pi, hr, hi


@triton.jit
def coefficient(
    value,
    BACKWARD: tl.constexpr,
    KIND: tl.constexpr,
    STATE: tl.constexpr,
    HALF: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`parts`, and backward the conjugate."""
    re, im = parts(value, KIND, STATE, HALF, SEGMENTS, BLOCK)
    if BACKWARD and KIND == COMPLEX:
        im = -im
    return re, im


@triton.jit
def store_tile(
    raw,
    sr,
    si,
    y_ptr,
    da_ptr,
    before_ptr,
    reset_ptr,
    i,
    row,
    first,
    column,
    T,
    D,
    BACKWARD: tl.constexpr,
    DOWN: tl.constexpr,
    HAS_RESET: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    KIND: tl.constexpr,
    STATE: tl.constexpr,
    HALF: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Results of all steps, from the states (sr, si) that come into each thread."""
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        ar, ai = coefficient(raw[r], BACKWARD, KIND, STATE, HALF, SEGMENTS, BLOCK)
        xr, xi = parts(raw[STEPS + r], KIND, STATE, HALF, SEGMENTS, BLOCK)
        sr, si = apply(ar, ai, sr, si, xr, xi, KIND, HAS_RESET)
        put(y_ptr, row + t, column, D, q < T, sr, si, KIND, HALF, SEGMENTS, BLOCK)
        if BACKWARD:
            ur, ui = parts(raw[2 * STEPS + r], KIND, STATE, HALF, SEGMENTS, BLOCK)
            if HAS_BEFORE:
                known = fetch(before_ptr, i + 0 * q, column, D, q == T - 1, 0.0, KIND, BLOCK)
                vr, vi = parts(known, KIND, STATE, HALF, SEGMENTS, BLOCK)
                ur = tl.where(q == T - 1, vr, ur)
                ui = tl.where(q == T - 1, vi, ui)
            if HAS_RESET:
                boundary = t if DOWN else t + 1
                met = (q < T) & (DOWN | (q < T - 1))
                cut = tl.load(reset_ptr + row + boundary, mask=met, other=0) != 0
                ur = tl.where(cut, 0.0, ur)
                ui = tl.where(cut, 0.0, ui)
            zero = tl.zeros_like(ur)
            if KIND == COMPLEX:
                ui = -ui
            gr, gi = apply(ur, ui, sr, si, zero, zero, KIND, HAS_RESET)
            put(da_ptr, row + t, column, D, q < T, gr, gi, KIND, HALF, SEGMENTS, BLOCK)


@triton.jit
def store_last(
    er,
    ei,
    a_ptr,
    reset_ptr,
    last_ptr,
    i,
    row,
    d,
    inside,
    T,
    D,
    BACKWARD: tl.constexpr,
    DOWN: tl.constexpr,
    HAS_RESET: tl.constexpr,
    KIND: tl.constexpr,
    STATE: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The last state of the walk, or the gradient of the initial state, which is one coefficient further."""
    if BACKWARD:
        end = 0 if DOWN else T - 1
        fr, fi = load(a_ptr, (row + end) * D + d, inside, KIND, STATE, HALF)
        if HAS_RESET and DOWN:
            dropped = tl.load(reset_ptr + row) != 0
            fr = tl.where(dropped, 0.0, fr)
            fi = tl.where(dropped, 0.0, fi)
        none = tl.zeros((BLOCK,), STATE)
        if KIND == COMPLEX:
            fi = -fi
        er, ei = apply(fr, fi, er, ei, none, none, KIND, HAS_RESET)
    store(last_ptr, i * D + d, er, ei, inside, KIND, HALF)
