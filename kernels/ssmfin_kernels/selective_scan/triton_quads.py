"""Owns four steps of the selective scan at once: which lane of a warp holds which state, step and channel, forwards.

A warp owns 8 channels (R times 8), each by four lanes: lane l has channel l // 4, place j = l % 4. Every tensor here is
(32,), one number a lane, or (32 W,) for W warps, each with a `first` channel of its own. The four lanes share two jobs.
For the recurrence they divide the states: lane j holds states NL j .. NL j + NL - 1, and as many of each further 4 NL.
For everything that has no state (step size, gate, skip, memory) they divide the time: a quad is four steps of 8
channels, lane j holding step j, so that no lane repeats another's softplus. `spread` hands a step's number from its
lane to all four; `fold` adds what four lanes have of each of four steps, and leaves step j with lane j.

Rows of B and C are the same for all channels. A warp reads four of them as one block, whole lines of memory, a word a
lane, so that a block costs few registers and can be asked for long before it is needed; `row` hands the words out. A
word is P numbers of 16 bits (P = 2) or one (P = 1), and W = NL / P. Tile k = (q W + w) P + p holds states 4 NL q + NL j
+ P w + p: number p of word 4 W q + W j + w of a row. Rows lie PITCH words apart in a block, a power of two.

Channels past the end are computed as the last one is and not stored: loads then need no mask.

`memory` is (u, delta, z, reset, B, C, B in words, C in words), all at their sequence, the last two at their group.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import lanes, pick, swap
from ssmfin_kernels.selective_scan.triton_memory import fetch, fetch_all, number, put, put_all
from ssmfin_kernels.selective_scan.triton_parts import LOG2_E, exp2, prefetch_rows, sigmoid, softplus, wide


@triton.jit
def spread(quad, s):
    """The number of step s, in all four lanes of a channel."""
    return pick(quad, tl.arange(0, quad.shape[0]) % 32 // 4 * 4 + s)


@triton.jit
def fold(a, b, c, d):
    """The quad whose steps are the sums over the four lanes of each of four tensors."""
    lane = tl.arange(0, a.shape[0])
    odd = (lane & 1) == 1
    high = (lane & 2) == 2
    first = tl.where(odd, b, a) + swap(tl.where(odd, a, b), 1)
    second = tl.where(odd, d, c) + swap(tl.where(odd, c, d), 1)
    return tl.where(high, second, first) + swap(tl.where(high, first, second), 2)


@triton.jit
def words(ptr, P: tl.constexpr):
    """A pointer to numbers as one to words of P numbers."""
    if P == 2:
        return ptr.to(tl.pointer_type(tl.int32), bitcast=True)
    else:
        return ptr


@triton.jit
def channel(first, end, r, W: tl.constexpr = 1):
    """The lane's channel of tile r."""
    return tl.minimum(first + 8 * r + lanes(W) // 4, end - 1)


@triton.jit
def stored(first, end, r, W: tl.constexpr = 1):
    """Whether the lane's channel of tile r is one."""
    return first + 8 * r + lanes(W) // 4 < end


@triton.jit
def vector(ptr, first, end, GIVEN: tl.constexpr, R: tl.constexpr, W: tl.constexpr = 1):
    """R quads of a vector of channels, zero where there is none."""
    quads = ()
    for r in tl.static_range(R):
        if GIVEN:
            quads = quads + (fetch_all(ptr + channel(first, end, r, W)),)
        else:
            quads = quads + (tl.zeros([32 * W], tl.float32),)
    return quads


@triton.jit
def state(k, NL: tl.constexpr, W: tl.constexpr = 1):
    """The lane's state of tile k."""
    return k // NL * 4 * NL + NL * (lanes(W) % 4) + k % NL


@triton.jit
def states(ptr, first, end, N: tl.constexpr, R: tl.constexpr, S: tl.constexpr, NL: tl.constexpr, W: tl.constexpr = 1):
    """R x S NL tiles of a matrix (D, N); states past the last are zero, and stay so."""
    tiles = ()
    for r in tl.static_range(R):
        for k in tl.static_range(S * NL):
            n = state(k, NL, W)
            tiles = tiles + (fetch(ptr + channel(first, end, r, W) * N + n, n < N),)
    return tiles


@triton.jit
def rates(A, first, end, N: tl.constexpr, R: tl.constexpr, S: tl.constexpr, NL: tl.constexpr, W: tl.constexpr = 1):
    """A log2(e), as `states` has it: the decay is then one exp2."""
    A = states(A, first, end, N, R, S, NL, W)
    tiles = ()
    for e in tl.static_range(R * S * NL):
        tiles = tiles + (A[e] * LOG2_E,)
    return tiles


@triton.jit
def zeros(COUNT: tl.constexpr, W: tl.constexpr = 1):
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros([32 * W], tl.float32),)
    return tiles


