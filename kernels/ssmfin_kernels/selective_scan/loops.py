"""Owns the numba loops of the selective scan: a range of tasks forward, and backward; `cpu.py` shares them out.

A task is one sequence and a block of at most WIDTH channels of one group. Rows of channels are the inner loops, which
LLVM turns into vector instructions; they take whole arrays and offsets, because views cost seconds of compilation.
What is absent (z, D, ...) is an array without channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ssmfin_kernels.selective_scan.vector_math import exp2, sigmoid, softplus

CHUNK = 32  # steps between kept states; with N = 16 the states rebuilt at once fit a level-two cache
WIDTH = 64
LOG2_E = 1.4426950408889634

# contract: fused multiply-add. reassoc, in the sums over channels only, lets them use vector registers: their order is
# the compiler's, the same in every run
_LOOP: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_SUMS: dict[str, Any] = {**_LOOP, "fastmath": {"contract", "reassoc", "nsz"}}


@njit(**_LOOP)
def _prepare(delta: Any, u: Any, bias: Any, i: int, t: int, lo: int, curve: bool, dt: Any, dtu: Any) -> None:
    """dt = softplus(delta + bias) and dt u for the channels of one step."""
    for j in range(len(dt)):
        dt[j] = delta[i, t, lo + j]
    if len(bias):
        for j in range(len(dt)):
            dt[j] += bias[lo + j]
    if curve:
        for j in range(len(dt)):
            dt[j] = softplus(dt[j])
    for j in range(len(dt)):
        dtu[j] = dt[j] * u[i, t, lo + j]


@njit(**_LOOP)
def _advance(h: Any, rate: Any, dt: Any, dtu: Any, B: Any, C: Any, i: int, t: int, k: int, y: Any) -> None:
    """One step of the states (N, w) in place; y = sum_n C_n h_n."""
    for j in range(len(dt)):
        y[j] = 0
    for n in range(h.shape[0]):
        b, c = B[i, t, k, n], C[i, t, k, n]
        for j in range(len(dt)):
            state = exp2(dt[j] * rate[n, j]) * h[n, j] + dtu[j] * b
            h[n, j] = state
            y[j] += state * c


@njit(**_LOOP)
def _rebuild(
    h: Any, decay: Any, s: int, into: int, rate: Any, dt: Any, dtu: Any, B: Any, i: int, t: int, k: int
) -> None:
    """Step s of a chunk, from h[s] to h[into] (N, w), and its decay."""
    for n in range(h.shape[1]):
        b = B[i, t, k, n]
        for j in range(h.shape[2]):
            a = exp2(dt[s, j] * rate[n, j])
            decay[s, n, j] = a
            h[into, n, j] = a * h[s, n, j] + dtu[s, j] * b


@njit(**_LOOP)
def _finish(sums: Any, u: Any, D: Any, z: Any, i: int, t: int, lo: int, ungated: Any, y: Any) -> None:
    """y = (sums + D u) silu(z) for the channels of one step."""
    if len(D):
        for j in range(len(sums)):
            sums[j] += D[lo + j] * u[i, t, lo + j]
    if ungated.shape[2]:
        for j in range(len(sums)):
            ungated[i, t, lo + j] = sums[j]
    if z.shape[2]:
        for j in range(len(sums)):
            sums[j] *= z[i, t, lo + j] * sigmoid(z[i, t, lo + j])
    for j in range(len(sums)):
        y[i, t, lo + j] = sums[j]


@njit(**_LOOP)
def _gate(dy: Any, z: Any, ungated: Any, i: int, t: int, lo: int, dz: Any, slope: Any) -> None:
    """Through the gate of one step: slope, the gradient of what is gated; dz."""
    if z.shape[2]:
        for j in range(len(slope)):
            x = z[i, t, lo + j]
            rise = sigmoid(x)
            dz[i, t, lo + j] = dy[i, t, lo + j] * ungated[i, t, lo + j] * rise * (1 + x * (1 - rise))
            slope[j] = dy[i, t, lo + j] * x * rise
    else:
        for j in range(len(slope)):
            slope[j] = dy[i, t, lo + j]


@njit(**_SUMS)
def _retreat(
    grad: Any,
    h: Any,
    after: int,
    decay: Any,
    s: int,
    rate: Any,
    dt: Any,
    dtu: Any,
    slope: Any,
    B: Any,
    C: Any,
    i: int,
    t: int,
    k: int,
    block: int,
    rate_grad: Any,
    by_input: Any,
    by_decay: Any,
    dB: Any,
    dC: Any,
) -> None:
    """Step s of a chunk backwards: `grad` (N, w) enters as a_{t+1} g_{t+1} and leaves as a_t g_t."""
    for j in range(len(slope)):
        by_input[j] = 0
        by_decay[j] = 0
    for n in range(h.shape[1]):
        b, c = B[i, t, k, n], C[i, t, k, n]
        sum_b, sum_c = slope[0] * 0, slope[0] * 0
        for j in range(len(slope)):
            g = grad[n, j] + slope[j] * c
            sum_b += g * dtu[s, j]
            sum_c += slope[j] * h[after, n, j]
            by_input[j] += g * b
            carried = g * decay[s, n, j]
            grad[n, j] = carried
            carried = carried * h[s, n, j]
            by_decay[j] += carried * rate[n, j]
            rate_grad[n, j] += carried * dt[s, j]
        dB[i, block, t, k, n] = sum_b
        dC[i, block, t, k, n] = sum_c


@njit(**_LOOP)
def _leave(
    by_input: Any,
    by_decay: Any,
    dt: Any,
    s: int,
    u: Any,
    delta: Any,
    slope: Any,
    D: Any,
    bias: Any,
    i: int,
    t: int,
    lo: int,
    curve: bool,
    du: Any,
    ddelta: Any,
    dD: Any,
    dbias: Any,
) -> None:
    """The gradients of one step by u and delta, and its share of those by D and the bias (rows of this sequence)."""
    if len(D):
        for j in range(len(slope)):
            du[i, t, lo + j] = by_input[j] * dt[s, j] + D[lo + j] * slope[j]
            dD[i, lo + j] += u[i, t, lo + j] * slope[j]
    else:
        for j in range(len(slope)):
            du[i, t, lo + j] = by_input[j] * dt[s, j]
    for j in range(len(slope)):
        # by_decay was summed with the rates, A log2(e): the factor turns it back
        by_input[j] = by_input[j] * u[i, t, lo + j] + by_decay[j] * by_decay.dtype.type(1 / LOG2_E)
    if curve:
        for j in range(len(slope)):
            # sigmoid(x) = 1 - exp(-softplus(x)), but that loses every digit of a small step
            by_input[j] *= sigmoid(delta[i, t, lo + j] + (bias[lo + j] if len(bias) else bias.dtype.type(0)))
    for j in range(len(slope)):
        ddelta[i, t, lo + j] = by_input[j]
    if len(bias):
        for j in range(len(slope)):
            dbias[i, lo + j] += by_input[j]


@njit(**_LOOP)
def _place(task: int, channels: int, groups: int) -> tuple[int, int, int, int, int]:
    """Sequence, group, block of the group, first and last channel of a task."""
    per_group = channels // groups
    blocks = (per_group + WIDTH - 1) // WIDTH
    k = (task // blocks) % groups
    block = task % blocks
    lo = k * per_group + block * WIDTH
    return task // (groups * blocks), k, block, lo, min(lo + WIDTH, (k + 1) * per_group)


@njit(**_LOOP)
def forward(
    first: int,
    last: int,
    u: Any,
    delta: Any,
    A2: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    bias: Any,
    initial: Any,
    starts: Any,
    curve: bool,
    y: Any,
    ungated: Any,
    kept: Any,
    final: Any,
) -> None:
    """Tasks first .. last - 1 of the scan. A2 (N, D) is A log2(e); kept (B, chunks, N, D), initial, final (B, N, D)."""
    steps, channels = u.shape[1], u.shape[2]
    states = A2.shape[0]
    for task in range(first, last):
        i, k, _, lo, hi = _place(task, channels, B.shape[2])
        rate = np.empty((states, hi - lo), A2.dtype)
        h = np.empty((states, hi - lo), A2.dtype)
        for n in range(states):
            for j in range(hi - lo):
                rate[n, j] = A2[n, lo + j]
                h[n, j] = initial[i, n, lo + j]
        dt = np.empty(hi - lo, A2.dtype)
        dtu = np.empty(hi - lo, A2.dtype)
        sums = np.empty(hi - lo, A2.dtype)
        for t in range(steps):
            if kept.shape[1] and t % CHUNK == 0:
                for n in range(states):
                    for j in range(hi - lo):
                        kept[i, t // CHUNK, n, lo + j] = h[n, j]
            if starts.shape[1] and starts[i, t]:
                h.fill(0)
            _prepare(delta, u, bias, i, t, lo, curve, dt, dtu)
            _advance(h, rate, dt, dtu, B, C, i, t, k, sums)
            _finish(sums, u, D, z, i, t, lo, ungated, y)
        for n in range(states):
            for j in range(hi - lo):
                final[i, n, lo + j] = h[n, j]


@njit(**_LOOP)
def backward(
    first: int,
    last: int,
    dy: Any,
    dfinal: Any,
    u: Any,
    delta: Any,
    A2: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    bias: Any,
    starts: Any,
    ungated: Any,
    kept: Any,
    curve: bool,
    du: Any,
    ddelta: Any,
    dA: Any,
    dB: Any,
    dC: Any,
    dD: Any,
    dz: Any,
    dbias: Any,
    dinitial: Any,
) -> None:
    """Gradients for tasks first .. last - 1: dA (B, N, D), dD and dbias (B, D), the last two zeros before; dB and dC
    (B, blocks, T, G, N), to be summed over the blocks."""
    steps, channels = u.shape[1], u.shape[2]
    states = A2.shape[0]
    for task in range(first, last):
        i, k, block, lo, hi = _place(task, channels, B.shape[2])
        w = hi - lo
        rate = np.empty((states, w), A2.dtype)
        grad = np.empty((states, w), A2.dtype)
        rate_grad = np.zeros((states, w), A2.dtype)
        for n in range(states):
            for j in range(w):
                rate[n, j] = A2[n, lo + j]
                grad[n, j] = dfinal[i, n, lo + j]
        # one more than is needed: a state that the start of a new sequence would overwrite
        h = np.empty((CHUNK + 2, states, w), A2.dtype)
        decay = np.empty((CHUNK, states, w), A2.dtype)
        dt = np.empty((CHUNK, w), A2.dtype)
        dtu = np.empty((CHUNK, w), A2.dtype)
        slope = np.empty(w, A2.dtype)
        by_input = np.empty(w, A2.dtype)
        by_decay = np.empty(w, A2.dtype)
        for chunk in range((steps - 1) // CHUNK, -1, -1):
            base = chunk * CHUNK
            count = min(CHUNK, steps - base)
            for n in range(states):
                for j in range(w):
                    h[0, n, j] = kept[i, chunk, n, lo + j]
            for s in range(count):
                if starts.shape[1] and starts[i, base + s]:
                    for n in range(states):
                        for j in range(w):
                            h[s, n, j] = 0
                _prepare(delta, u, bias, i, base + s, lo, curve, dt[s], dtu[s])
                _rebuild(h, decay, s, s + 1, rate, dt, dtu, B, i, base + s, k)
            for s in range(count - 1, -1, -1):
                t = base + s
                after = s + 1
                if after < count and starts.shape[1] and starts[i, t + 1]:
                    after = CHUNK + 1
                    _rebuild(h, decay, s, after, rate, dt, dtu, B, i, t, k)
                _gate(dy, z, ungated, i, t, lo, dz, slope)
                _retreat(
                    grad,
                    h,
                    after,
                    decay,
                    s,
                    rate,
                    dt,
                    dtu,
                    slope,
                    B,
                    C,
                    i,
                    t,
                    k,
                    block,
                    rate_grad,
                    by_input,
                    by_decay,
                    dB,
                    dC,
                )
                _leave(by_input, by_decay, dt, s, u, delta, slope, D, bias, i, t, lo, curve, du, ddelta, dD, dbias)
                if starts.shape[1] and starts[i, t]:
                    grad.fill(0)
        for n in range(states):
            for j in range(w):
                dinitial[i, n, lo + j] = grad[n, j]
                dA[i, n, lo + j] = rate_grad[n, j]
