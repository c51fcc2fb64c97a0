"""Owns the maps h -> a h + b of the linear scan in Triton: applied, and composed over the rows of a block.

A value has two parts: the real and the imaginary one where KIND is COMPLEX, two channels where it is PAIR; where it is
REAL the second is unused.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

REAL = tl.constexpr(0)
COMPLEX = tl.constexpr(1)
PAIR = tl.constexpr(2)


@triton.jit
def apply(ar, ai, xr, xi, br, bi, KIND: tl.constexpr, GUARD: tl.constexpr):
    """a x + b; with GUARD a zero a, which a reset leaves, keeps even a NaN in x from crossing."""
    if KIND == COMPLEX:
        yr = ar * xr - ai * xi + br
        yi = ar * xi + ai * xr + bi
        if GUARD:
            cut = (ar == 0) & (ai == 0)
            yr = tl.where(cut, br, yr)
            yi = tl.where(cut, bi, yi)
    else:
        yr = ar * xr + br
        if GUARD:
            yr = tl.where(ar == 0, br, yr)
        yi = yr
        if KIND == PAIR:
            yi = ai * xi + bi
            if GUARD:
                yi = tl.where(ai == 0, bi, yi)
    return yr, yi


# A scan of pairs (map through this row, map through the rows above it): the second is the exclusive prefix, and begins
# as the identity. (m1, e1) then (m2, e2) is (m2 o m1, e2 o m1).


@triton.jit
def _compose(a1, b1, e1, f1, a2, b2, e2, f2):
    return a2 * a1, a2 * b1 + b2, e2 * a1, e2 * b1 + f2


@triton.jit
def _compose_guarded(a1, b1, e1, f1, a2, b2, e2, f2):
    cut = a2 == 0
    shut = e2 == 0
    a, b = tl.where(cut, a2, a2 * a1), tl.where(cut, b2, a2 * b1 + b2)
    return a, b, tl.where(shut, e2, e2 * a1), tl.where(shut, f2, e2 * b1 + f2)


@triton.jit
def _compose_complex(a1, ai1, b1, bi1, e1, ei1, f1, fi1, a2, ai2, b2, bi2, e2, ei2, f2, fi2):
    ar, ai = apply(a2, ai2, a1, ai1, 0.0, 0.0, COMPLEX, True)
    br, bi = apply(a2, ai2, b1, bi1, b2, bi2, COMPLEX, True)
    er, ei = apply(e2, ei2, a1, ai1, 0.0, 0.0, COMPLEX, True)
    fr, fi = apply(e2, ei2, b1, bi1, f2, fi2, COMPLEX, True)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def _compose_pair(a1, ai1, b1, bi1, e1, ei1, f1, fi1, a2, ai2, b2, bi2, e2, ei2, f2, fi2):
    ar, br, er, fr = _compose(a1, b1, e1, f1, a2, b2, e2, f2)
    ai, bi, ei, fi = _compose(ai1, bi1, ei1, fi1, ai2, bi2, ei2, fi2)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def _compose_pair_guarded(a1, ai1, b1, bi1, e1, ei1, f1, fi1, a2, ai2, b2, bi2, e2, ei2, f2, fi2):
    ar, br, er, fr = _compose_guarded(a1, b1, e1, f1, a2, b2, e2, f2)
    ai, bi, ei, fi = _compose_guarded(ai1, bi1, ei1, fi1, ai2, bi2, ei2, fi2)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def prefix(ar, ai, br, bi, KIND: tl.constexpr, GUARD: tl.constexpr):
    """The maps of each row composed with those of the rows above it, and the composition of the rows above alone."""
    er, fr = tl.full(ar.shape, 1.0, ar.dtype), tl.zeros(br.shape, br.dtype)
    ei, fi = er, fr
    if KIND == COMPLEX:
        ei = tl.zeros(ar.shape, ar.dtype)
        ar, ai, br, bi, er, ei, fr, fi = tl.associative_scan((ar, ai, br, bi, er, ei, fr, fi), 0, _compose_complex)
    elif KIND == PAIR:
        parts = (ar, ai, br, bi, er, ei, fr, fi)
        if GUARD:
            ar, ai, br, bi, er, ei, fr, fi = tl.associative_scan(parts, 0, _compose_pair_guarded)
        else:
            ar, ai, br, bi, er, ei, fr, fi = tl.associative_scan(parts, 0, _compose_pair)
    elif GUARD:
        ar, br, er, fr = tl.associative_scan((ar, br, er, fr), 0, _compose_guarded)
    else:
        ar, br, er, fr = tl.associative_scan((ar, br, er, fr), 0, _compose)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def _follow(a1, b1, a2, b2):
    return a2 * a1, a2 * b1 + b2


@triton.jit
def _follow_guarded(a1, b1, a2, b2):
    cut = a2 == 0
    return tl.where(cut, a2, a2 * a1), tl.where(cut, b2, a2 * b1 + b2)


@triton.jit
def _follow_complex(a1, ai1, b1, bi1, a2, ai2, b2, bi2):
    ar, ai = apply(a2, ai2, a1, ai1, 0.0, 0.0, COMPLEX, True)
    br, bi = apply(a2, ai2, b1, bi1, b2, bi2, COMPLEX, True)
    return ar, ai, br, bi


@triton.jit
def _follow_pair(a1, ai1, b1, bi1, a2, ai2, b2, bi2):
    ar, br = _follow(a1, b1, a2, b2)
    ai, bi = _follow(ai1, bi1, ai2, bi2)
    return ar, ai, br, bi


@triton.jit
def _follow_pair_guarded(a1, ai1, b1, bi1, a2, ai2, b2, bi2):
    ar, br = _follow_guarded(a1, b1, a2, b2)
    ai, bi = _follow_guarded(ai1, bi1, ai2, bi2)
    return ar, ai, br, bi


@triton.jit
def compose_rows(ar, ai, br, bi, KIND: tl.constexpr, GUARD: tl.constexpr):
    """The maps of each row composed with those of the rows above it."""
    if KIND == COMPLEX:
        ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, _follow_complex)
    elif KIND == PAIR:
        if GUARD:
            ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, _follow_pair_guarded)
        else:
            ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, _follow_pair)
    elif GUARD:
        ar, br = tl.associative_scan((ar, br), 0, _follow_guarded)
    else:
        ar, br = tl.associative_scan((ar, br), 0, _follow)
    return ar, ai, br, bi


@triton.jit
def last_row(x, ROWS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == ROWS - 1, x, 0.0), 0)
