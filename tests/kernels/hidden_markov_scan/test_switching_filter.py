"""Owns the tests of Kim's filter: against the recursion written out, and the Kalman filter where nothing switches."""

import numpy as np
import pytest
import torch

from ssmfin_kernels import StateSpace, kalman_filter
from ssmfin_kernels.hidden_markov_scan import switching


def case(seed, *, B=2, T=25, K=2, n=2):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((B, T))
    y[rng.random((B, T)) < 0.2] = np.nan
    y[0, :3] = np.nan
    root = rng.standard_normal((B, K, n, n))
    start = rng.standard_normal((B, K, n, n))
    model = switching.SwitchingModel(
        F=0.4 * rng.standard_normal((B, K, n, n)),
        H=rng.standard_normal((B, K, n)),
        Q=root @ root.swapaxes(2, 3),
        R=rng.uniform(0.2, 2.0, (B, K)),
        c=rng.standard_normal((B, K, n)),
        d=rng.standard_normal((B, K)),
        transition=rng.dirichlet(np.ones(K), (B, K)),
        p=rng.dirichlet(np.ones(K), B),
        mean=rng.standard_normal((B, K, n)),
        covariance=start @ start.swapaxes(2, 3),
    )
    return y, model


def written_out(y, b, model):
    """Kim (1994), eq. 2.8 to 2.14, in matrices."""
    F, H, Q, R, c, d, A, p, mean, covariance = (part[b] for part in model)
    K, n = H.shape
    steps, filtered = [], []
    started = False
    for value in y[b]:
        started = started or not np.isnan(value)
        if not started:
            filtered.append(p.copy())
            steps.append(np.nan)
            continue
        w, means, covariances = np.zeros((K, K)), np.zeros((K, K, n)), np.zeros((K, K, n, n))
        for i in range(K):
            for j in range(K):
                a, P = c[j] + F[j] @ mean[i], F[j] @ covariance[i] @ F[j].T + Q[j]
                density = 1.0
                if not np.isnan(value):
                    v, f = value - d[j] - H[j] @ a, H[j] @ P @ H[j] + R[j]
                    gain = P @ H[j] / f
                    a, P = a + gain * v, P - np.outer(gain, H[j]) @ P
                    density = np.exp(-0.5 * v * v / f) / np.sqrt(2 * np.pi * f)
                w[i, j], means[i, j], covariances[i, j] = p[i] * A[i, j] * density, a, P
        total = w.sum()
        p = w.sum(0) / total
        mean = np.einsum("ij,ijr->jr", w, means) / w.sum(0)[:, None]
        apart = means - mean
        spread = covariances + apart[..., :, None] * apart[..., None, :]
        covariance = np.einsum("ij,ijrk->jrk", w, spread) / w.sum(0)[:, None, None]
        filtered.append(p)
        steps.append(np.nan if np.isnan(value) else np.log(total))
    return np.array(steps), np.array(filtered)


