"""Owns the tiles of the linear scan in Triton: how they are read, composed step by step, and written.

A tile is SEGMENTS x STEPS consecutive steps of BLOCK channels of one sequence; a thread holds STEPS consecutive steps
of a channel. A walk takes the steps of a sequence in the order of the recurrence, q = 0 .. T-1, at time t = q, or
t = T-1-q where it goes DOWN. A value is a real and an imaginary part; the second is unused where not COMPLEX.

The backward pass is the same scan the other way (`naive.py`): at step t it takes the coefficient of the step before it
in its own direction, and multiplies by the state before t as it stores. It reads a, h and the gradient once.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.linear_scan.triton_maps import apply


@triton.jit
def load(pointer, offset, mask, COMPLEX: tl.constexpr, STATE: tl.constexpr):
    """A row of channels in the type of the state, zero where masked."""
    if COMPLEX:
        re = tl.load(pointer + 2 * offset, mask=mask, other=0.0).to(STATE)
        im = tl.load(pointer + 2 * offset + 1, mask=mask, other=0.0).to(STATE)
    else:
        re = tl.load(pointer + offset, mask=mask, other=0.0).to(STATE)
        im = re
    return re, im


@triton.jit
def store(pointer, offset, re, im, mask, COMPLEX: tl.constexpr):
    if COMPLEX:
        tl.store(pointer + 2 * offset, re.to(pointer.dtype.element_ty), mask=mask)
        tl.store(pointer + 2 * offset + 1, im.to(pointer.dtype.element_ty), mask=mask)
    else:
        tl.store(pointer + offset, re.to(pointer.dtype.element_ty), mask=mask)


# Tiles are read and written as words, real and imaginary parts side by side: two accesses to every second word take
# three times as long, and only a last dimension longer than the two parts gets the widest ones.


@triton.jit
def fetch(pointer, line, column, D, keep, other, COMPLEX: tl.constexpr, BLOCK: tl.constexpr):
    """Words of the lines (SEGMENTS, 1) to keep, from `column` on; the real number `other` elsewhere."""
    if COMPLEX:
        word = tl.arange(0, 2 * BLOCK)[None, :]
        mask = keep & (2 * column + word < 2 * D)
        fill = tl.where(word % 2 == 0, other, 0.0)
        value = tl.load(pointer + (2 * (line * D + column) + word), mask=mask, other=fill)
    else:
        word = tl.arange(0, BLOCK)[None, :]
        value = tl.load(pointer + (line * D + column + word), mask=keep & (column + word < D), other=other)
    return value


@triton.jit
def parts(value, COMPLEX: tl.constexpr, STATE: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr):
    """What `fetch` found, as real and imaginary part in the type of the state."""
    if COMPLEX:
        re, im = tl.split(tl.reshape(value, (SEGMENTS, BLOCK, 2)))
        re, im = re.to(STATE), im.to(STATE)
    else:
        re = value.to(STATE)
        im = re
    return re, im


@triton.jit
def put(
    pointer,
    line,
    column,
    D,
    keep,
    re,
    im,
    COMPLEX: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what `fetch` reads."""
    if COMPLEX:
        word = tl.arange(0, 2 * BLOCK)[None, :]
        value = tl.reshape(tl.join(re, im), (SEGMENTS, 2 * BLOCK)).to(pointer.dtype.element_ty)
        tl.store(pointer + (2 * (line * D + column) + word), value, mask=keep & (2 * column + word < 2 * D))
    else:
        word = tl.arange(0, BLOCK)[None, :]
        value = re.to(pointer.dtype.element_ty)
        tl.store(pointer + (line * D + column + word), value, mask=keep & (column + word < D))


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
    COMPLEX: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """STEPS coefficients, STEPS inputs and, backward, the STEPS states before them, in one tuple.

    Nothing is done with them here, so that all loads are under way before the first is waited for.
    """
    coefficients, inputs, states = (), (), ()
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        source = (t + 1 if DOWN else t - 1) if BACKWARD else t  # the step whose coefficient leads here
        taken = (q > 0) & (q < T) if BACKWARD else q < T
        coefficients = coefficients + (fetch(a_ptr, row + source, column, D, taken, 1.0, COMPLEX, BLOCK),)
        inputs = inputs + (fetch(x_ptr, row + t, column, D, q < T, 0.0, COMPLEX, BLOCK),)
        if BACKWARD:
            before = t - 1 if DOWN else t + 1
            states = states + (fetch(h_ptr, row + before, column, D, q < T - 1, 0.0, COMPLEX, BLOCK),)
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
    COMPLEX: tl.constexpr,
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The map through the steps of a thread up to each; steps past the end are the identity."""
    pr, pi, hr, hi = (), (), (), ()
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        ar, ai = parts(raw[r], COMPLEX, STATE, SEGMENTS, BLOCK)
        xr, xi = parts(raw[STEPS + r], COMPLEX, STATE, SEGMENTS, BLOCK)
        if BACKWARD:
            ai = -ai
        if HAS_RESET:
            boundary = t + 1 if DOWN else t
            met = (q < T) & ((q > 0) | (not BACKWARD and not DOWN))
            cut = tl.load(reset_ptr + row + boundary, mask=met, other=0) != 0
            ar = tl.where(cut, 0.0, ar)
            ai = tl.where(cut, 0.0, ai)
        if r == 0:
            pr, pi, hr, hi = (ar,), (ai,), (xr,), (xi,)
        else:
            zero = tl.zeros_like(ar)
            nr, ni = apply(ar, ai, pr[r - 1], pi[r - 1], zero, zero, COMPLEX, HAS_RESET)
            mr, mi = apply(ar, ai, hr[r - 1], hi[r - 1], xr, xi, COMPLEX, HAS_RESET)
            pr, pi, hr, hi = pr + (nr,), pi + (ni,), hr + (mr,), hi + (mi,)
    return pr, pi, hr, hi


@triton.jit
def store_tile(
    raw,
    pr,
    pi,
    hr,
    hi,
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
    COMPLEX: tl.constexpr,
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Results of all steps, from the states (sr, si) that come into each thread."""
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        yr, yi = apply(pr[r], pi[r], sr, si, hr[r], hi[r], COMPLEX, HAS_RESET)
        put(y_ptr, row + t, column, D, q < T, yr, yi, COMPLEX, SEGMENTS, BLOCK)
        if BACKWARD:
            ur, ui = parts(raw[2 * STEPS + r], COMPLEX, STATE, SEGMENTS, BLOCK)
            if HAS_BEFORE:
                known = fetch(before_ptr, i + 0 * q, column, D, q == T - 1, 0.0, COMPLEX, BLOCK)
                vr, vi = parts(known, COMPLEX, STATE, SEGMENTS, BLOCK)
                ur = tl.where(q == T - 1, vr, ur)
                ui = tl.where(q == T - 1, vi, ui)
            if HAS_RESET:
                boundary = t if DOWN else t + 1
                met = (q < T) & (DOWN | (q < T - 1))
                cut = tl.load(reset_ptr + row + boundary, mask=met, other=0) != 0
                ur = tl.where(cut, 0.0, ur)
                ui = tl.where(cut, 0.0, ui)
            zero = tl.zeros_like(ur)
            gr, gi = apply(ur, -ui, yr, yi, zero, zero, COMPLEX, HAS_RESET)
            put(da_ptr, row + t, column, D, q < T, gr, gi, COMPLEX, SEGMENTS, BLOCK)


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
    COMPLEX: tl.constexpr,
    STATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The last state of the walk, or the gradient of the initial state, which is one coefficient further."""
    if BACKWARD:
        end = 0 if DOWN else T - 1
        fr, fi = load(a_ptr, (row + end) * D + d, inside, COMPLEX, STATE)
        if HAS_RESET and DOWN:
            dropped = tl.load(reset_ptr + row) != 0
            fr = tl.where(dropped, 0.0, fr)
            fi = tl.where(dropped, 0.0, fi)
        none = tl.zeros((BLOCK,), STATE)
        er, ei = apply(fr, -fi, er, ei, none, none, COMPLEX, HAS_RESET)
    store(last_ptr, i * D + d, er, ei, inside, COMPLEX)
