"""Owns the names of regimes: numbered in order, then kept from one fit to the next, or said to be lost.

The likelihood does not know which regime is called 0. Regimes are numbered by variance (or mean); a refit is matched to
the one before by the assignment that moves regimes least, in the metric of the Gaussian family at regime k,

    d^2(k, l) = mean_f [ (m_kf - m_lf)^2 / v + (log v_kf - log v_lf)^2 / 2 ],   v = (v_kf + v_lf) / 2

so that 1 is a mean that moved by one standard deviation of its regime, or a variance by a factor of four. An
assignment is refused when a second one is nearly as short, or when a regime moved by more than `FAR`.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

FAR = 1.0  # squared distance beyond which a regime is another one
NEAR = 2.0  # the second best assignment must be this much longer than the best
SAME = 1e-3  # squared distance below which two regimes are one


def ordering(key: np.ndarray) -> np.ndarray:
    """(B, K) regimes from the smallest key to the largest; NaN keep their order."""
    return np.argsort(key, axis=1, kind="stable")


def distances(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(B, K, K) squared distance of regime k before to regime l after; each (locations, variances), (B, K, F)."""
    location, variance = (part[:, :, None] for part in before)
    new_location, new_variance = (part[:, None] for part in after)
    between = 0.5 * (variance + new_variance)
    apart = 0.5 * (np.log(variance) - np.log(new_variance)) ** 2
    if location.shape[-1]:
        apart = apart + (location - new_location) ** 2 / between
    averaged: np.ndarray = apart.mean(3)
    return averaged


def match(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which regime after is each regime before.

    Args:
        before, after: (locations, variances), each (B, K, F); NaN where a fit failed.
    Returns:
        (B, K): regime order[b, k] after is regime k before, the identity where they cannot be matched, and a word for
        each series: "matched", or why not.
    """
    apart = distances(before, after)
    B, K, _ = apart.shape
    order = np.tile(np.arange(K), (B, 1))
    choices = list(permutations(range(K)))
    words = []
    for b in range(B):
        if not np.isfinite(apart[b]).all():
            words.append("not matched: one of the two fits has no parameters")
            continue
        cost = [sum(apart[b, k, choice[k]] for k in range(K)) for choice in choices]
        best, second = np.argsort(cost, kind="stable")[:2]
        choice = np.array(choices[best])
        moved = apart[b, np.arange(K), choice]
        if moved.max() > FAR:
            k = int(moved.argmax())
            words.append(f"not matched: regime {k} moved by {np.sqrt(moved[k]):.1f} standard deviations")
        elif cost[second] < SAME or cost[second] < NEAR * cost[best]:
            near = f"{cost[best]:.2g} and {cost[second]:.2g}"
            words.append(f"not matched: two ways to pair the regimes are about as good (distances {near})")
        else:
            order[b] = choice
            words.append("matched")
    return order, tuple(words)
