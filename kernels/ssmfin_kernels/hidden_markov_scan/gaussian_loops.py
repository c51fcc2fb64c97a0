"""Owns the recursions of Gaussian regimes as numba loops: filter, smoother and expectation, in scaled linear space.

`gaussian.py` has the algebra. A state is a tuple m = (s_t, .., s_{t-p}) of the current and p lagged regimes, numbered
with s_t as the highest digit in base K. Given tuple m, what comes depends on its head (s_t, .., s_{t-p+1}) alone, that
is m // K (m itself where p = 0). Densities are divided by the largest of their step, and predictions that are not zero
are at least of the size of the smallest transition probability, so that nothing underflows. Runs of rows before the
first observed one leave the initial distribution as it is, to the bit: padding does not change a series.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

# no fast-math: fused differently in different loops, a series would owe its last bit to the batch it is in
_serial = njit(cache=True, error_model="numpy")
_parallel = njit(cache=True, parallel=True, error_model="numpy")


@_serial
def sizes(K, order):
    """Number of tuples, of heads, and what divides a head to give its current regime."""
    heads = K ** max(order, 1)
    return K ** (order + 1), heads, heads // K


@_serial
def initial_tuples(transition, initial, order, out):
    """Distribution of the first tuple: initial(s_{t-p}) prod transition(s_{t-i}, s_{t-i+1})."""
    K = initial.shape[0]
    for m in range(out.shape[0]):
        rest, current = m // K, m % K
        p = initial[current]
        for _ in range(order):
            following = rest % K
            p *= transition[current, following]
            current, rest = following, rest // K
        out[m] = p


@_serial
def predict(transition, states, t, order, heads, out):
    """Distribution of the next tuple from states[t], both (M,); heads (H,) is scratch."""
    K = transition.shape[0]
    _, H, top = sizes(K, order)
    if order == 0:
        for j in range(K):
            total = states[t, 0] * transition[0, j]
            for i in range(1, K):
                total += states[t, i] * transition[i, j]
            out[j] = total
        return
    for h in range(H):
        total = states[t, h * K]
        for k in range(1, K):
            total += states[t, h * K + k]
        heads[h] = total
    for j in range(K):
        for h in range(H):
            out[j * H + h] = heads[h] * transition[h // top, j]


@_serial
def densities(z, t, constant, rows, q, out, to):
    """Densities of observation z[t] under pattern q, each divided by the largest, into out[to]; returns its log.

    log f_m = constant_m - 1/2 sum_r (rows_mr z)^2
    """
    M, R, D = rows.shape[1:]
    largest = -np.inf
    for m in range(M):
        total = 0.0
        for r in range(R):
            product = rows[q, m, r, 0] * z[t, 0]
            for d in range(1, D):
                product += rows[q, m, r, d] * z[t, d]
            total += product * product
        log_density = constant[q, m] - 0.5 * total
        out[to, m] = log_density
        largest = max(largest, log_density)
    for m in range(M):
        apart = out[to, m] - largest
        out[to, m] = math.exp(apart) if apart < 0.0 else 1.0
    return largest


@_serial
def span(pattern):
    """First and last row that is observed; (T, -1) where none is."""
    first, last = pattern.shape[0], -1
    for t in range(pattern.shape[0]):
        if pattern[t] >= 0:
            first, last = min(first, t), t
    return first, last


@_serial
def _forward(z, pattern, first, last, constant, rows, transition, initial, order, filtered, like):
    """Filtered tuples and scaled densities over rows first .. last; returns the log-likelihood."""
    K = transition.shape[0]
    M, H, _ = sizes(K, order)
    state, heads = np.empty(M), np.empty(H)
    initial_tuples(transition, initial, order, state)
    log_likelihood, product = 0.0, 1.0
    for t in range(first, last + 1):
        if t > first:
            predict(transition, filtered, t - 1, order, heads, state)
        q = pattern[t]
        if q < 0:
            for m in range(M):
                filtered[t, m], like[t, m] = state[m], 1.0
            continue
        log_likelihood += densities(z, t, constant, rows, q, like, t)
        total = 0.0
        for m in range(M):
            filtered[t, m] = state[m] * like[t, m]
            total += filtered[t, m]
        scale = 1.0 / total
        for m in range(M):
            filtered[t, m] *= scale
            like[t, m] *= scale
        product *= total
        if product < 1e-150:  # one logarithm in many steps
            log_likelihood += math.log(product)
            product = 1.0
    return log_likelihood + math.log(product)


@_parallel
def expectation(
    z, pattern, of, constant, rows, transition, initial, order, log_likelihood, counts, start, weight, moments
):
    """Log-likelihood and expected sufficient statistics of N jobs; job n is series of[n]. Outputs zeroed beforehand."""
    N, K = initial.shape
    M, _, _ = sizes(K, order)
    for job in prange(N):
        n = np.int64(job)
        b = of[n]
        first, last = span(pattern[b])
        if last < 0:
            continue
        T = last + 1
        filtered, like = np.empty((T, M)), np.empty((T, M))
        own = (z[b], pattern[b], first, last)
        chain = (transition[n], initial[n])
        if M == 2 and rows.shape[1] == 1 and rows.shape[3] == 1:
            log_likelihood[n] = _forward_of_two(*own, constant[n], rows[n], *chain, filtered, like)
            _backward_of_two(pattern[b], first, last, transition[n], filtered, like, counts[n], start[n])
        else:
            log_likelihood[n] = _forward(*own, constant[n], rows[n], *chain, order, filtered, like)
            _backward(first, last, transition[n], order, filtered, like, counts[n], start[n])
        _accumulate(*own, filtered, weight[n], moments[n])


@_serial
def _forward_of_two(z, pattern, first, last, constant, rows, transition, initial, filtered, like):
    """As `_forward`, of two regimes without order and one form each, in registers."""
    D = z.shape[1]
    c0, c1 = constant[0, 0], constant[0, 1]
    p00, p01, p10, p11 = transition[0, 0], transition[0, 1], transition[1, 0], transition[1, 1]
    state0, state1 = initial[0], initial[1]
    log_likelihood, product = 0.0, 1.0
    for t in range(first, last + 1):
        if pattern[t] < 0:
            filtered[t, 0], filtered[t, 1], like[t, 0], like[t, 1] = state0, state1, 1.0, 1.0
            f0, f1 = state0, state1
        else:
            r0, r1 = rows[0, 0, 0, 0] * z[t, 0], rows[0, 1, 0, 0] * z[t, 0]
            for d in range(1, D):
                r0 += rows[0, 0, 0, d] * z[t, d]
                r1 += rows[0, 1, 0, d] * z[t, d]
            l0, l1 = c0 - 0.5 * (r0 * r0), c1 - 0.5 * (r1 * r1)
            apart = l1 - l0
            e = math.exp(-abs(apart))
            e0, e1 = (1.0, e) if apart < 0.0 else (e, 1.0)
            log_likelihood += max(l0, l1)
            f0, f1 = state0 * e0, state1 * e1
            total = f0 + f1
            scale = 1.0 / total
            f0, f1 = f0 * scale, f1 * scale
            filtered[t, 0], filtered[t, 1], like[t, 0], like[t, 1] = f0, f1, e0 * scale, e1 * scale
            product *= total
            if product < 1e-150:  # one logarithm in many steps
                log_likelihood += math.log(product)
                product = 1.0
        state0, state1 = f0 * p00 + f1 * p10, f0 * p01 + f1 * p11
    return log_likelihood + math.log(product)


@_serial
def _backward_of_two(pattern, first, last, transition, filtered, like, counts, start):
    """As `_backward`, of two regimes without order, in registers."""
    p00, p01, p10, p11 = transition[0, 0], transition[0, 1], transition[1, 0], transition[1, 1]
    n00, n01, n10, n11 = 0.0, 0.0, 0.0, 0.0
    b0, b1 = 1.0, 1.0
    for t in range(last, first, -1):
        filtered[t, 0], filtered[t, 1] = filtered[t, 0] * b0, filtered[t, 1] * b1
        b0, b1 = like[t, 0] * b0, like[t, 1] * b1
        f0, f1 = filtered[t - 1, 0], filtered[t - 1, 1]
        n00 += f0 * b0
        n01 += f0 * b1
        n10 += f1 * b0
        n11 += f1 * b1
        b0, b1 = p00 * b0 + p01 * b1, p10 * b0 + p11 * b1
    filtered[first, 0], filtered[first, 1] = filtered[first, 0] * b0, filtered[first, 1] * b1
    start[0], start[1] = filtered[first, 0], filtered[first, 1]
    counts[0, 0], counts[0, 1], counts[1, 0], counts[1, 1] = n00 * p00, n01 * p01, n10 * p10, n11 * p11


@_serial
def _backward(first, last, transition, order, filtered, like, counts, start):
    """Make filtered tuples smoothed ones; add the expected transitions and the first regime."""
    K = transition.shape[0]
    M, H, top = sizes(K, order)
    following, reached = np.ones(H), np.empty(M)
    block = K if order > 0 else 1  # tuples of one head
    for t in range(last, first - 1, -1):
        for h in range(H):
            for k in range(block):
                m = h * block + k
                reached[m] = like[t, m] * following[h]
                filtered[t, m] *= following[h]
        if t == first:
            break
        for current in range(K):
            for h in range(current * top, (current + 1) * top):
                mass = filtered[t - 1, h * block]
                for k in range(1, block):
                    mass += filtered[t - 1, h * block + k]
                total = 0.0
                for j in range(K):
                    p = transition[current, j] * reached[j * H + h if order > 0 else j]
                    counts[current, j] += mass * p
                    total += p
                following[h] = total
    for m in range(M):
        p = filtered[first, m]
        rest, current = m // K, m % K
        start[current] += p
        for _ in range(order):
            counts[current, rest % K] += p
            current, rest = rest % K, rest // K


@_serial
def _accumulate(z, pattern, first, last, smoothed, weight, moments):
    """Add weights and moments; rows that are missing are zero in z."""
    Q, M, D = moments.shape[:3]
    for t in range(first, last + 1):
        q = pattern[t]
        if q >= 0:
            for m in range(M):
                weight[q, m] += smoothed[t, m]
    if Q == 1:
        for i in range(D):
            for j in range(i, D):
                for m in range(0, M - 1, 2):  # two sums at a time hide the latency of addition
                    a, b = 0.0, 0.0
                    for t in range(first, last + 1):
                        product = z[t, i] * z[t, j]
                        a += smoothed[t, m] * product
                        b += smoothed[t, m + 1] * product
                    moments[0, m, i, j], moments[0, m + 1, i, j] = a, b
                if M % 2 == 1:
                    a = 0.0
                    for t in range(first, last + 1):
                        a += smoothed[t, M - 1] * (z[t, i] * z[t, j])
                    moments[0, M - 1, i, j] = a
    else:
        for t in range(first, last + 1):
            q = pattern[t]
            if q >= 0:
                for m in range(M):
                    for i in range(D):
                        v = smoothed[t, m] * z[t, i]
                        for j in range(i, D):
                            moments[q, m, i, j] += v * z[t, j]
    for q in range(Q):
        for m in range(M):
            for i in range(D):
                for j in range(i):
                    moments[q, m, i, j] = moments[q, m, j, i]


@_parallel
def run(z, pattern, constant, rows, transition, initial, started, order, steps, predicted, filtered):
    """Filter; initial (B, M) is of tuples: the distribution of the first row, or the carried prediction where started.

    On return `initial` holds the prediction for row T, `started` whether a row has been observed. Regimes are summed
    over the lagged ones: predicted and filtered are (B, T, K).
    """
    B, T, K = filtered.shape
    M, H, _ = sizes(K, order)
    block = M // K
    for series in prange(B):
        b = np.int64(series)
        heads, like, following = np.empty(H), np.empty((1, M)), np.empty(M)
        state = initial[b]
        own, constants, forms, moves = z[b], constant[b], rows[b], transition[b]
        for t in range(T):
            for j in range(K):
                total = 0.0
                for m in range(j * block, (j + 1) * block):
                    total += state[m]
                predicted[b, t, j] = total
            q = pattern[b, t]
            if q >= 0:
                top_density = densities(own, t, constants, forms, q, like, 0)
                total = 0.0
                for m in range(M):
                    like[0, m] *= state[m]
                    total += like[0, m]
                steps[b, t] = top_density + math.log(total)
                for m in range(M):
                    like[0, m] /= total
                started[b] = True
            else:
                steps[b, t] = np.nan
                for m in range(M):
                    like[0, m] = state[m]
            for j in range(K):
                total = 0.0
                for m in range(j * block, (j + 1) * block):
                    total += like[0, m]
                filtered[b, t, j] = total
            if started[b]:
                predict(moves, like, 0, order, heads, following)
                for m in range(M):
                    state[m] = following[m]


@_parallel
def smooth(z, pattern, constant, rows, transition, initial, order, smoothed):
    """Probabilities of regimes given the whole series, (B, T, K); initial (B, K)."""
    B, T, K = smoothed.shape
    M, H, top = sizes(K, order)
    block = M // K
    for series in prange(B):
        b = np.int64(series)
        first, last = span(pattern[b])
        filtered, like = np.empty((T, M)), np.empty((T, M))
        if last < 0:
            for t in range(T):
                for j in range(K):
                    smoothed[b, t, j] = initial[b, j]
            continue
        _forward(z[b], pattern[b], first, T - 1, constant[b], rows[b], transition[b], initial[b], order, filtered, like)
        following, before = np.ones(H), np.empty(H)
        for t in range(T - 1, first - 1, -1):
            for j in range(K):
                total = 0.0
                for m in range(j * block, (j + 1) * block):
                    total += filtered[t, m] * following[m // K if order > 0 else m]
                smoothed[b, t, j] = total
            if t > first:
                for h in range(H):
                    total = 0.0
                    for j in range(K):
                        m = j * H + h if order > 0 else j
                        total += transition[b, h // top, j] * like[t, m] * following[m // K if order > 0 else m]
                    before[h] = total
                following, before = before, following
        # before the first observation: the chain reversed
        _reverse(transition[b], initial[b], filtered[first], following, order, first, smoothed[b])


@_serial
def _reverse(transition, initial, state, following, order, first, smoothed):
    """Smoothed probabilities of the rows before `first`: of its lagged regimes, then of the stationary chain before."""
    K = transition.shape[0]
    M = state.shape[0]
    lead = min(order, first)
    for back in range(1, lead + 1):
        for j in range(K):
            smoothed[first - back, j] = 0.0
        divisor = K ** (order - back)
        for m in range(M):
            smoothed[first - back, (m // divisor) % K] += state[m] * following[m // K]
    for t in range(first - lead - 1, -1, -1):
        for i in range(K):
            total = 0.0
            for j in range(K):
                if initial[j] > 0.0:
                    total += initial[i] * transition[i, j] / initial[j] * smoothed[t + 1, j]
            smoothed[t, i] = total