@triton.jit
def store_states(
    ptr,
    tiles,
    first,
    end,
    N: tl.constexpr,
    STRIDE_N: tl.constexpr,
    STRIDE_D: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    NL: tl.constexpr,
    W: tl.constexpr = 1,
):
    for r in tl.static_range(R):
        for k in tl.static_range(S * NL):
            n = state(k, NL, W)
            at = ptr + n * STRIDE_N + channel(first, end, r, W) * STRIDE_D
            put(at, tiles[r * S * NL + k], stored(first, end, r, W) & (n < N))


@triton.jit
def keep(ptr, tiles, COUNT: tl.constexpr):
    """For the backward pass: tiles as they are, whole lines of memory, (8 channels, state tile, lane)."""
    for e in tl.static_range(COUNT):
        put_all(ptr + (e * 32 + tl.arange(0, 32)), tiles[e])


@triton.jit
def store_quads(
    ptr,
    quads,
    first,
    end,
    t,
    v,
    stop,
    D: tl.constexpr,
    R: tl.constexpr,
    TAIL: tl.constexpr,
    W: tl.constexpr = 1,
):
    step = lanes(W) % 4
    base = ptr + wide(t) * D + 4 * v * D
    for r in tl.static_range(R):
        inside = stored(first, end, r, W)
        if TAIL:
            inside = inside & (t + 4 * v + step < stop)
        put(base + (step * D + channel(first, end, r, W)), quads[r], inside)


