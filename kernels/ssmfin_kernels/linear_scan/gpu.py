"""Owns the linear scan on a GPU: one pass over memory, time split across the chip, the same sums in the same order.

A program owns a tile, SEGMENTS x STEPS consecutive steps of BLOCK channels of one sequence. It

    1. loads the tile once; a thread holds STEPS consecutive steps of a channel and composes them in registers;
    2. composes the segments of the tile by a scan among threads, and publishes the tile's map h -> A h + H;
    3. finds the state that comes in, applies the map, and stores the result.

Step 3 looks back (Merrill and Garland 2016, Single-pass parallel prefix scan with decoupled look-back), but over a
fixed set in a fixed order, so that the bits never depend on timing: tiles form groups of GROUP; the state that comes
into a group is published by the last tile of the group before, and a tile composes it with the maps of the earlier
tiles of its own group. GROUP = 1, a plain chain, serves where many sequences and channels hide its latency.

Published words need no flags beside them: the workspace is filled with a bit pattern that no result is allowed to
have. Tiles are numbered time first over all sequences and channels, and programs start in this order, so the tiles
that one waits for are running or done.

The backward pass is the same scan the other way (`naive.py`): at step t it takes the coefficient of the step before it
in its own direction, and multiplies by the state before t as it stores. It reads a, h and the gradient once.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.linear_scan import operators

_MANY = 256  # sequences x channel blocks from which a plain chain of tiles is hidden behind the others
_GROUP = 32
# (SEGMENTS, STEPS, BLOCK, warps) by (words of a value, 1 real and 2 complex; backward). BLOCK values fill a line of the
# cache, 128 bytes; STEPS is as large as registers hold with three or four programs on a multiprocessor.
_TILES = {
    (1, False): (16, 16, 32, 4),
    (1, True): (16, 8, 32, 4),
    (2, False): (16, 8, 16, 4),
    (2, True): (16, 4, 16, 4),
}


@triton.jit
def _apply(ar, ai, xr, xi, br, bi, COMPLEX: tl.constexpr, GUARD: tl.constexpr):
    """a x + b; with GUARD a zero a, which a reset leaves, keeps even a NaN in x from crossing."""
    if COMPLEX:
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
    ar, ai = _apply(a2, ai2, a1, ai1, 0.0, 0.0, True, True)
    br, bi = _apply(a2, ai2, b1, bi1, b2, bi2, True, True)
    er, ei = _apply(e2, ei2, a1, ai1, 0.0, 0.0, True, True)
    fr, fi = _apply(e2, ei2, b1, bi1, f2, fi2, True, True)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def _prefix(ar, ai, br, bi, COMPLEX: tl.constexpr, GUARD: tl.constexpr):
    """The maps of each row composed with those of the rows above it, and the composition of the rows above alone."""
    er, fr = tl.full(ar.shape, 1.0, ar.dtype), tl.zeros(br.shape, br.dtype)
    ei, fi = er, fr
    if COMPLEX:
        ei = tl.zeros(ar.shape, ar.dtype)
        ar, ai, br, bi, er, ei, fr, fi = tl.associative_scan((ar, ai, br, bi, er, ei, fr, fi), 0, _compose_complex)
    elif GUARD:
        ar, br, er, fr = tl.associative_scan((ar, br, er, fr), 0, _compose_guarded)
    else:
        ar, br, er, fr = tl.associative_scan((ar, br, er, fr), 0, _compose)
    return ar, ai, br, bi, er, ei, fr, fi


@triton.jit
def _last_row(x, ROWS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == ROWS - 1, x, 0.0), 0)


@triton.jit
def _load(pointer, offset, mask, other, COMPLEX: tl.constexpr, STATE: tl.constexpr):
    """Values at `offset`, as real and imaginary part; `other`, a real number, where masked."""
    if COMPLEX:
        # both parts by one wide load: two loads of every second word take three times as long
        part = tl.arange(0, 2)
        word = tl.expand_dims(2 * offset, -1) + part
        both = tl.expand_dims(mask, -1) & (part >= 0)
        re, im = tl.split(tl.load(pointer + word, mask=both, other=tl.where(part == 0, other, 0.0)))
        re, im = re.to(STATE), im.to(STATE)
    else:
        re = tl.load(pointer + offset, mask=mask, other=other).to(STATE)
        im = re
    return re, im


@triton.jit
def _store(pointer, offset, re, im, mask, COMPLEX: tl.constexpr):
    if COMPLEX:
        part = tl.arange(0, 2)
        word = tl.expand_dims(2 * offset, -1) + part
        both = tl.expand_dims(mask, -1) & (part >= 0)
        tl.store(pointer + word, tl.join(re, im).to(pointer.dtype.element_ty), mask=both)
    else:
        tl.store(pointer + offset, re.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _publish(pointer, value):
    word = value.to(pointer.dtype.element_ty, bitcast=True)
    tl.store(pointer, word - (word == -1).to(pointer.dtype.element_ty))  # -1 says "not yet"; -2 is as much a NaN


@triton.jit
def _await(pointer, mask, other, STATE: tl.constexpr):
    word = tl.load(pointer, mask=mask, other=0, volatile=True)
    while tl.max((word == -1).to(tl.int32)) > 0:
        word = tl.load(pointer, mask=mask, other=0, volatile=True)
    return tl.where(mask, word.to(STATE, bitcast=True), other)


@triton.jit
def _scan_kernel(
    a_ptr,
    x_ptr,  # b, or the gradient of h
    initial_ptr,  # the state the walk begins with: the initial state, or the gradient of the final one
    reset_ptr,
    h_ptr,  # backward: the states, and the state before the first of them
    before_ptr,
    y_ptr,  # the result of the scan: h, or the gradient of b
    da_ptr,
    last_ptr,  # the last state of the walk, or the gradient of the initial state
    maps_ptr,  # workspace: the map of each tile
    states_ptr,  # workspace: the state at the end of each group of tiles
    B,
    T,
    D,
    BACKWARD: tl.constexpr,
    DOWN: tl.constexpr,  # the walk goes from the last step to the first
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    COMPLEX: tl.constexpr,
    STATE: tl.constexpr,
    GROUP: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WORDS: tl.constexpr = 2 if COMPLEX else 1
    columns = tl.cdiv(D, BLOCK)
    lanes = B * columns
    tile = tl.program_id(0) // lanes
    lane = tl.program_id(0) % lanes
    i = (lane // columns).to(tl.int64)
    d = (lane % columns) * BLOCK + tl.arange(0, BLOCK)
    inside = d < D
    row = i * T
    segment = tl.arange(0, SEGMENTS)[:, None]
    first = tile * (SEGMENTS * STEPS) + segment * STEPS  # step of the walk at which each segment begins

    # 1. the tile, composed along the steps of each thread. Steps past the end are the identity map.
    pr, pi, hr, hi = (), (), (), ()
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        mask = (q < T) & inside[None, :]
        source = (t + 1 if DOWN else t - 1) if BACKWARD else t  # the step whose coefficient leads here
        taken = mask & (q > 0) if BACKWARD else mask
        ar, ai = _load(a_ptr, (row + source) * D + d[None, :], taken, 1.0, COMPLEX, STATE)
        xr, xi = _load(x_ptr, (row + t) * D + d[None, :], mask, 0.0, COMPLEX, STATE)
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
            nr, ni = _apply(ar, ai, pr[r - 1], pi[r - 1], zero, zero, COMPLEX, HAS_RESET)
            mr, mi = _apply(ar, ai, hr[r - 1], hi[r - 1], xr, xi, COMPLEX, HAS_RESET)
            pr, pi, hr, hi = pr + (nr,), pi + (ni,), hr + (mr,), hi + (mi,)

    ur_all, ui_all = (), ()  # the state before each step, asked for now so that it has come when it is needed
    if BACKWARD:
        for r in tl.static_range(STEPS):
            q = first + r
            t = T - 1 - q if DOWN else q
            mask = (q < T) & inside[None, :]
            before = t - 1 if DOWN else t + 1
            ur, ui = _load(h_ptr, (row + before) * D + d[None, :], mask & (q < T - 1), 0.0, COMPLEX, STATE)
            if HAS_BEFORE:
                vr, vi = _load(before_ptr, i * D + d[None, :], mask & (q == T - 1), 0.0, COMPLEX, STATE)
                ur = tl.where(q == T - 1, vr, ur)
                ui = tl.where(q == T - 1, vi, ui)
            ur_all, ui_all = ur_all + (ur,), ui_all + (ui,)

    # 2. the segments, composed among threads
    Pr, Pi, Hr, Hi, Er, Ei, Fr, Fi = _prefix(
        pr[STEPS - 1], pi[STEPS - 1], hr[STEPS - 1], hi[STEPS - 1], COMPLEX, HAS_RESET
    )
    Ar, Br = _last_row(Pr, SEGMENTS), _last_row(Hr, SEGMENTS)
    Ai, Bi = Ar, Br
    if COMPLEX:
        Ai, Bi = _last_row(Pi, SEGMENTS), _last_row(Hi, SEGMENTS)
    lane_words = tl.arange(0, BLOCK)
    if GROUP > 1:
        mine = maps_ptr + (tile.to(tl.int64) * lanes + lane) * (2 * WORDS * BLOCK) + lane_words
        _publish(mine, Ar)
        _publish(mine + BLOCK, Br)
        if COMPLEX:
            _publish(mine + 2 * BLOCK, Ai)
            _publish(mine + 3 * BLOCK, Bi)

    # 3. the state that comes in: that of the group, through the maps of the group's earlier tiles
    group = tile // GROUP
    member = tile % GROUP
    Lr, Li = tl.full((BLOCK,), 1.0, STATE), tl.zeros((BLOCK,), STATE)
    Kr, Ki = tl.zeros((BLOCK,), STATE), tl.zeros((BLOCK,), STATE)
    if GROUP > 1:
        other = tl.arange(0, GROUP)[:, None]
        earlier = (other < member) & (lane_words >= 0)[None, :]
        theirs = maps_ptr + ((group * GROUP + other).to(tl.int64) * lanes + lane) * (2 * WORDS * BLOCK)
        theirs += lane_words[None, :]
        lr = _await(theirs, earlier, 1.0, STATE)
        kr = _await(theirs + BLOCK, earlier, 0.0, STATE)
        li, ki = lr, kr
        if COMPLEX:
            li = _await(theirs + 2 * BLOCK, earlier, 0.0, STATE)
            ki = _await(theirs + 3 * BLOCK, earlier, 0.0, STATE)
        lr, li, kr, ki, _, _, _, _ = _prefix(lr, li, kr, ki, COMPLEX, HAS_RESET)
        Lr, Kr = _last_row(lr, GROUP), _last_row(kr, GROUP)
        if COMPLEX:
            Li, Ki = _last_row(li, GROUP), _last_row(ki, GROUP)
    cr, ci = tl.zeros((BLOCK,), STATE), tl.zeros((BLOCK,), STATE)
    if group == 0:
        if HAS_INITIAL:
            cr, ci = _load(initial_ptr, i * D + d, inside, 0.0, COMPLEX, STATE)
    else:
        known = states_ptr + ((group - 1).to(tl.int64) * lanes + lane) * (WORDS * BLOCK) + lane_words
        cr = _await(known, lane_words >= 0, 0.0, STATE)
        ci = cr
        if COMPLEX:
            ci = _await(known + BLOCK, lane_words >= 0, 0.0, STATE)
    cr, ci = _apply(Lr, Li, cr, ci, Kr, Ki, COMPLEX, HAS_RESET)
    er, ei = _apply(Ar, Ai, cr, ci, Br, Bi, COMPLEX, HAS_RESET)  # at the end of the tile
    if member == GROUP - 1:
        ours = states_ptr + (group.to(tl.int64) * lanes + lane) * (WORDS * BLOCK) + lane_words
        _publish(ours, er)
        if COMPLEX:
            _publish(ours + BLOCK, ei)

    # into each segment, and out of each step
    sr, si = _apply(Er, Ei, cr[None, :], ci[None, :], Fr, Fi, COMPLEX, HAS_RESET)
    for r in tl.static_range(STEPS):
        q = first + r
        t = T - 1 - q if DOWN else q
        mask = (q < T) & inside[None, :]
        offset = (row + t) * D + d[None, :]
        yr, yi = _apply(pr[r], pi[r], sr, si, hr[r], hi[r], COMPLEX, HAS_RESET)
        _store(y_ptr, offset, yr, yi, mask, COMPLEX)
        if BACKWARD:
            ur, ui = ur_all[r], ui_all[r]
            if HAS_RESET:
                boundary = t if DOWN else t + 1
                met = (q < T) & (DOWN | (q < T - 1))
                cut = tl.load(reset_ptr + row + boundary, mask=met, other=0) != 0
                ur = tl.where(cut, 0.0, ur)
                ui = tl.where(cut, 0.0, ui)
            zero = tl.zeros_like(ur)
            gr, gi = _apply(ur, -ui, yr, yi, zero, zero, COMPLEX, HAS_RESET)
            _store(da_ptr, offset, gr, gi, mask, COMPLEX)

    if (tile + 1) * (SEGMENTS * STEPS) >= T:
        if BACKWARD:
            end = 0 if DOWN else T - 1
            fr, fi = _load(a_ptr, (row + end) * D + d, inside, 0.0, COMPLEX, STATE)
            if HAS_RESET and DOWN:
                dropped = tl.load(reset_ptr + row) != 0
                fr = tl.where(dropped, 0.0, fr)
                fi = tl.where(dropped, 0.0, fi)
            none = tl.zeros((BLOCK,), STATE)
            er, ei = _apply(fr, -fi, er, ei, none, none, COMPLEX, HAS_RESET)
        _store(last_ptr, i * D + d, er, ei, inside, COMPLEX)


def _launch(
    a: Tensor,
    x: Tensor,
    initial: Tensor | None,
    reset: Tensor | None,
    h: Tensor | None,
    before: Tensor | None,
    y: Tensor,
    da: Tensor | None,
    last: Tensor,
    reverse: bool,
) -> None:
    B, T, D = a.shape
    backward = h is not None
    state = library.state_dtype(a.dtype)
    words = 2 if state.is_complex else 1
    word = torch.int64 if state in (torch.float64, torch.complex128) else torch.int32
    segments, steps, block, warps = _TILES[words, backward]
    lanes = B * triton.cdiv(D, block)
    tiles = triton.cdiv(T, segments * steps)
    group = 1 if lanes >= _MANY else _GROUP
    maps = torch.full((tiles * lanes * 2 * words * block if group > 1 else 0,), -1, dtype=word, device=a.device)
    states = torch.full((triton.cdiv(tiles, group) * lanes * words * block,), -1, dtype=word, device=a.device)
    given = [None if z is None else torch.view_as_real(z) if z.is_complex() else z for z in (initial, h, before, da)]
    real = [torch.view_as_real(z) if z.is_complex() else z for z in (a, x, y, last)]
    kernel: Any = _scan_kernel[(tiles * lanes,)]
    kernel(
        real[0],
        real[1],
        given[0],
        None if reset is None else reset.view(torch.uint8),
        given[1],
        given[2],
        real[2],
        given[3],
        real[3],
        maps,
        states,
        B,
        T,
        D,
        BACKWARD=backward,
        DOWN=reverse != backward,
        HAS_INITIAL=initial is not None,
        HAS_RESET=reset is not None,
        HAS_BEFORE=before is not None,
        COMPLEX=words == 2,
        STATE=tl.float64 if word == torch.int64 else tl.float32,
        GROUP=group,
        SEGMENTS=segments,
        STEPS=steps,
        BLOCK=block,
        num_warps=warps,
    )


@library.operator("linear_scan_gpu")
def linear_scan_gpu(
    a: Tensor, b: Tensor, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Contiguous (B, T, D), (B, T, D), (B, D) or None, (B, T) bool or None -> h (B, T, D), final state (B, D)."""
    h, final_state = torch.empty_like(b), b.new_empty(b.shape[0], b.shape[2])
    _launch(a, b, initial_state, reset, None, None, h, None, final_state, reverse)
    return h, final_state


@library.operator("linear_scan_gpu_backward")
def linear_scan_gpu_backward(
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    grad_h: Tensor,
    grad_final: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and the initial state; a, h, grad_h (B, T, D) and grad_final (B, D) contiguous."""
    da, db, d_initial = torch.empty_like(a), torch.empty_like(a), a.new_empty(a.shape[0], a.shape[2])
    _launch(a, grad_h, grad_final, reset, h, initial_state, db, da, d_initial, reverse)
    return da, db, d_initial


operators.register(linear_scan_gpu, linear_scan_gpu_backward)
