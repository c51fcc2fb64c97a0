"""Owns one step of the selective scan, there and back, on a tile spread over lanes as `triton_lanes.py` says."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_parts import exp2, starts, step_size


@triton.jit
def first_states(h, reset, t, stop, RESET: tl.constexpr, COUNT: tl.constexpr):
    """What step t starts from: h, or zero where a new sequence starts."""
    if RESET:
        fresh = starts(reset, t, stop, RESET)
        kept = ()
        for e in tl.static_range(COUNT):
            kept = kept + (tl.where(fresh, 0.0, h[e]),)
        return kept
    else:
        return h


@triton.jit
def sizes_of_steps(delta, shift, t, limit, SOFTPLUS: tl.constexpr, COUNT: tl.constexpr, SPAN: tl.constexpr):
    """dt of each register of `delta`; zero from the limit on."""
    sizes = ()
    for r in tl.static_range(COUNT):
        sizes = sizes + (step_size(delta[r], shift, t + r * SPAN < limit, SOFTPLUS),)
    return sizes


@triton.jit
def decays_of(rate, dt, NR: tl.constexpr, CR: tl.constexpr):
    decays = ()
    for i in tl.static_range(NR):
        for j in tl.static_range(CR):
            decays = decays + (exp2(dt[j] * rate[i * CR + j]),)
    return decays


@triton.jit
def times(x, y, COUNT: tl.constexpr):
    products = ()
    for r in tl.static_range(COUNT):
        products = products + (x[r] * y[r],)
    return products


@triton.jit
def advance(h, decays, x, row_B, NR: tl.constexpr, CR: tl.constexpr):
    """h of the next step: decay h + x B, x = dt u."""
    after = ()
    for i in tl.static_range(NR):
        for j in tl.static_range(CR):
            after = after + (decays[i * CR + j] * h[i * CR + j] + x[j] * row_B[i],)
    return after


@triton.jit
def retreat(
    grad,
    rate_grad,
    rate,
    decays,
    start,
    h,
    slope,
    row_C,
    x,
    row_B,
    dt,
    NR: tl.constexpr,
    CR: tl.constexpr,
    W: tl.constexpr = 1,
):
    """One step back: h = decays start + x B, y = C h, slope the gradient of y, grad what comes from later steps.

    Returns the gradient that goes on to earlier steps, and the lane's parts of those of the rates (summed over time),
    of x and of log2 decay / dt (a number a channel), of B and of C (a number a state).
    """
    carried = ()
    rates = ()
    parts_B = ()
    parts_C = ()
    by_input = ()
    by_decay = ()
    for _ in tl.static_range(CR):
        by_input = by_input + (tl.zeros([32 * W], tl.float32),)
        by_decay = by_decay + (tl.zeros([32 * W], tl.float32),)
    for i in tl.static_range(NR):
        part_B = tl.zeros([32 * W], tl.float32)
        part_C = tl.zeros([32 * W], tl.float32)
        inputs = ()
        exponents = ()
        for j in tl.static_range(CR):
            g = grad[i * CR + j] + slope[j] * row_C[i]
            part_C += slope[j] * h[i * CR + j]
            part_B += g * x[j]
            inputs = inputs + (by_input[j] + g * row_B[i],)
            g *= decays[i * CR + j]
            carried = carried + (g,)
            g *= start[i * CR + j]
            exponents = exponents + (by_decay[j] + g * rate[i * CR + j],)
            rates = rates + (rate_grad[i * CR + j] + g * dt[j],)
        by_input = inputs
        by_decay = exponents
        parts_B = parts_B + (part_B,)
        parts_C = parts_C + (part_C,)
    return carried, rates, by_input, by_decay, parts_B, parts_C
