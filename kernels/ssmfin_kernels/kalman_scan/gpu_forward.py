"""Owns the Triton kernels of the forward pass: the log-likelihood, with checkpoints if asked, and the moments."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# Triton compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels.kalman_scan import gpu_steps as s

BLOCK = 64  # series to a program, a lane each, in two warps: many small programs, so that every scheduler has several
CHUNK = 8  # steps of a series that are loaded at once, and from checkpoint to checkpoint of the state
HEAD = 32  # steps between checkpoints of P_inf, while there is any


@triton.jit
def _add(total, lost, term):
    """Kahan: a thousand terms of one size would cost three digits."""
    term -= lost
    new = total + term
    return new, (new - total) - term


@triton.jit(do_not_specialize=["by_series", "B", "T"])
def _log_likelihood_kernel(
    y, F, H, Q, R, c, d, mean, covariance, diffuse, by_series, out, checkpoints, heads, ends, B, T,
    N: tl.constexpr, SAVE: tl.constexpr, CHUNK: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    series = tl.full((), 1, tl.int64) * B  # past 2^31 times a number of rows
    model = s.load_model(F, H, Q, R, c, d, by_series, b, inside, N)
    state, unknown, tolerance = s.load_start(mean, covariance, diffuse, by_series, b, inside, N)
    STATE: tl.constexpr = N * (N + 3) // 2
    UNKNOWN: tl.constexpr = N * (N + 1) // 2 + 1
    total = tl.zeros((BLOCK,), y.dtype.element_ty)
    lost = total
    t = 0
    while (t < T) & (tl.max(unknown[UNKNOWN - 1], 0) > 0):
        if SAVE:
            if t % CHUNK == 0:
                s.save(checkpoints + series * (t // CHUNK * STATE) + b, B, inside, state)
            if t % HEAD == 0:
                s.save(heads + series * (t // HEAD * UNKNOWN) + b, B, inside, unknown)
        x = tl.load(y + row + t, inside, float("nan"))
        v, m, f, n, _, g, g0, log_p = s.observe_unknown(x, state, unknown, model, tolerance, N)
        state, unknown, _ = s.condition_unknown(state, unknown, v, m, f, n, g, g0, N)
        state = s.predict(state, model, N)
        unknown = s.predict_unknown(unknown, model, N)
        total, lost = _add(total, lost, log_p)
        t += 1
    if SAVE:
        tl.store(ends + tl.program_id(0), t)
    while (t < T) & (t % CHUNK != 0):
        x = tl.load(y + row + t, inside, float("nan"))
        v, m, f, g = s.observe(x, state, model, N)
        state = s.predict(s.condition(state, v, m, g, N), model, N)
        total, lost = _add(total, lost, s.score(v, f, g))
        t += 1
    for t0 in range(t, T, CHUNK):
        if SAVE:
            s.save(checkpoints + series * (t0 // CHUNK * STATE) + b, B, inside, state)
        xs = s.load_steps(y, row, t0, T, inside, CHUNK, ALIGNED, BLOCK)
        terms = tl.zeros((BLOCK,), y.dtype.element_ty)
        product = terms + 1.0
        exponent = 0
        for k in tl.static_range(CHUNK):
            v, m, f, g = s.observe(xs[k], state, model, N)
            state = s.predict(s.condition(state, v, m, g, N), model, N)
            known = g > 0
            mantissa, power = s.mantissa_and_exponent(tl.where(known, f, 1.0))
            product *= mantissa
            exponent += power
            terms += tl.where(known, s.LOG_2PI + v * v * g, 0.0)
        total, lost = _add(total, lost, s.score_of_many(terms, product, exponent, CHUNK))
    tl.store(out + b, total, inside)


@triton.jit
def _store_state(mean, covariance, step, b, B, state, inside, N: tl.constexpr):
    """A state into (.., N, B) and (.., N, N, B), `step` floats into an array of one row a step."""
    mean += N * step + b
    covariance += N * N * step + b
    if N == 1:
        tl.store(mean, state[0], inside)
        tl.store(covariance, state[1], inside)
    else:
        tl.store(mean, state[0], inside)
        tl.store(mean + B, state[1], inside)
        tl.store(covariance, state[2], inside)
        tl.store(covariance + B, state[3], inside)
        tl.store(covariance + 2 * B, state[3], inside)
        tl.store(covariance + 3 * B, state[4], inside)


@triton.jit
def _step(
    x, state, total, lost, model, pm, pc, fm, fc, steps, innovation, spread, step, b, B, inside, N: tl.constexpr,
    PREDICTED: tl.constexpr, FILTERED: tl.constexpr, INNOVATION: tl.constexpr, SCORES: tl.constexpr,
):  # fmt: skip
    """One step with nothing unknown, and its results."""
    if PREDICTED:
        _store_state(pm, pc, step, b, B, state, inside, N)
    v, m, f, g = s.observe(x, state, model, N)
    if INNOVATION:
        tl.store(innovation + step + b, tl.where(x == x, v, x), inside)
        tl.store(spread + step + b, f, inside)
    if SCORES:
        log_p = s.score(v, f, g)
        tl.store(steps + step + b, log_p, inside)
        total, lost = _add(total, lost, log_p)
    state = s.condition(state, v, m, g, N)
    if FILTERED:
        _store_state(fm, fc, step, b, B, state, inside, N)
    return s.predict(state, model, N), total, lost


@triton.jit(do_not_specialize=["by_series", "B", "T"])
def _moments_kernel(
    y, F, H, Q, R, c, d, mean, covariance, diffuse, by_series,
    steps, pm, pc, fm, fc, last, last_c, last_d, innovation, spread, flags, totals, B, T,
    N: tl.constexpr, PREDICTED: tl.constexpr, FILTERED: tl.constexpr, INNOVATION: tl.constexpr, SCORES: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    # Results lie series next to series, so that a warp writes whole lines. Time next to time, every series had a
    # half-filled sector of every array in flight, more than the cache holds: 54 ms where this layout's floor is 1.5.
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    series = tl.full((), 1, tl.int64) * B
    model = s.load_model(F, H, Q, R, c, d, by_series, b, inside, N)
    state, unknown, tolerance = s.load_start(mean, covariance, diffuse, by_series, b, inside, N)
    UNKNOWN: tl.constexpr = N * (N + 1) // 2 + 1
    total = tl.zeros((BLOCK,), y.dtype.element_ty)
    lost = total
    t = 0
    while (t < T) & (tl.max(unknown[UNKNOWN - 1], 0) > 0):
        step = series * t
        x = tl.load(y + row + t, inside, float("nan"))
        tl.store(flags + step + b, unknown[UNKNOWN - 1] > 0, inside)
        if PREDICTED:
            _store_state(pm, pc, step, b, B, state, inside, N)
        v, m, f, n, _, g, g0, log_p = s.observe_unknown(x, state, unknown, model, tolerance, N)
        if INNOVATION:
            tl.store(innovation + step + b, tl.where(x == x, v, x), inside)
            tl.store(spread + step + b, f, inside)
        if SCORES:
            tl.store(steps + step + b, log_p, inside)
            total, lost = _add(total, lost, log_p)
        state, unknown, _ = s.condition_unknown(state, unknown, v, m, f, n, g, g0, N)
        if FILTERED:
            _store_state(fm, fc, step, b, B, state, inside, N)
        state = s.predict(state, model, N)
        unknown = s.predict_unknown(unknown, model, N)
        t += 1
    while (t < T) & (t % CHUNK != 0):
        x = tl.load(y + row + t, inside, float("nan"))
        state, total, lost = _step(
            x, state, total, lost, model, pm, pc, fm, fc, steps, innovation, spread, series * t, b, B, inside,
            N, PREDICTED, FILTERED, INNOVATION, SCORES,
        )  # fmt: skip
        t += 1
    while t + CHUNK <= T:
        xs = s.load_steps(y, row, t, T, inside, CHUNK, ALIGNED, BLOCK)
        for k in tl.static_range(CHUNK):
            state, total, lost = _step(
                xs[k], state, total, lost, model, pm, pc, fm, fc, steps, innovation, spread, series * (t + k), b, B,
                inside, N, PREDICTED, FILTERED, INNOVATION, SCORES,
            )  # fmt: skip
        t += CHUNK
    while t < T:
        x = tl.load(y + row + t, inside, float("nan"))
        state, total, lost = _step(
            x, state, total, lost, model, pm, pc, fm, fc, steps, innovation, spread, series * t, b, B, inside,
            N, PREDICTED, FILTERED, INNOVATION, SCORES,
        )  # fmt: skip
        t += 1
    if SCORES:
        tl.store(totals + b, total, inside)
    _store_state(last, last_c, 0, b, B, state, inside, N)
    if N == 1:
        tl.store(last_d + b, unknown[0], inside)
    else:
        tl.store(last_d + b, unknown[0], inside)
        tl.store(last_d + B + b, unknown[1], inside)
        tl.store(last_d + 2 * B + b, unknown[1], inside)
        tl.store(last_d + 3 * B + b, unknown[2], inside)


def log_likelihood(
    inputs: Sequence[Tensor], by_series: int, out: Tensor, checkpoints: Tensor, heads: Tensor, ends: Tensor
) -> None:
    """Fill out (B,), checkpoints (chunks, state, B), heads (T / HEAD, unknown, B) and ends (programs,).

    What is saved is not if `checkpoints` is empty. inputs: y (B, T) and the matrices of `model.Problem`, contiguous.
    """
    y, F = inputs[:2]
    B, T = y.shape
    _log_likelihood_kernel[(triton.cdiv(B, BLOCK),)](
        *inputs, by_series, out, checkpoints, heads, ends, B, T,
        F.shape[-1], checkpoints.numel() > 0, CHUNK, HEAD, BLOCK, T % 4 == 0, num_warps=BLOCK // 32,
    )  # fmt: skip


def moments(inputs: Sequence[Tensor], by_series: int, out: Sequence[Tensor], wanted: Sequence[bool]) -> None:
    """Fill what `empty` made."""
    y, F = inputs[:2]
    B, T = y.shape
    # beyond 80 registers not all programs of 100,000 series are on the chip at once
    limit = {"maxnreg": 80} if y.dtype == torch.float32 else {}
    _moments_kernel[(triton.cdiv(B, BLOCK),)](
        *inputs, by_series, *out, B, T, F.shape[-1], *wanted, CHUNK, BLOCK, T % 4 == 0, num_warps=BLOCK // 32, **limit
    )


def empty(y: Tensor, N: int, wanted: Sequence[bool]) -> list[Tensor]:
    """Moments of y (B, T) or (B, T, 1) with the series last, in the order of `naive.Moments`; flags are False.

    No steps of what is not `wanted`: predicted, filtered, innovation, steps.
    """
    B, T = y.shape[:2]
    predicted, filtered, innovations, steps = (T if wants else 0 for wants in wanted)
    path: list[tuple[int, ...]] = [(steps,), (predicted, N), (predicted, N, N), (filtered, N), (filtered, N, N)]
    shapes = [*path, (N,), (N, N), (N, N), (innovations, 1), (innovations, 1, 1)]
    flags = torch.zeros(T, B, dtype=torch.bool, device=y.device)
    return [*(y.new_empty(*shape, B) for shape in shapes), flags, y.new_empty(B if steps else 0)]