@triton.jit
def wide_quads(
    ptr,
    first,
    end,
    t,
    v,
    stop,
    GIVEN: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    Q: tl.constexpr,
    TAIL: tl.constexpr,
):
    """R quads of (T, D) in words of Q numbers, steps from `stop` on zero; none unless GIVEN.

    With Q = 2 two lanes read the word that holds both their numbers: a loop that carried 16 bits would wait for the
    load, to put them into half a register.
    """
    quads = ()
    if GIVEN:
        step = tl.arange(0, 32) % 4
        base = words(ptr, Q) + (wide(t) * (D // Q) + 4 * v * (D // Q))
        for r in tl.static_range(R):
            at = base + (step * D + channel(first, end, r)) // Q
            if TAIL:
                quads = quads + (fetch(at, t + 4 * v + step < stop),)
            else:
                quads = quads + (fetch_all(at),)
    return quads


@triton.jit
def blocks(
    ptr,
    t,
    v,
    stop,
    GIVEN: tl.constexpr,
    WORDS: tl.constexpr,
    STRIDE: tl.constexpr,
    PITCH: tl.constexpr,
    TAIL: tl.constexpr,
):
    """Four rows of WORDS words, 32 to a register, steps from `stop` on zero; none unless GIVEN."""
    registers = ()
    if GIVEN:
        base = ptr + (wide(t) * STRIDE + 4 * v * STRIDE)
        for b in tl.static_range((4 * PITCH + 31) // 32):
            place = 32 * b + tl.arange(0, 32)
            at = base + (place // PITCH * STRIDE + place % PITCH)
            if TAIL:
                inside = (place % PITCH < WORDS) & (place < 4 * PITCH) & (t + 4 * v + place // PITCH < stop)
                registers = registers + (fetch(at, inside),)
            elif WORDS == PITCH and PITCH >= 8:
                registers = registers + (fetch_all(at),)
            else:
                inside = (place % PITCH < WORDS) & (place < 4 * PITCH)
                registers = registers + (fetch(at, inside),)
    return registers


@triton.jit
def row(registers, s, q, w, W: tl.constexpr, PITCH: tl.constexpr):
    """Word 4 W q + W j + w of step s."""
    source = (s * PITCH + 4 * W * q) % 32 + w + W * (tl.arange(0, 32) % 4)
    return tl.gather(registers[(s * PITCH + 4 * W * q) // 32], source, 0)


@triton.jit
def read(
    memory,
    first,
    end,
    t,
    v,
    stop,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Z: tl.constexpr,
    OUT: tl.constexpr,
    RESET: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    NL: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    TAIL: tl.constexpr,
):
    """Steps t + 4 v to t + 4 v + 3: quads of u, delta, z; whether a step starts a sequence; blocks of B and C.

    Without OUT neither z nor C. TAIL where steps may lie past `stop`: they are zero.
    """
    fresh = ()
    if RESET:
        step = t + 4 * v + tl.arange(0, 32) % 4
        fresh = (fetch(memory[3] + step, step < stop).to(tl.int32),)
    PITCH: tl.constexpr = 4 * (NL // P) * triton.next_power_of_2(S)
    return (
        wide_quads(memory[0], first, end, t, v, stop, True, D, R, Q, TAIL),
        wide_quads(memory[1], first, end, t, v, stop, True, D, R, Q, TAIL),
        wide_quads(memory[2], first, end, t, v, stop, Z and OUT, D, R, Q, TAIL),
        fresh,
        blocks(memory[6], t, v, stop, True, N // P, G * N // P, PITCH, TAIL),
        blocks(memory[7], t, v, stop, OUT, N // P, G * N // P, PITCH, TAIL),
    )


@triton.jit
def prefetch_quads(
    memory,
    first,
    end,
    t,
    stop,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Z: tl.constexpr,
    OUT: tl.constexpr,
    R: tl.constexpr,
    P: tl.constexpr,
    COUNT: tl.constexpr,
):
    """Bring what `read` reads of COUNT steps from t on to the L2 cache.

    Nobody waits for that. `read` alone is not early enough: all loads under way share one of the few counters that a
    warp can wait for, so whoever waits for a row waits for all that were asked for after it.
    """
    prefetch_rows(memory[0], t, stop, first, end, D, 8 * R, COUNT)
    prefetch_rows(memory[1], t, stop, first, end, D, 8 * R, COUNT)
    if Z and OUT:
        prefetch_rows(memory[2], t, stop, first, end, D, 8 * R, COUNT)
    WIDTH: tl.constexpr = triton.next_power_of_2(N // P)
    prefetch_rows(memory[6], t, stop, 0, N // P, G * (N // P), WIDTH, COUNT)
    if OUT:
        prefetch_rows(memory[7], t, stop, 0, N // P, G * (N // P), WIDTH, COUNT)


@triton.jit
def advance(
    h,
    rate,
    shift,
    rows,
    memory,
    first,
    end,
    t,
    v,
    stop,
    SOFTPLUS: tl.constexpr,
    OUT: tl.constexpr,
    RESET: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    NL: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    TAIL: tl.constexpr,
):
    """The states four steps later, R quads of dt and, with OUT, of sum_n C h."""
    W: tl.constexpr = NL // P
    PITCH: tl.constexpr = 4 * W * triton.next_power_of_2(S)
    sizes = ()
    inputs = ()
    for r in tl.static_range(R):
        half = channel(first, end, r) % Q
        dt = number(rows[1][r], half, memory[1]) + shift[r]
        if SOFTPLUS:
            dt = softplus(dt)
        if TAIL:
            dt = tl.where(t + 4 * v + tl.arange(0, 32) % 4 < stop, dt, 0.0)
        sizes = sizes + (dt,)
        inputs = inputs + (dt * number(rows[0][r], half, memory[0]),)

    parts = ()
    for s in tl.static_range(4):
        b = ()
        c = ()
        for q in tl.static_range(S):
            for w in tl.static_range(W):
                word_b = row(rows[4], s, q, w, W, PITCH)
                for p in tl.static_range(P):
                    b = b + (number(word_b, p, memory[4]),)
                if OUT:
                    word_c = row(rows[5], s, q, w, W, PITCH)
                    for p in tl.static_range(P):
                        c = c + (number(word_c, p, memory[5]),)
        after = ()
        for r in tl.static_range(R):
            dt = spread(sizes[r], s)
            x = spread(inputs[r], s)
            if RESET:
                goes_on = spread(rows[3][0], s) == 0
            for k in tl.static_range(S * NL):
                value = h[r * S * NL + k]
                if RESET:
                    value = tl.where(goes_on, value, 0.0)
                value = exp2(dt * rate[r * S * NL + k]) * value + x * b[k]
                after = after + (value,)
                if OUT:
                    if k == 0:
                        total = value * c[k]
                    else:
                        total += value * c[k]
            if OUT:
                parts = parts + (total,)
        h = after
    outs = ()
    if OUT:
        for r in tl.static_range(R):
            outs = outs + (fold(parts[r], parts[R + r], parts[2 * R + r], parts[3 * R + r]),)
    return h, sizes, outs


@triton.jit
def finish(
    outs,
    rows,
    memory,
    weight,
    first,
    end,
    SKIP: tl.constexpr,
    Z: tl.constexpr,
    R: tl.constexpr,
    Q: tl.constexpr,
    W: tl.constexpr = 1,
):
    """R quads of y before its gate, and of y."""
    plain = ()
    gated = ()
    for r in tl.static_range(R):
        half = channel(first, end, r, W) % Q
        out = outs[r]
        if SKIP:
            out += weight[r] * number(rows[0][r], half, memory[0])
        plain = plain + (out,)
        if Z:
            gate = number(rows[2][r], half, memory[2])
            out = out * (gate * sigmoid(gate))
        gated = gated + (out,)
    return plain, gated
