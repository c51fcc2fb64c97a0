"""Owns the Triton kernels for few long series: time cut into stretches, a lane each, and their ends found first.

What a stretch does to the state x before it, given its observations, is (Särkkä & García-Fernández 2021, as in
`parallel.py`, here one step after another)

    alpha | x ~ N(Phi x + a, P),      information on x: J, eta

which a filter that starts from a known x computes, with w = Phi' h, v and f its innovation and variance: J += w w' / f,
eta += w v / f, Phi <- Phi - P h w' / f. Entering with x ~ N(m, S), a stretch leaves, as in the information filter,

    S' = (S^-1 + J)^-1 = (S + det(S) adj(J)) / (1 + tr(S J) + det(S) det(J)),      m' = m + S' (eta - J m)
    alpha ~ N(Phi m' + a, Phi S' Phi' + P)

one stretch after another, which are few. Then every stretch starts from where the one before it ended, as a series of
its own. All in float64; a state of one is widened to two.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# Triton compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels.kalman_scan import gpu_steps as s

BLOCK = 32
LANES = 2**15  # stretches at most, of all series together
LEAST_COUNT = 64  # stretches of a series
# measured on an H200: below it one lane in sequence is done before a dozen kernels are launched
LEAST_STEPS = {torch.float32: 2**14, torch.float64: 2**13}
ROWS = 14  # Phi (4), a (2), P (3), eta (2), J (3)


@triton.jit
def _predict(phi, a, p, model):
    f00, f01, f10, f11, _, _, q00, q10, q11, _, c0, c1, _ = model
    x00, x01, x10, x11 = phi
    a0, a1 = a
    p00, p10, p11 = s.sandwich(p[0], p[1], p[2], f00, f01, f10, f11)
    return (
        (f00 * x00 + f01 * x10, f00 * x01 + f01 * x11, f10 * x00 + f11 * x10, f10 * x01 + f11 * x11),
        (c0 + f00 * a0 + f01 * a1, c1 + f10 * a0 + f11 * a1),
        (p00 + q00, p10 + q10, p11 + q11),
    )


@triton.jit(do_not_specialize=["by_series", "B", "T", "stretches"])
def _compose_kernel(
    y, F, H, Q, R, c, d, by_series, rows, B, T, stretches, N: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr
):
    """rows (ROWS, B): what each of B stretches of T steps does; matrices are those of series b // stretches."""
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    model = s.widened_model(s.load_model(F, H, Q, R, c, d, by_series, b // stretches, inside, N), N)
    h0, h1, r, d_ = model[4], model[5], model[9], model[12]
    zero = tl.zeros((BLOCK,), tl.float64)
    phi, a, p = (zero + 1.0, zero, zero, zero + 1.0), (zero, zero), (zero, zero, zero)
    eta, info = (zero, zero), (zero, zero, zero)
    for t in range(0, T, 4):
        xs = s.load_steps(y, row, t, T, inside, 4, ALIGNED, BLOCK)
        for k in tl.static_range(4):
            on = t + k < T  # nothing moves beyond the last step
            x = xs[k].to(tl.float64)
            new_phi, new_a, new_p = _predict(phi, a, p, model)
            phi = (
                tl.where(on, new_phi[0], phi[0]), tl.where(on, new_phi[1], phi[1]),
                tl.where(on, new_phi[2], phi[2]), tl.where(on, new_phi[3], phi[3]),
            )  # fmt: skip
            a0, a1 = tl.where(on, new_a[0], a[0]), tl.where(on, new_a[1], a[1])
            p00, p10 = tl.where(on, new_p[0], p[0]), tl.where(on, new_p[1], p[1])
            p11 = tl.where(on, new_p[2], p[2])
            m0, m1 = p00 * h0 + p10 * h1, p10 * h0 + p11 * h1
            f = h0 * m0 + h1 * m1 + r
            known = (x == x) & (f > s.TINY)
            g = tl.where(known, 1.0 / tl.where(known, f, 1.0), 0.0)
            v = tl.where(x == x, x - d_ - (h0 * a0 + h1 * a1), 0.0)
            w0, w1 = phi[0] * h0 + phi[2] * h1, phi[1] * h0 + phi[3] * h1
            eta = (eta[0] + w0 * (g * v), eta[1] + w1 * (g * v))
            info = (info[0] + w0 * w0 * g, info[1] + w1 * w0 * g, info[2] + w1 * w1 * g)
            k0, k1 = m0 * g, m1 * g
            phi = (phi[0] - k0 * w0, phi[1] - k0 * w1, phi[2] - k1 * w0, phi[3] - k1 * w1)
            a = (a0 + k0 * v, a1 + k1 * v)
            p = (p00 - k0 * m0, p10 - k1 * m0, p11 - k1 * m1)
    s.save(rows + b, B, inside, phi)
    series = tl.full((), 1, tl.int64) * B
    s.save(rows + 4 * series + b, B, inside, a)
    s.save(rows + 6 * series + b, B, inside, p)
    s.save(rows + 9 * series + b, B, inside, eta)
    s.save(rows + 11 * series + b, B, inside, info)


@triton.jit(do_not_specialize=["by_series", "stretches"])
def _carry_kernel(rows, F, H, Q, R, c, d, by_series, mean, covariance, B, stretches, N: tl.constexpr):
    """mean (B * stretches, N), covariance (.., N, N): in, filtered at the end of a series' first; out, each's start."""
    b = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    inside = b >= 0
    lanes = tl.full((), 1, tl.int64) * B * stretches
    model = s.widened_model(s.load_model(F, H, Q, R, c, d, by_series, b, inside, N), N)
    first = b * stretches
    if N == 1:
        m0, s00 = tl.load(mean + first).to(tl.float64), tl.load(covariance + first).to(tl.float64)
        zero = m0 * 0.0
        m1, s10, s11 = zero, zero, zero
    else:
        m0, m1 = tl.load(mean + 2 * first), tl.load(mean + 2 * first + 1)
        zero = m0 * 0.0
        s00, s10 = tl.load(covariance + 4 * first), tl.load(covariance + 4 * first + 2)
        s11 = tl.load(covariance + 4 * first + 3)
    one = (zero + 1.0, zero, zero, zero + 1.0)
    for k in range(1, stretches):
        at = first + k
        _, start, spread = _predict(one, (m0, m1), (s00, s10, s11), model)
        if N == 1:
            tl.store(mean + at, start[0])
            tl.store(covariance + at, spread[0])
        else:
            tl.store(mean + 2 * at, start[0])
            tl.store(mean + 2 * at + 1, start[1])
            tl.store(covariance + 4 * at, spread[0])
            tl.store(covariance + 4 * at + 1, spread[1])
            tl.store(covariance + 4 * at + 2, spread[1])
            tl.store(covariance + 4 * at + 3, spread[2])
        x00, x01, x10, x11, a0, a1, p00, p10, p11, n0, n1, j00, j10, j11 = s.restore(rows + at, lanes, inside, 14)
        det = s00 * s11 - s10 * s10
        scale = 1.0 / (1.0 + s00 * j00 + 2.0 * s10 * j10 + s11 * j11 + det * (j00 * j11 - j10 * j10))
        s00, s10, s11 = (s00 + det * j11) * scale, (s10 - det * j10) * scale, (s11 + det * j00) * scale
        e0, e1 = n0 - (j00 * m0 + j10 * m1), n1 - (j10 * m0 + j11 * m1)
        m0, m1 = m0 + s00 * e0 + s10 * e1, m1 + s10 * e0 + s11 * e1
        m0, m1 = a0 + x00 * m0 + x01 * m1, a1 + x10 * m0 + x11 * m1
        s00, s10, s11 = s.sandwich(s00, s10, s11, x00, x01, x10, x11)
        s00, s10, s11 = s00 + p00, s10 + p10, s11 + p11


def starts(
    inputs: Sequence[Tensor], by_series: int, rows: Tensor, mean: Tensor, covariance: Tensor, stretches: int
) -> None:
    """Fill mean (B * stretches, N) and covariance with the predicted state at the start of all stretches but the first.

    inputs: y (B * stretches, steps), and the first six matrices in float64. mean and covariance of a series' first
    stretch come as the filtered ones at its end, and stay. rows: (ROWS, B * stretches), float64, scratch.
    """
    y, *matrices = inputs
    lanes, T = y.shape
    N = matrices[0].shape[-1]
    _compose_kernel[(triton.cdiv(lanes, BLOCK),)](
        y, *matrices, by_series, rows, lanes, T, stretches, N, BLOCK, T % 4 == 0, num_warps=1
    )
    _carry_kernel[(lanes // stretches,)](rows, *matrices, by_series, mean, covariance, lanes // stretches, stretches, N,
                                         num_warps=1)  # fmt: skip


def stretches(y: Tensor) -> int:
    """Into how many stretches y (B, T, 1) is best cut; 1 where series alone fill the chip, or a cut would not pay."""
    B, T = y.shape[:2]
    count = min(math.isqrt(T), LANES // max(B, 1))
    if LEAST_STEPS[y.dtype] > T or count < LEAST_COUNT:
        return 1
    if y.is_cuda and torch.cuda.is_current_stream_capturing():  # `cut` asks for a value
        return 1
    steps = -(-T // count)
    return -(-T // steps)


def cut(inputs: Sequence[Tensor], by_series: int, count: int) -> tuple[list[Tensor], int] | None:
    """The inputs of `gpu_forward` with every series in `count` stretches, the last filled up with NaN.

    None where that cannot be: something is still unknown after the first stretch, or an observation could be exact.
    """
    from ssmfin_kernels.kalman_scan import gpu_forward

    y, *matrices = inputs
    F, H, Q, R, *_ = (x.double() for x in matrices)
    (B, T), N = y.shape, F.shape[-1]
    steps = -(-T // count)
    y = torch.nn.functional.pad(y, (0, count * steps - T), value=math.nan).reshape(B * count, steps)
    first = y.view(B, count, steps)[:, 0].contiguous()
    out = gpu_forward.empty(first, N, (False, True, False, False))
    gpu_forward.moments([first, *matrices], by_series, out, (False, True, False, False))
    unsure = (out[7] != 0).any() | (H @ Q @ H.mT + R <= 0).any()
    if bool(unsure):
        return None
    mean, covariance = (torch.empty(B, count, *shape, dtype=torch.float64, device=y.device) for shape in ((N,), (N, N)))
    mean[:, 0], covariance[:, 0] = out[3][-1].movedim(-1, 0), out[4][-1].movedim(-1, 0)
    rows = mean.new_empty(ROWS, B * count)
    wide = [x.double() for x in matrices[:6]]
    starts([y, *wide], by_series, rows, mean, covariance, count)
    diffuse = torch.zeros_like(covariance)
    mean[:, 0], covariance[:, 0], diffuse[:, 0] = matrices[6], matrices[7], matrices[8]
    lanes = [x if x.shape[0] == 1 else x.repeat_interleave(count, 0) for x in matrices[:6]]
    lanes += [x.flatten(0, 1).to(y.dtype) for x in (mean, covariance, diffuse)]
    return [y, *lanes], by_series & 0b111111 | 0b111000000


def joined(parts: Sequence[Tensor], out: Sequence[Tensor], count: int) -> None:
    """Moments of stretches, as `gpu_forward.empty` has them, into those of whole series; parts have predicted ones."""
    T, B = out[10].shape
    steps = parts[10].shape[0]
    for k in (0, 1, 2, 3, 4, 8, 9, 10):
        if out[k].numel():
            # (steps, .., B * count) -> (count * steps, .., B)
            whole = parts[k].unflatten(-1, (B, count)).movedim(-1, 0).flatten(0, 1)
            out[k].copy_(whole[:T])
    s = T - (count - 1) * steps  # steps of the last stretch
    for k, path in ((5, 1), (6, 2)):
        ends = parts[k] if s == steps else parts[path][s]
        out[k].copy_(ends.unflatten(-1, (B, count))[..., -1])
    out[7].zero_()
    if out[11].numel():
        out[11].copy_(parts[11].view(B, count).sum(1))
