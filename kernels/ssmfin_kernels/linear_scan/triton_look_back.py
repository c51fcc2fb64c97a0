"""Owns the linear scan's kernel: one pass over memory, time split across the chip, the same sums in the same order.

A program takes tile after tile. It

    1. loads the tile once, and composes its steps in registers;
    2. composes the segments of the tile by a scan among threads, and publishes the tile's map h -> A h + H;
    3. finds the state that comes in, applies the map, and stores the result.

Step 3 looks back (Merrill and Garland 2016, Single-pass parallel prefix scan with decoupled look-back), but over a
fixed set in a fixed order, so that the bits never depend on timing: tiles form groups of GROUP; the last tile of a
group publishes the state at its end, and a tile takes the state from which the group before its own began, through the
maps of all tiles since: one state in two groups waits for another. GROUP = 1, a plain chain from tile to tile, serves
where many sequences and channels hide its latency.

Published words need no flags beside them: the workspace is filled with a bit pattern that no result is allowed to
have. No program waits for one that may not have begun: programs draw the numbers of their tiles, which go time first
over all sequences and channels, so that the tiles one waits for were drawn before it by programs that run or are done.
The next number is drawn while what is awaited is on its way; in groups, where others wait for the map of what is drawn,
not before the program can turn to it. With PREFETCH it is drawn as soon as the tile is asked for, and its lines are
brought into the second-level cache meanwhile: that pays where a tile in registers is few bytes in memory.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.dispatch import interpreting
from ssmfin_kernels.linear_scan.triton_maps import COMPLEX, PAIR, REAL, apply, compose_rows, last_row, prefix
from ssmfin_kernels.linear_scan.triton_tiles import compose_tile, fetch_tile, store_last, store_tile
from ssmfin_kernels.linear_scan.triton_words import load, prefetch

INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def _publish(pointer, value):
    word = value.to(pointer.dtype.element_ty, bitcast=True)
    tl.store(pointer, word - (word == -1).to(pointer.dtype.element_ty))  # -1 says "not yet"; -2 is as much a NaN


# Waiting, every thread must see for itself what it is going to use. Of fewer words than a program has threads, warps
# hold copies, each read at its own moment, and a maximum over words that spread over several warps asks one copy of
# each. So a row of words has 32, one a lane: then a maximum stays in its warp, and a warp goes on when its own copy is
# complete. A table of maps has as many words as threads or more, hence no copies.


@triton.jit
def _peek(pointer, mask):
    return tl.load(pointer, mask=mask, other=0, volatile=True)


@triton.jit
def _missing(unwritten):
    return tl.max(unwritten.to(tl.int32))


@triton.jit
def _value(word, mask, other, STATE: tl.constexpr):
    return tl.where(mask, word.to(STATE, bitcast=True), other)


@triton.jit
def look_back_kernel(
    a_ptr,
    x_ptr,  # b, or the gradient of h
    initial_ptr,  # the state the walk begins with: the initial state, or the gradient of the final one
    reset_ptr,
    h_ptr,  # backward: the states, and the state before the first of them
    before_ptr,
    y_ptr,  # the result of the scan: h, or the gradient of b
    da_ptr,
    last_ptr,  # the last state of the walk, or the gradient of the initial state
    drawn_ptr,  # workspace: the last number drawn
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
    KIND: tl.constexpr,
    STATE: tl.constexpr,
    HALF: tl.constexpr,  # of a PAIR, the type of its channels
    GROUP: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PREFETCH: tl.constexpr,  # ask for the next tile early
    ROWS: tl.constexpr,  # a power of two no less than the steps of a tile
):
    SPAN: tl.constexpr = 1 if GROUP == 1 else 2 * GROUP  # tiles whose maps are taken, its own for the last
    HALVED: tl.constexpr = KIND == REAL and (8 if INTERPRETED else 64) == BLOCK
    PIECE: tl.constexpr = BLOCK // 2 if HALVED else BLOCK  # words of a state that are awaited together
    PIECES: tl.constexpr = 1 if KIND == REAL and not HALVED else 2  # the parts, or the halves of the block
    tl.static_assert(INTERPRETED or (PIECE == 32 and (SPAN == 1 or SPAN >= 8)), "copies: see _peek")
    PARTS: tl.constexpr = 1 if KIND == REAL else 2
    WIDTH: tl.constexpr = 2 if KIND == COMPLEX else 1  # words of a number in memory
    columns = tl.cdiv(D, BLOCK)
    lanes = B * columns
    total = lanes * tl.cdiv(T, SEGMENTS * STEPS)
    words = tl.arange(0, BLOCK)
    piece = tl.arange(0, PIECE)
    every = words >= 0
    number = (tl.atomic_add(drawn_ptr, 1) + 1).to(tl.int32)
    while number < total:
        tile = number // lanes
        lane = number % lanes
        i = (lane // columns).to(tl.int64)
        column = (lane % columns) * BLOCK
        d = column + words
        inside = d < D
        row = i * T
        first = tile * (SEGMENTS * STEPS) + tl.arange(0, SEGMENTS)[:, None] * STEPS

        # 1. the tile, composed along the steps of each thread
        raw = fetch_tile(a_ptr, x_ptr, h_ptr, row, first, column, T, D, BACKWARD, DOWN, KIND, HALF, STEPS, BLOCK)
        if PREFETCH:
            coming = (tl.atomic_add(drawn_ptr, 1) + 1).to(tl.int32)
            ahead = (coming // lanes) * (SEGMENTS * STEPS)
            end = tl.where(coming < total, ahead + SEGMENTS * STEPS, 0)
            line = ((coming % lanes) // columns).to(tl.int64) * T
            word = (coming % columns) * (WIDTH * BLOCK)
            prefetch(a_ptr, line, ahead, end, word, T, WIDTH * D, DOWN, WIDTH * BLOCK, ROWS)
            prefetch(x_ptr, line, ahead, end, word, T, WIDTH * D, DOWN, WIDTH * BLOCK, ROWS)
            if BACKWARD:
                prefetch(h_ptr, line, ahead, end, word, T, WIDTH * D, DOWN, WIDTH * BLOCK, ROWS)
        raw, pr, pi, hr, hi = compose_tile(
            raw, reset_ptr, row, first, T, BACKWARD, DOWN, HAS_RESET, KIND, STATE, HALF, SEGMENTS, STEPS, BLOCK
        )

        # 2. the segments, composed among threads
        Pr, Pi, Hr, Hi, Er, Ei, Fr, Fi = prefix(pr, pi, hr, hi, KIND, HAS_RESET)
        Ar, Br = last_row(Pr, SEGMENTS), last_row(Hr, SEGMENTS)
        Ai, Bi = Ar, Br
        if PARTS == 2:
            Ai, Bi = last_row(Pi, SEGMENTS), last_row(Hi, SEGMENTS)
        if GROUP > 1:
            mine = maps_ptr + (tile.to(tl.int64) * lanes + lane) * (2 * PARTS * BLOCK) + words
            _publish(mine, Ar)
            _publish(mine + BLOCK, Br)
            if PARTS == 2:
                _publish(mine + 2 * BLOCK, Ai)
                _publish(mine + 3 * BLOCK, Bi)

        # 3. the state that comes in. All that is awaited is asked for at once: one after the other, each would take its
        # own way to the cache and back
        group = tile // GROUP
        begun = tl.maximum(group - 1, 0) if GROUP > 1 else group  # the first group whose maps are taken
        later = (begun > 0) & every
        there = (begun > 0) & (piece >= 0)
        known = states_ptr + ((begun - 1).to(tl.int64) * lanes + lane) * (PARTS * BLOCK) + piece
        state_r = _peek(known, there)
        state_i = state_r
        if PIECES == 2:
            state_i = _peek(known + PIECE, there)
        if GROUP > 1:
            other = begun * GROUP + tl.arange(0, SPAN)[:, None]
            earlier = (other < tile) & every[None, :]
            theirs = maps_ptr + (other.to(tl.int64) * lanes + lane) * (2 * PARTS * BLOCK) + words[None, :]
            lr, kr = _peek(theirs, earlier), _peek(theirs + BLOCK, earlier)
            li, ki = lr, kr
            if PARTS == 2:
                li, ki = _peek(theirs + 2 * BLOCK, earlier), _peek(theirs + 3 * BLOCK, earlier)
        if GROUP == 1 and not PREFETCH:
            coming = (tl.atomic_add(drawn_ptr, 1) + 1).to(tl.int32)
        if GROUP > 1:
            if PARTS == 2:
                while _missing((lr == -1) | (kr == -1) | (li == -1) | (ki == -1)) > 0:
                    lr, kr = _peek(theirs, earlier), _peek(theirs + BLOCK, earlier)
                    li, ki = _peek(theirs + 2 * BLOCK, earlier), _peek(theirs + 3 * BLOCK, earlier)
            else:
                while _missing((lr == -1) | (kr == -1)) > 0:
                    lr, kr = _peek(theirs, earlier), _peek(theirs + BLOCK, earlier)
                li, ki = lr, kr
            lr, li, kr, ki = compose_rows(
                _value(lr, earlier, 1.0, STATE),
                _value(li, earlier, 1.0 if KIND == PAIR else 0.0, STATE),
                _value(kr, earlier, 0.0, STATE),
                _value(ki, earlier, 0.0, STATE),
                KIND,
                HAS_RESET,
            )
            Lr, Kr = last_row(lr, SPAN), last_row(kr, SPAN)
            Li, Ki = Lr, Kr
            if PARTS == 2:
                Li, Ki = last_row(li, SPAN), last_row(ki, SPAN)
        if PIECES == 2:
            while _missing((state_r == -1) | (state_i == -1)) > 0:
                state_r, state_i = _peek(known, there), _peek(known + PIECE, there)
        else:
            while _missing(state_r == -1) > 0:
                state_r = _peek(known, there)
            state_i = state_r
        cr, ci = _value(state_r, there, 0.0, STATE), _value(state_i, there, 0.0, STATE)
        if HALVED:
            cr = tl.reshape(tl.permute(tl.join(cr, ci), (1, 0)), (BLOCK,))
            ci = cr
        if HAS_INITIAL:
            sr, si = load(initial_ptr, i * D + d, inside & (begun == 0), KIND, STATE, HALF)
            cr, ci = tl.where(later, cr, sr), tl.where(later, ci, si)
        if GROUP > 1:
            cr, ci = apply(Lr, Li, cr, ci, Kr, Ki, KIND, HAS_RESET)
        er, ei = apply(Ar, Ai, cr, ci, Br, Bi, KIND, HAS_RESET)  # at the end of the tile
        if tile % GROUP == GROUP - 1:
            ours = states_ptr + (group.to(tl.int64) * lanes + lane) * (PARTS * BLOCK) + words
            _publish(ours, er)
            if PARTS == 2:
                _publish(ours + BLOCK, ei)

        if GROUP > 1:
            coming = (tl.atomic_add(drawn_ptr, 1) + 1).to(tl.int32)
        # into each segment, and out of each step
        sr, si = apply(Er, Ei, cr[None, :], ci[None, :], Fr, Fi, KIND, HAS_RESET)
        store_tile(
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
            BACKWARD,
            DOWN,
            HAS_RESET,
            HAS_BEFORE,
            KIND,
            STATE,
            HALF,
            SEGMENTS,
            STEPS,
            BLOCK,
        )
        if (tile + 1) * (SEGMENTS * STEPS) >= T:
            store_last(
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
                BACKWARD,
                DOWN,
                HAS_RESET,
                KIND,
                STATE,
                HALF,
                BLOCK,
            )
        number = coming
