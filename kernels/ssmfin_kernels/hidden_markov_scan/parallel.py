"""Owns the hidden Markov operations as associative scans over time, in plain torch: for one very long series.

The element of step t is the matrix A_{t-1}(i, j) + l_t(j), and where a sequence starts pi(j) + l_t(j) in every row;
elements combine by matrix product over (logsumexp, +), for Viterbi over (max, +) (Hassan, Särkkä & García-Fernández
2021, IEEE TSP 69). Only proportions matter to the filter, so each product is scaled to a maximum of zero: sums of a
million logarithms would leave no digits. Predictions and likelihoods follow from the filtered states step by step.
Viterbi's back-pointers are maps of states to states, whose composition is associative too. Sums in another order round
another way, so where paths tie another of the best may be found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.hidden_markov_scan.naive import Filtered, Problem, less, logsumexp
from ssmfin_kernels.kalman_scan.prefix import Elements, prefix


def hidden_markov_filter(problem: Problem) -> Filtered:
    """As `naive.hidden_markov_filter`."""
    emission, transition, initial, _ = problem
    B, _, K = emission.shape
    starts = _starts(problem)
    product, _ = prefix(combine_filtered, (_elements(problem, starts), starts))
    filtered = _normalised(product[:, :, 0])  # a first element has equal rows, and so has every prefix
    following = logsumexp(filtered[..., None] + transition, 2)  # (B, T, K), for t + 1
    predicted = torch.cat([initial.expand(B, K)[:, None], following[:, :-1]], 1)
    predicted = torch.where(starts[..., None], initial[:, None], predicted)
    joint = predicted + emission
    steps = logsumexp(joint, 2)
    return Filtered(steps, predicted, less(joint, steps[..., None]), following[:, -1])


def hidden_markov_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; differentiable by autograd."""
    return hidden_markov_filter(problem).steps.sum(1)


def hidden_markov_smoother(problem: Problem) -> tuple[Tensor, Tensor]:
    """As `naive.hidden_markov_smoother`: smoothed = filtered + (the future, a scan of the same elements backward)."""
    steps, _, filtered, _ = hidden_markov_filter(problem)
    starts = _starts(problem)
    B, _, K = filtered.shape
    # a sequence that starts at t + 1 says nothing of the state at t: equal columns would do, so does zero
    elements = torch.where(starts[..., None, None], 0.0, _elements(problem, starts))[:, 1:]
    last = filtered.new_zeros(B, 1, K, K)
    (product,) = prefix(_combine_later, (torch.cat([elements, last], 1).flip(1),))
    future = logsumexp(product.flip(1), 3)  # (B, T, K)
    return _normalised(filtered + future), steps


def hidden_markov_viterbi(problem: Problem) -> tuple[Tensor, Tensor]:
    """As `naive.hidden_markov_viterbi`."""
    emission, transition, _, reset = problem
    B, T, K = emission.shape
    starts = _starts(problem)
    elements = _elements(problem, starts)
    (delta,) = prefix(_combine_max, (elements,))
    # with a reset every row of an element is alike, so the max over rows is the old sequence's best
    best = delta[:, :, 0]
    steps = best[:, :-1, :, None] + transition.expand(-1, T, K, K)[:, : T - 1]
    source = steps.argmax(2) if T > 1 else torch.zeros(B, 0, K, dtype=torch.long, device=emission.device)
    if reset is not None and T > 1:
        ended = best[:, :-1].argmax(2, keepdim=True).expand(B, T - 1, K)
        source = torch.where(reset[:, 1:, None], ended, source)
    log_probability, place = best[:, -1].max(1)
    maps = torch.cat([source, place[:, None, None].expand(B, 1, K)], 1).flip(1)
    (path,) = prefix(_compose, (maps,))
    return path.flip(1)[..., 0], log_probability


def combine_filtered(left: Elements, right: Elements) -> Elements:
    """(matrix, whether a sequence starts in it): what came before a start is cut off, its gradient to the last bit."""
    (before, started), (after, starts) = left, right
    return torch.where(starts[..., None, None], after, _product(before, after)), started | starts


def _combine_later(later: Elements, earlier: Elements) -> Elements:
    return (_product(earlier[0], later[0]),)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Log-matrix product, scaled to a maximum of zero."""
    product = logsumexp(left[..., :, :, None] + right[..., None, :, :], -2)
    return less(product, product.detach().flatten(-2).amax(-1)[..., None, None])


def _combine_max(left: Elements, right: Elements) -> Elements:
    return ((left[0][..., :, :, None] + right[0][..., None, :, :]).amax(-2),)


def _compose(later: Elements, earlier: Elements) -> Elements:
    return (earlier[0].gather(-1, later[0]),)


def _starts(problem: Problem) -> Tensor:
    B, T, _ = problem.emission.shape
    starts = torch.zeros(B, T, dtype=torch.bool, device=problem.emission.device)
    starts[:, 0] = True
    return starts if problem.reset is None else starts | problem.reset


def _elements(problem: Problem, starts: Tensor) -> Tensor:
    """(B, T, K, K)."""
    emission, transition, initial, _ = problem
    T = emission.shape[1]
    if transition.shape[1] > 1:  # what leads to step t stands at t - 1
        transition = torch.cat([transition[:, :1], transition[:, : T - 1]], 1)
    matrix = torch.where(starts[..., None, None], initial[:, None, None, :], transition)
    return matrix + emission[:, :, None, :]


def _normalised(x: Tensor) -> Tensor:
    return less(x, logsumexp(x, -1)[..., None])
