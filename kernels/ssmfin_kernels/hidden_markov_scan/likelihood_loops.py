"""Owns the log-likelihood alone and its gradient as numba loops, in scaled linear space, with nothing stored by step.

With predicted p, densities e_j = exp(l_j - max l) and total = sum p e, the gradient is the posterior (Fisher):

    b_T = 1,   gamma_t(j) = filtered_t(j) b_t(j),   b_{t-1}(i) = sum_j A_ij e_t(j) b_t(j) / total_t
    dl/dl_t(j) = gamma_t(j),   dl/dA_ij = sum_t filtered_{t-1}(i) A_ij e_t(j) b_t(j) / total_t,   dl/d initial = gamma_1

One exponential a state and step, and a logarithm in many steps. Linear space holds as long as no prediction falls below
`SMALL`: a series where one does (a forbidden transition, a state that must come back from nothing) is flagged, and
the caller takes it in logs (`loops.py`).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ssmfin_kernels.hidden_markov_scan.loops import _exponentials

SMALL = 1e-250

_serial = njit(cache=True, error_model="numpy")
_parallel = njit(cache=True, parallel=True, error_model="numpy")


@_serial
def _series(emission, transition, initial, reset, kept, filtered, like):
    """(log-likelihood, whether linear space held); filtered and like (T, K) are written where `kept`."""
    T, K = emission.shape
    state, e, A = np.empty(K), np.empty(K), np.empty((K, K))
    _exponentials(transition[0], A, K)
    log_likelihood, product = 0.0, 1.0
    for t in range(T):
        if t == 0 or (reset.shape[0] > 0 and reset[t]):
            for j in range(K):
                state[j] = math.exp(initial[j])
        top = -np.inf
        for j in range(K):
            if state[j] < SMALL:
                return 0.0, False
            top = max(top, emission[t, j])
        if top == -np.inf or top == np.inf:
            return 0.0, False
        total = 0.0
        for j in range(K):
            apart = emission[t, j] - top
            e[j] = math.exp(apart) if apart < 0.0 else 1.0
            state[j] *= e[j]
            total += state[j]
        scale = 1.0 / total
        for j in range(K):
            state[j] *= scale
        if kept:
            for j in range(K):
                filtered[t, j], like[t, j] = state[j], e[j] * scale
        log_likelihood += top
        product *= total
        if product < 1e-30 or product > 1e30:
            log_likelihood += math.log(product)
            product = 1.0
        if transition.shape[0] > 1 and t > 0:
            _exponentials(transition[t], A, K)
        for j in range(K):
            e[j] = 0.0
            for i in range(K):
                e[j] += state[i] * A[i, j]
        for j in range(K):
            state[j] = e[j]
    return log_likelihood + math.log(product), True


@_parallel
def forward(emission, transition, initial, reset, out, held):
    """out (B,), held (B,) bool; transition (b, t, K, K), reset (B, T) or (0, 0)."""
    B, _, K = emission.shape
    for series in prange(B):
        b = np.int64(series)
        bt, bi = min(b, transition.shape[0] - 1), min(b, initial.shape[0] - 1)
        nothing = np.empty((0, K))
        flags = reset[b] if reset.shape[0] > 0 else np.empty(0, np.bool_)
        out[b], held[b] = _series(emission[b], transition[bt], initial[bi], flags, False, nothing, nothing)


@_parallel
def gradient(emission, transition, initial, reset, g, d_emission, d_transition, d_initial, held):
    """Gradients times g (B,); d_transition (B or GROUPS, t, K, K) and d_initial (B, K) zeroed beforehand."""
    B, T, K = emission.shape
    groups = d_transition.shape[0]
    for group in prange(groups):
        g0 = np.int64(group)
        filtered, like = np.empty((T, K)), np.empty((T, K))
        following, reached, A = np.empty(K), np.empty(K), np.empty((K, K))
        for b in range(g0, B, groups):
            bt, bi = min(b, transition.shape[0] - 1), min(b, initial.shape[0] - 1)
            flags = reset[b] if reset.shape[0] > 0 else np.empty(0, np.bool_)
            _, held[b] = _series(emission[b], transition[bt], initial[bi], flags, True, filtered, like)
            if not held[b]:
                continue
            _exponentials(transition[bt, 0], A, K)
            for j in range(K):
                following[j] = 1.0
            for t in range(T - 1, -1, -1):
                for j in range(K):
                    d_emission[b, t, j] = g[b] * filtered[t, j] * following[j]
                    reached[j] = like[t, j] * following[j]
                if t == 0 or (flags.shape[0] > 0 and flags[t]):
                    for j in range(K):
                        d_initial[b, j] += d_emission[b, t, j]
                        following[j] = 1.0
                    continue
                at = t - 1 if transition.shape[1] > 1 else 0
                if transition.shape[1] > 1:
                    _exponentials(transition[bt, at], A, K)
                for i in range(K):
                    total = 0.0
                    for j in range(K):
                        p = A[i, j] * reached[j]
                        d_transition[g0, at, i, j] += g[b] * filtered[t - 1, i] * p
                        total += p
                    following[i] = total
