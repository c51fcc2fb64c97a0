"""Owns the hidden Markov recursions as numba loops: series in parallel, time in sequence.

Sums are taken over scaled probabilities, e_i = exp(joint_i - max), K exponentials and K + 1 logarithms a step; where
such a sum underflows (a state reached only through one that looked all but impossible) it is taken again in logs.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

SMALL = 1e-280  # sums below it may have lost terms to underflow
GROUPS = 16  # partial sums of shared gradients; fixed, so that results do not depend on the number of threads

_serial = njit(cache=True, fastmath={"contract"}, error_model="numpy")
_parallel = njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")


@_serial
def _log_sum(x, A, j, K):
    """logsumexp_i (x_i + A_ij)."""
    top = -np.inf
    for i in range(K):
        top = max(top, x[i] + A[i, j])
    if top == -np.inf:
        return top
    total = 0.0
    for i in range(K):
        total += math.exp(x[i] + A[i, j] - top)
    return top + math.log(total)


@_serial
def _exponentials(A, out, K):
    for i in range(K):
        for j in range(K):
            out[i, j] = math.exp(A[i, j])


@_parallel
def run(emission, transition, initial, reset, steps, predicted, filtered, final):
    """naive.Filtered; transition (b, t, K, K), reset (B, T) or (0, 0)."""
    B, T, K = emission.shape
    for series in prange(B):
        b = np.int64(series)
        bt, bi = min(b, transition.shape[0] - 1), min(b, initial.shape[0] - 1)
        state, e, A = np.empty(K), np.empty(K), np.empty((K, K))
        _exponentials(transition[bt, 0], A, K)
        for t in range(T):
            if t == 0 or (reset.shape[0] > 0 and reset[b, t]):
                for j in range(K):
                    state[j] = initial[bi, j]
            top = -np.inf
            for j in range(K):
                predicted[b, t, j] = state[j]
                state[j] += emission[b, t, j]
                top = max(top, state[j])
            total = 0.0
            for j in range(K):
                e[j] = math.exp(state[j] - top) if top > -np.inf else 0.0
                total += e[j]
            step = top + math.log(total) if top > -np.inf else -np.inf
            steps[b, t] = step
            for j in range(K):
                filtered[b, t, j] = state[j] - step if top > -np.inf else -np.inf
            at = t if transition.shape[1] > 1 else 0
            if at > 0:
                _exponentials(transition[bt, at], A, K)
            for j in range(K):
                q = 0.0
                for i in range(K):
                    q += e[i] * A[i, j]
                state[j] = math.log(q / total) if q > SMALL else _log_sum(filtered[b, t], transition[bt, at], j, K)
        for j in range(K):
            final[b, j] = state[j]


@_serial
def _weight(f, a, q):
    """exp(f + a - q), the probability of having come from i given j; 0 if j cannot be reached."""
    return math.exp(f + a - q) if q > -np.inf else 0.0


@_parallel
def backward(
    transition,
    reset,
    predicted,
    filtered,
    final,
    g_steps,
    g_predicted,
    g_filtered,
    g_final,
    d_emission,
    d_transition,
    d_initial,
):
    """Gradients; d_transition (B or GROUPS, t, K, K) and d_initial (B, K) zeroed beforehand.

    With j-bar the gradient of joint_t = predicted_t + l_t and p = exp(filtered):

        joint-bar_j = filtered-bar_j + p_j (step-bar - sum filtered-bar),   l-bar = predicted-bar = joint-bar
        w_ij = exp(filtered_i + A_ij - predicted'_j),   A-bar_ij += predicted'-bar_j w_ij,
        filtered-bar_i += sum_j predicted'-bar_j w_ij
    """
    B, T, K = filtered.shape
    groups = d_transition.shape[0]
    for group in prange(groups):
        g0 = np.int64(group)
        for b in range(g0, B, groups):
            bt = min(b, transition.shape[0] - 1)
            following, current = np.empty(K), np.empty(K)
            for j in range(K):
                following[j] = g_final[b, j]
            for t in range(T - 1, -1, -1):
                at = t if transition.shape[1] > 1 else 0
                total = 0.0
                for i in range(K):
                    current[i] = g_filtered[b, t, i]
                for j in range(K):
                    if following[j] != 0.0:
                        q = final[b, j] if t == T - 1 else predicted[b, t + 1, j]
                        for i in range(K):
                            w = following[j] * _weight(filtered[b, t, i], transition[bt, at, i, j], q)
                            current[i] += w
                            d_transition[g0, at, i, j] += w
                for i in range(K):
                    total += current[i]
                for i in range(K):
                    joint = current[i] + math.exp(filtered[b, t, i]) * (g_steps[b, t] - total)
                    dead = filtered[b, t, i] == -np.inf
                    d_emission[b, t, i] = 0.0 if dead else joint
                    following[i] = (0.0 if dead else joint) + g_predicted[b, t, i]
                if t == 0 or (reset.shape[0] > 0 and reset[b, t]):
                    for i in range(K):
                        d_initial[b, i] += following[i]
                        following[i] = 0.0


@_parallel
def smooth(transition, reset, predicted, filtered, smoothed):
    """Kim's smoother."""
    B, T, K = filtered.shape
    for series in prange(B):
        b = np.int64(series)
        bt = min(b, transition.shape[0] - 1)
        ratio = np.empty(K)
        for j in range(K):
            smoothed[b, T - 1, j] = filtered[b, T - 1, j]
        for t in range(T - 2, -1, -1):
            if reset.shape[0] > 0 and reset[b, t + 1]:
                for j in range(K):
                    smoothed[b, t, j] = filtered[b, t, j]
                continue
            at = t if transition.shape[1] > 1 else 0
            for j in range(K):
                q = predicted[b, t + 1, j]
                ratio[j] = smoothed[b, t + 1, j] - q if q > -np.inf else -np.inf
            for i in range(K):
                smoothed[b, t, i] = filtered[b, t, i] + _log_sum(ratio, transition[bt, at].T, i, K)


@_parallel
def viterbi(emission, transition, initial, reset, path, log_probability):
    """Most probable path, ties to the lowest index."""
    B, T, K = emission.shape
    for series in prange(B):
        b = np.int64(series)
        bt, bi = min(b, transition.shape[0] - 1), min(b, initial.shape[0] - 1)
        source = np.empty((T, K), dtype=np.int32)
        state, following = np.empty(K), np.empty(K)
        for j in range(K):
            state[j] = initial[bi, j] + emission[b, 0, j]
        for t in range(1, T):
            at = t - 1 if transition.shape[1] > 1 else 0
            start = reset.shape[0] > 0 and reset[b, t]
            for j in range(K):
                best, where = -np.inf, 0
                for i in range(K):
                    score = state[i] + (0.0 if start else transition[bt, at, i, j])
                    if score > best:
                        best, where = score, i
                source[t, j] = where
                following[j] = best + (initial[bi, j] if start else 0.0) + emission[b, t, j]
            for j in range(K):
                state[j] = following[j]
        where = 0
        for j in range(1, K):
            if state[j] > state[where]:
                where = j
        log_probability[b] = state[where]
        for t in range(T - 1, -1, -1):
            path[b, t] = where
            if t > 0:
                where = source[t, where]