@pytest.mark.parametrize("K, n", [(2, 1), (2, 2), (3, 2)])
def test_filter_equals_the_recursion_written_out(K, n):
    y, model = case(K + n, K=K, n=n)
    got = switching.switching_filter(y, model)
    likelihood = switching.switching_log_likelihood(y, np.arange(2), model)
    for b in range(2):
        steps, filtered = written_out(y, b, model)
        np.testing.assert_allclose(got.steps[b], steps, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(got.filtered[b], filtered, atol=1e-12)
        assert likelihood[b] == pytest.approx(np.nansum(steps), rel=1e-12)


def test_equal_regimes_are_the_kalman_filter():
    y, model = case(1)
    y[0, :3] = 0.5
    same = model._replace(
        **{name: np.repeat(getattr(model, name)[:, :1], 2, 1) for name in ("F", "H", "Q", "R", "c", "d", "mean")},
        covariance=np.repeat(model.covariance[:, :1], 2, 1),
    )
    got = switching.switching_filter(y, same)
    for b in range(2):
        F, H, Q, R, c, d = (torch.tensor(part[b, 0]) for part in same[:6])
        first_mean = F @ torch.tensor(same.mean[b, 0]) + c
        first = F @ torch.tensor(same.covariance[b, 0]) @ F.T + Q
        space = StateSpace(
            F, H[None], Q, R[None, None], state_intercept=c, observation_intercept=d[None],
            initial_mean=first_mean, initial_covariance=first,
        )  # fmt: skip
        want = kalman_filter(torch.tensor(y[b])[None, :, None], space).log_likelihood_steps[0].numpy()
        np.testing.assert_allclose(np.nan_to_num(got.steps[b]), want, rtol=1e-10, atol=1e-10)


def test_complex_step_is_the_derivative():
    y, model = case(2)
    jobs = np.arange(2)

    def value(change):
        moved = model._replace(R=model.R + change, c=model.c + 2 * change, F=model.F * (1 + change))
        return switching.switching_log_likelihood(y, jobs, moved)

    exact = value(1e-30j).imag / 1e-30
    np.testing.assert_allclose((value(1e-6) - value(-1e-6)) / 2e-6, exact, rtol=1e-6)


@pytest.mark.parametrize("K, n, burn", [(2, 1, 0), (2, 2, 2), (3, 2, 1)])
def test_gradient_is_the_complex_step(K, n, burn):
    y, model = case(K + n, K=K, n=n)
    rng, D, of = np.random.default_rng(0), 5, np.array([1, 0])
    tangents = switching.SwitchingModel(*(rng.standard_normal((*part.shape, D)) for part in model))
    value, gradient = switching.switching_gradient(y, of, model, tangents, burn=burn)
    for u in range(D):
        moved = (part + 1e-30j * along[..., u] for part, along in zip(model, tangents, strict=True))
        want = switching.switching_log_likelihood(y, of, switching.SwitchingModel(*moved), burn=burn)
        np.testing.assert_allclose(value, want.real, rtol=1e-13)
        np.testing.assert_allclose(gradient[:, u], want.imag / 1e-30, rtol=1e-9)


def test_tangents_of_another_shape_are_refused():
    y, model = case(1)
    tangents = switching.SwitchingModel(*(np.zeros((*part.shape, 3)) for part in model))
    with pytest.raises(ValueError, match=r"tangents\.R has shape .* expected"):
        switching.switching_gradient(y, np.arange(2), model, tangents._replace(R=np.zeros((2, 2))))


@pytest.mark.parametrize("cut", [0, 1, 9, 25])
def test_run_in_two_parts_equals_one(cut):
    y, model = case(3)
    whole = switching.switching_filter(y, model, burn=2)
    first = switching.switching_filter(y[:, :cut], model, burn=2)
    going = model._replace(p=np.exp(first.log_p), mean=first.mean, covariance=first.covariance)
    second = switching.switching_filter(y[:, cut:], going, burn=2, seen=first.seen)
    for name in ("steps", "predicted", "filtered"):
        both = np.concatenate([getattr(first, name), getattr(second, name)], 1)
        np.testing.assert_allclose(both, getattr(whole, name), rtol=1e-12, atol=1e-13)


def test_smoother_ends_in_the_filter_and_keeps_sums():
    y, model = case(4, T=60)
    filtered = switching.switching_filter(y, model)
    smoothed = switching.switching_smoother(model.transition, filtered)
    np.testing.assert_allclose(smoothed[:, -1], filtered.filtered[:, -1])
    np.testing.assert_allclose(smoothed.sum(2), 1.0, rtol=1e-12)


def test_mistakes_are_named():
    y, model = case(0)
    with pytest.raises(ValueError, match=r"Q has shape \(1, 2, 2, 2\), expected \(2, 2, 2, 2\)"):
        switching.switching_filter(y, model._replace(Q=model.Q[:1]))
