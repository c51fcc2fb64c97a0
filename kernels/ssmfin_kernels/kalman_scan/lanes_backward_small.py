"""Owns rows of gradients, and the step of `lanes_backward.py` in registers where N <= 2, P = 1, nothing diffuse.

Formulas are those of `lanes_backward.py`, written out. Sums keep the order of the general code to the last bit: which
of the two a step takes depends on the neighbours in the block, and a series must not.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from typing import NamedTuple

from ssmfin_kernels.kalman_scan import lanes
from ssmfin_kernels.kalman_scan.lanes import TINY, W, compiled


class Extra(NamedTuple):
    """Rows of a second array: records of each component, and gradients."""

    a: int  # record p: a, P, P_inf before component p, then M, M_inf, and v, F, F_inf, g, g0, keep
    width: int
    ga: int  # gradients of the state, of size m
    S: int
    Si: int
    F: int
    H: int
    Q: int
    R: int
    c: int
    d: int
    x1: int
    x2: int
    x3: int
    x4: int
    s: int
    T1: int
    T2: int
    end: int


@compiled
def layout(N, P, m):
    width = (m + 2 * m * m + 2 * m + 6) * W
    ga = P * width
    S = ga + m * W
    Si = S + m * m * W
    F = Si + m * m * W
    H = F + N * N * W
    Q = H + P * m * W
    R = Q + N * N * W
    c = R + P * P * W
    d = c + N * W
    x1 = d + P * W
    x2 = x1 + m * W
    x3 = x2 + m * W
    x4 = x3 + m * W
    s = x4 + m * W
    T1 = s + 8 * W
    T2 = T1 + m * m * W
    return Extra(0, width, ga, S, Si, F, H, Q, R, c, d, x1, x2, x3, x4, s, T1, T2, T2 + max(m * m, P * N) * W)


_ONE, _GRADIENTS_OF_ONE = lanes.layout.py_func(1, 1, 1), layout.py_func(1, 1, 1)
_TWO, _GRADIENTS_OF_TWO = lanes.layout.py_func(2, 1, 2), layout.py_func(2, 1, 2)


@compiled
def undo_one(w, e):
    """One step for N = 1: w holds the predicted state and the observation, e the gradients, l* behind them."""
    o, x = _ONE, _GRADIENTS_OF_ONE
    for i in range(W):
        h, f, a, P = w[o.H + i], w[o.F + i], w[o.a + i], w[o.P + i]
        M = P * h
        F = h * M + w[o.R + i]
        y = w[o.y + i]
        v = y - w[o.d + i] - h * a if y == y else 0.0
        known = (y == y) & (F > TINY)
        g = 1.0 / F if known else 0.0
        top, ga, S = e[x.end + i], e[x.ga + i], e[x.S + i]
        # the prediction
        SF = S * f
        e[x.c + i] += ga
        e[x.Q + i] += S
        e[x.F + i] = (e[x.F + i] + ga * (a + M * (g * v))) + 2.0 * SF * (P - M * M * g)
        S, ga = f * SF, f * ga
        # the observation
        Ma, SM = M * ga, S * M
        MSM = M * SM
        vb = g * Ma - top * g * v
        Fb = g * g * (MSM - v * Ma) - 0.5 * top * (g - g * g * v * v)
        Mb = g * (v * ga - 2.0 * SM) + Fb * h
        e[x.H + i] = (e[x.H + i] + (Fb * M + P * Mb)) - vb * a
        e[x.S + i] = S + 0.5 * (Mb * h + Mb * h)
        e[x.ga + i] = ga - vb * h
        e[x.d + i] -= vb
        e[x.R + i] += Fb
        e[x.s + 2 * W + i] = vb


@compiled
def undo_two(w, e):
    """The same for N = 2."""
    o, x = _TWO, _GRADIENTS_OF_TWO
    for i in range(W):
        h0, h1 = w[o.H + i], w[o.H + W + i]
        a0, a1 = w[o.a + i], w[o.a + W + i]
        P00, P01, P10, P11 = w[o.P + i], w[o.P + W + i], w[o.P + 2 * W + i], w[o.P + 3 * W + i]
        f00, f01, f10, f11 = w[o.F + i], w[o.F + W + i], w[o.F + 2 * W + i], w[o.F + 3 * W + i]
        M0, M1 = P00 * h0 + P01 * h1, P10 * h0 + P11 * h1
        F = h0 * M0 + h1 * M1 + w[o.R + i]
        y = w[o.y + i]
        v = y - w[o.d + i] - (h0 * a0 + h1 * a1) if y == y else 0.0
        known = (y == y) & (F > TINY)
        g = 1.0 / F if known else 0.0
        top, ga0, ga1 = e[x.end + i], e[x.ga + i], e[x.ga + W + i]
        S00, S01, S10, S11 = e[x.S + i], e[x.S + W + i], e[x.S + 2 * W + i], e[x.S + 3 * W + i]
        # the prediction
        b0, b1 = a0 + M0 * (g * v), a1 + M1 * (g * v)
        C00, C10, C11 = P00 - M0 * M0 * g, P10 - M1 * M0 * g, P11 - M1 * M1 * g
        T00, T01 = S00 * f00 + S01 * f10, S00 * f01 + S01 * f11
        T10, T11 = S10 * f00 + S11 * f10, S10 * f01 + S11 * f11
        e[x.c + i] += ga0
        e[x.c + W + i] += ga1
        e[x.Q + i] += S00
        e[x.Q + W + i] += S01
        e[x.Q + 2 * W + i] += S10
        e[x.Q + 3 * W + i] += S11
        e[x.F + i] = ((e[x.F + i] + ga0 * b0) + 2.0 * T00 * C00) + 2.0 * T01 * C10
        e[x.F + W + i] = ((e[x.F + W + i] + ga0 * b1) + 2.0 * T00 * C10) + 2.0 * T01 * C11
        e[x.F + 2 * W + i] = ((e[x.F + 2 * W + i] + ga1 * b0) + 2.0 * T10 * C00) + 2.0 * T11 * C10
        e[x.F + 3 * W + i] = ((e[x.F + 3 * W + i] + ga1 * b1) + 2.0 * T10 * C10) + 2.0 * T11 * C11
        S00, S01 = f00 * T00 + f10 * T10, f00 * T01 + f10 * T11
        S10, S11 = f01 * T00 + f11 * T10, f01 * T01 + f11 * T11
        ga0, ga1 = f00 * ga0 + f10 * ga1, f01 * ga0 + f11 * ga1
        # the observation
        Ma = M0 * ga0 + M1 * ga1
        SM0, SM1 = S00 * M0 + S01 * M1, S10 * M0 + S11 * M1
        MSM = M0 * SM0 + M1 * SM1
        vb = g * Ma - top * g * v
        Fb = g * g * (MSM - v * Ma) - 0.5 * top * (g - g * g * v * v)
        Mb0 = g * (v * ga0 - 2.0 * SM0) + Fb * h0
        Mb1 = g * (v * ga1 - 2.0 * SM1) + Fb * h1
        e[x.H + i] = (e[x.H + i] + (Fb * M0 + (P00 * Mb0 + P01 * Mb1))) - vb * a0
        e[x.H + W + i] = (e[x.H + W + i] + (Fb * M1 + (P10 * Mb0 + P11 * Mb1))) - vb * a1
        S10 = S10 + 0.5 * (Mb1 * h0 + Mb0 * h1)
        e[x.S + i] = S00 + 0.5 * (Mb0 * h0 + Mb0 * h0)
        e[x.S + W + i] = S10
        e[x.S + 2 * W + i] = S10
        e[x.S + 3 * W + i] = S11 + 0.5 * (Mb1 * h1 + Mb1 * h1)
        e[x.ga + i] = ga0 - vb * h0
        e[x.ga + W + i] = ga1 - vb * h1
        e[x.d + i] -= vb
        e[x.R + i] += Fb
        e[x.s + 2 * W + i] = vb
