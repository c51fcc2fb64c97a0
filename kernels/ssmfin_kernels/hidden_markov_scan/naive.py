"""Owns the meaning of hidden Markov filtering, smoothing and decoding in plain torch, in log space.

With l_t(j) = log p(y_t | s_t = j), A_t(i, j) = log p(s_{t+1} = j | s_t = i) and pi = log p(s_1), Hamilton's filter is

    predicted_1 = pi,   predicted_{t+1}(j) = logsumexp_i (filtered_t(i) + A_t(i, j))         Hamilton (1994), eq. 22.4.6
    step_t = logsumexp_j (predicted_t(j) + l_t(j)) = log p(y_t | y_1 .. y_{t-1})
    filtered_t(j) = predicted_t(j) + l_t(j) - step_t                                         eq. 22.4.5

Kim's smoother, backward from smoothed_T = filtered_T (eq. 22.4.14):

    smoothed_t(i) = filtered_t(i) + logsumexp_j (A_t(i, j) + smoothed_{t+1}(j) - predicted_{t+1}(j))

and Viterbi's path, the states that maximise the joint probability with the observations:

    delta_1 = pi + l_1,   delta_{t+1}(j) = max_i (delta_t(i) + A_t(i, j)) + l_{t+1}(j),   ties to the lowest index.

A row l_t with a NaN is missing: zero for every state. Where `reset`, predicted_t = pi, and what went before is another
sequence: smoothed and decoded by itself. Observations of probability zero give a log-likelihood of -inf, not NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Problem(NamedTuple):
    """Arguments as the backends take them: one dtype, shapes complete; b is B or 1, t is T or 1."""

    emission: Tensor  # (B, T, K), no NaN
    transition: Tensor  # (b, t, K, K)
    initial: Tensor  # (b, K)
    reset: Tensor | None  # (B, T) bool


class Filtered(NamedTuple):
    """What every implementation of the filter returns."""

    steps: Tensor  # (B, T)
    predicted: Tensor  # (B, T, K)
    filtered: Tensor  # (B, T, K)
    final: Tensor  # (B, K), predicted for T + 1


def hidden_markov_filter(problem: Problem) -> Filtered:
    """Hamilton's filter; differentiable by autograd."""
    emission, transition, initial, reset = problem
    B, T, K = emission.shape
    first = initial.expand(B, K)
    state, predicted, filtered, steps = first, [], [], []
    for t in range(T):
        if reset is not None and t > 0:
            state = torch.where(reset[:, t, None], first, state)
        predicted.append(state)
        joint = state + emission[:, t]
        step = logsumexp(joint, -1)
        filtered.append(less(joint, step[:, None]))
        steps.append(step)
        state = logsumexp(filtered[-1][:, :, None] + at(transition, t), 1)
    return Filtered(torch.stack(steps, 1), torch.stack(predicted, 1), torch.stack(filtered, 1), state)


def hidden_markov_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; differentiable by autograd."""
    return hidden_markov_filter(problem).steps.sum(1)


def hidden_markov_smoother(problem: Problem) -> tuple[Tensor, Tensor]:
    """Log-probabilities given the whole series (B, T, K), and log-likelihood by step (B, T)."""
    steps, predicted, filtered, _ = hidden_markov_filter(problem)
    T = filtered.shape[1]
    smoothed = [filtered[:, T - 1]]
    for t in range(T - 2, -1, -1):
        ratio = less(smoothed[-1], predicted[:, t + 1])
        state = filtered[:, t] + logsumexp(at(problem.transition, t) + ratio[:, None, :], 2)
        if problem.reset is not None:
            state = torch.where(problem.reset[:, t + 1, None], filtered[:, t], state)
        smoothed.append(state)
    return torch.stack(smoothed[::-1], 1), steps


def hidden_markov_viterbi(problem: Problem) -> tuple[Tensor, Tensor]:
    """Most probable path (B, T) int64, and the log of its joint probability with the observations (B,)."""
    emission, transition, initial, reset = problem
    B, T, K = emission.shape
    first = initial.expand(B, K)
    state, sources = first + emission[:, 0], []
    for t in range(1, T):
        best, source = (state[:, :, None] + at(transition, t - 1)).max(1)
        if reset is not None:  # whatever the new state, the old sequence ends in its own best
            ended, where = state.max(1, keepdim=True)
            best = torch.where(reset[:, t, None], ended + first, best)
            source = torch.where(reset[:, t, None], where, source)
        sources.append(source)
        state = best + emission[:, t]
    log_probability, place = state.max(1)
    path = [place]
    for source in reversed(sources):
        path.append(source.gather(1, path[-1][:, None])[:, 0])
    return torch.stack(path[::-1], 1), log_probability


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """log sum exp, -inf with a gradient of zero (not NaN) where all of x is -inf."""
    top = x.detach().amax(dim, keepdim=True)
    dead = torch.isneginf(top)
    total = torch.exp(torch.where(dead, 0.0, x) - torch.where(dead, 0.0, top)).sum(dim)
    return torch.where(dead.squeeze(dim), -torch.inf, torch.log(total) + top.squeeze(dim))


def less(x: Tensor, y: Tensor) -> Tensor:
    """x - y, -inf where both are -inf."""
    dead = torch.isneginf(y)
    return torch.where(dead, -torch.inf, x - torch.where(dead, 0.0, y))


def at(transition: Tensor, t: int) -> Tensor:
    """(b, t, K, K) -> (b, K, K) at step t, or the only one there is."""
    return transition[:, t if transition.shape[1] > 1 else 0]
