"""Owns the tests of the Kalman filter and smoother against what shares nothing with them: dense Gaussians, statsmodels,
published numbers; and of every fast form against the naive one."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssmfin_kernels.kalman_scan import (
    OUTPUTS,
    StateSpace,
    cpu,
    kalman_filter,
    kalman_log_likelihood,
    kalman_smoother,
    naive,
    parallel,
)
from ssmfin_kernels.kalman_scan.model import Problem, prepare

F64 = torch.float64


def random_model(seed, B, T, N, P, *, by_time=False, by_series=True, diffuse=0, dtype=F64):
    """Stable matrices, correlated errors, intercepts; the first `diffuse` states unknown."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=F64)

    b, t = B if by_series else 1, T if by_time else 1

    def positive(*shape):
        root = normal(*shape)
        return root @ root.mT + 0.1 * torch.eye(shape[-1], dtype=F64)

    unknown = torch.diag((torch.arange(N) < diffuse).to(F64)) if diffuse else None
    model = StateSpace(
        0.5 * normal(b, t, N, N) / math.sqrt(N) + 0.4 * torch.eye(N, dtype=F64),
        normal(1, t, P, N),
        positive(b, 1, N, N),
        positive(1, t, P, P),
        positive(N, N),
        normal(B, N),
        unknown,
        normal(N),
        normal(b, t, P),
    )
    return StateSpace(*(None if x is None else x.to(dtype) for x in model))


def random_y(seed, B, T, P, missing=0.2):
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(B, T, P, generator=g, dtype=F64) * 2
    return torch.where(torch.rand(B, T, P, generator=g) < missing, torch.nan, y)


def dense(y: Tensor, problem: Problem, b: int):
    """Log-likelihood and posterior of all states by conditioning one big Gaussian; unknown directions by a flat prior.

    alpha = m + X delta + u with Cov(u) = V;  y = d + H alpha + eps;  delta by generalised least squares.
    """

    def pick(x, t):
        x = x[min(b, x.shape[0] - 1)]
        return x[min(t, x.shape[0] - 1)].numpy()

    T, N = y.shape[0], problem.F.shape[-1]
    P_inf = problem.diffuse[min(b, problem.diffuse.shape[0] - 1)].numpy()
    value, vector = np.linalg.eigh(P_inf)
    A = (vector * np.sqrt(np.maximum(value, 0)))[:, value > 1e-12]
    m, X = np.zeros((T, N)), np.zeros((T, N, A.shape[1]))
    V = np.zeros((T, N, T, N))
    m[0], X[0] = problem.mean[min(b, problem.mean.shape[0] - 1)], A
    V[0, :, 0] = problem.covariance[min(b, problem.covariance.shape[0] - 1)]
    for t in range(1, T):
        F = pick(problem.F, t - 1)
        m[t], X[t] = pick(problem.c, t - 1) + F @ m[t - 1], F @ X[t - 1]
        for s in range(t):
            V[t, :, s] = F @ V[t - 1, :, s]
            V[s, :, t] = V[t, :, s].T
        V[t, :, t] = F @ V[t - 1, :, t - 1] @ F.T + pick(problem.Q, t - 1)
    P = y.shape[1]
    H, R, d = np.zeros((T, P, T, N)), np.zeros((T, P, T, P)), np.zeros((T, P))
    for t in range(T):
        H[t, :, t], R[t, :, t], d[t] = pick(problem.H, t), pick(problem.R, t), pick(problem.d, t)
    m, X, V = m.ravel(), X.reshape(T * N, -1), V.reshape(T * N, T * N)
    seen = ~np.isnan(y.numpy().ravel())
    H, R, d = H.reshape(T * P, T * N)[seen], R.reshape(T * P, T * P)[np.ix_(seen, seen)], d.ravel()[seen]
    e, S, Z = y.numpy().ravel()[seen] - d - H @ m, H @ V @ H.T + R, H @ X
    S_inv = np.linalg.inv(S)
    information = Z.T @ S_inv @ Z
    delta_var = np.linalg.inv(information)
    delta = delta_var @ Z.T @ S_inv @ e
    rest = e - Z @ delta
    log_likelihood = -0.5 * (
        len(e) * math.log(2 * math.pi)
        + np.linalg.slogdet(S)[1]
        + np.linalg.slogdet(information)[1]
        + rest @ S_inv @ rest
    )
    G = V @ H.T @ S_inv
    mean = m + X @ delta + G @ rest
    W = X - G @ Z
    cov = V - G @ H @ V + W @ delta_var @ W.T
    cov = cov.reshape(T, N, T, N)
    return log_likelihood, mean.reshape(T, N), np.stack([cov[t, :, t] for t in range(T)])


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize(
    "N, P, diffuse, by_time", [(1, 1, 1, False), (2, 1, 2, True), (3, 2, 0, True), (3, 2, 2, False)]
)
def test_filter_and_smoother_equal_dense_gaussian_posterior(backend, N, P, diffuse, by_time):
    B, T = 3, 9
    model, y = random_model(N, B, T, N, P, diffuse=diffuse, by_time=by_time), random_y(P, B, T, P)
    y[0, :2] = torch.nan  # starts later
    problem = prepare(y, model, None)
    smoothed = kalman_smoother(y, model, backend=backend)
    filtered = kalman_filter(y, model, backend=backend)
    for b in range(B):
        log_likelihood, mean, cov = dense(y[b], problem, b)
        assert float(filtered.log_likelihood[b]) == pytest.approx(log_likelihood, abs=1e-9)
        assert float(smoothed.log_likelihood[b]) == pytest.approx(log_likelihood, abs=1e-9)
        np.testing.assert_allclose(smoothed.mean[b], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(smoothed.covariance[b], cov, rtol=1e-8, atol=1e-8)
        # the last smoothed state is the last filtered one
        np.testing.assert_allclose(filtered.filtered_mean[b, -1], mean[-1], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(filtered.filtered_covariance[b, -1], cov[-1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_filter_and_smoother_equal_statsmodels_on_random_models(seed):
    from statsmodels.tsa.statespace.initialization import Initialization
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    rng = np.random.default_rng(seed)
    N, P, T = int(rng.integers(1, 4)), int(rng.integers(1, 3)), 40
    diffuse, by_time = int(rng.integers(0, N + 1)), bool(rng.integers(2))
    model, y = random_model(seed, 1, T, N, P, diffuse=diffuse, by_time=by_time), random_y(seed, 1, T, P)
    p = prepare(y, model, None)
    theirs = KalmanSmoother(k_endog=P, k_states=N)
    theirs.bind(np.asfortranarray(y[0].T.numpy()))
    names = ("transition", "design", "state_cov", "obs_cov", "state_intercept", "obs_intercept")
    for name, x in zip(names, (p.F, p.H, p.Q, p.R, p.c, p.d), strict=True):
        value = np.moveaxis(x[0].numpy(), 0, -1)
        theirs[name] = value if x.shape[1] > 1 else value[..., :1] if value.ndim > 2 else value
    theirs["selection"] = np.eye(N)
    start = Initialization(N)
    for i in range(N):  # statsmodels knows a state as diffuse or known, not as both
        start.set(i, "diffuse") if i < diffuse else start.set(
            i, "known", constant=[float(p.mean[0, i])], stationary_cov=[[1.0]]
        )
    theirs.initialization = start
    theirs.filter_univariate = True
    theirs.loglikelihood_burn = 0
    theirs.tolerance = 0
    theirs.set_smoother_output(0, smoother_state=True, smoother_state_cov=True)
    known = torch.diag((torch.arange(N) >= diffuse).to(F64))
    mean = torch.where(torch.arange(N) >= diffuse, p.mean, 0.0)
    model = model._replace(initial_covariance=known, initial_mean=mean)
    want = theirs.smooth()
    got, smoothed = kalman_filter(y, model), kalman_smoother(y, model)
    assert float(got.log_likelihood[0]) == pytest.approx(want.llf, rel=1e-8)
    proper = ~got.diffuse[0].numpy()
    for name, mine in (
        ("predicted_state", got.predicted_mean),
        ("predicted_state_cov", got.predicted_covariance),
        ("filtered_state", got.filtered_mean),
        ("filtered_state_cov", got.filtered_covariance),
        ("smoothed_state", smoothed.mean),
        ("smoothed_state_cov", smoothed.covariance),
    ):
        expected = np.moveaxis(getattr(want, name), -1, 0)[:T]
        np.testing.assert_allclose(mine[0].numpy()[proper], expected[proper], rtol=1e-8, atol=1e-8, err_msg=name)


def nile():
    from statsmodels.datasets import nile as data

    return torch.from_numpy(data.load_pandas().data["volume"].to_numpy(dtype=np.float64, copy=True))[None, :, None]


def local_level(eps, eta):
    def one(x):
        return torch.tensor([[x]], dtype=F64)

    return StateSpace(one(1.0), one(1.0), one(eta), one(eps), one(0.0), initial_diffuse=one(1.0))


@pytest.mark.parametrize("backend", ["naive", "cpu", "parallel"])
def test_nile_published_numbers(backend):
    y = nile()
    best = kalman_log_likelihood(y, local_level(15098.52, 1469.17), backend=backend)
    assert float(best) == pytest.approx(-633.46456, abs=5e-6)
    got = kalman_filter(y, local_level(15099.0, 1469.1), backend=backend)
    assert float(got.filtered_mean[0, 1]) == pytest.approx(1140.92784, abs=5e-6)
    assert float(got.filtered_covariance[0, 1]) == pytest.approx(7899.73638, abs=5e-6)
    assert float(got.filtered_covariance[0, -1]) == pytest.approx(4032.15794, abs=5e-6)
    gain = got.predicted_covariance[0, -1, 0, 0] / got.innovation_covariance[0, -1, 0, 0]
    assert float(gain) == pytest.approx(0.26704801, abs=5e-9)
    missing = y.clone()
    missing[:, 20:40], missing[:, 60:80] = torch.nan, torch.nan
    part = kalman_log_likelihood(missing, local_level(15099.0, 1469.1), backend=backend)
    assert float(part) == pytest.approx(-381.50600, abs=5e-6)
    if backend != "parallel":
        smoothed = kalman_smoother(y, local_level(15099.0, 1469.1), backend=backend)
        assert float(smoothed.mean[0, 0]) == pytest.approx(1111.66831, abs=1e-5)
        assert float(smoothed.mean[0, -1]) == pytest.approx(798.37029, abs=5e-6)


CASES = [(1, 1, 1), (2, 1, 2), (2, 2, 1), (3, 1, 0), (3, 2, 2)]


def symmetric(problem):
    return problem._replace(
        **{name: 0.5 * (x + x.mT) for name in ("Q", "R", "covariance", "diffuse") for x in [getattr(problem, name)]}
    )


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127])
@pytest.mark.parametrize("N, P, diffuse", CASES)
def test_cpu_equals_naive_with_every_gradient(T, N, P, diffuse):
    B = 35  # a full block of lanes and part of one
    model = random_model(T, B, T, N, P, diffuse=diffuse, by_time=T % 2 == 0, by_series=T != 65)
    reset = torch.rand(B, T, generator=torch.Generator().manual_seed(T)) < 0.05
    problem = prepare(random_y(T, B, T, P), model, reset if T % 3 == 0 else None)
    leaves = [x.detach().clone().requires_grad_() for x in problem[:-1]]
    problem = symmetric(Problem(*leaves, problem.reset))
    got, want = cpu.kalman_filter(problem), naive.kalman_filter(problem)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=F64) for x in want[:-1]]
    for name, mine, theirs in zip(want._fields, got, want, strict=True):
        torch.testing.assert_close(
            mine, theirs, rtol=1e-7, atol=1e-7, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
    grads = [
        torch.autograd.grad(
            sum((torch.where(x.isnan(), 0.0, x) * w).sum() for x, w in zip(out, weights, strict=False)),
            leaves,
            retain_graph=True,
            materialize_grads=True,
        )
        for out in (got, want)
    ]
    grads_sum = [
        torch.autograd.grad(
            form.kalman_log_likelihood(problem).sum(), leaves, retain_graph=True, materialize_grads=True
        )
        for form in (cpu, naive)
    ]
    for mine, theirs in (grads, grads_sum):
        for name, a, b in zip(problem._fields, mine, theirs, strict=False):
            torch.testing.assert_close(
                a, b, rtol=1e-6, atol=1e-6 * (1 + float(b.abs().max())), msg=lambda m, n=name: n + m
            )
    means = [form.kalman_smoother(Problem(*(x.detach() for x in problem[:-1]), problem.reset)) for form in (cpu, naive)]
    for a, b in zip(*means, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("T", [1000, 2049])
def test_cpu_equals_naive_on_long_series(T):
    problem = prepare(random_y(0, 2, T, 1), random_model(0, 2, T, 2, 1, diffuse=2), None)
    for a, b in zip(cpu.kalman_filter(problem), naive.kalman_filter(problem), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    "N, P, T, B", [(1, 1, 257, 33), (1, 1, 515, 41), (2, 1, 139, 7), (2, 1, 256, 32), (3, 2, 69, 1), (2, 1, 1000, 70)]
)
def test_every_step_of_every_tile_and_lane_reaches_memory(N, P, T, B):
    """Tiles that end within the series, lines of memory that straddle series or do not (the last), few lanes."""
    problem = prepare(random_y(T, B, T, P), random_model(N, B, T, N, P, diffuse=1), None)
    for name, a, b in zip(Moments_fields, cpu.kalman_filter(problem), naive.kalman_filter(problem), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, equal_nan=True, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize("outputs", [(), ("filtered", "log_likelihood"), {"innovation", "predicted"}])
@pytest.mark.parametrize("N, P", [(1, 1), (2, 1), (2, 2)])
def test_what_is_not_asked_for_changes_no_bit_of_the_rest(outputs, N, P, backend):
    model, y = random_model(N, 35, 70, N, P, diffuse=1), random_y(P, 35, 70, P)
    whole, part = kalman_filter(y, model, backend=backend), kalman_filter(y, model, outputs=outputs, backend=backend)
    for name, want, got in zip(whole._fields, whole, part, strict=True):
        group = "log_likelihood" if name.startswith("log") else name.split("_")[0]
        if group in OUTPUTS and group not in outputs:
            assert got is None
        else:
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True, msg=name)


def test_gradients_do_not_depend_on_what_is_asked_for():
    model, y = random_model(3, 3, 20, 2, 1, diffuse=1), random_y(3, 3, 20, 1).requires_grad_()
    whole, part = kalman_filter(y, model), kalman_filter(y, model, outputs=["innovation"])
    grads = [torch.autograd.grad(x.innovation.nansum(), y)[0] for x in (whole, part)]
    assert torch.equal(*grads)


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127])
@pytest.mark.parametrize("N, P, diffuse", CASES)
def test_parallel_in_time_equals_sequential(T, N, P, diffuse):
    model = random_model(T, 3, T, N, P, diffuse=diffuse, by_time=T % 2 == 0)
    reset = torch.rand(3, T, generator=torch.Generator().manual_seed(T)) < 0.1
    problem = prepare(random_y(T, 3, T, P), model, reset if T % 3 == 0 and not diffuse else None)
    for name, a, b in zip(Moments_fields, parallel.kalman_filter(problem), naive.kalman_filter(problem), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, equal_nan=True, msg=lambda m, n=name: n + m)
    if not diffuse:
        for a, b in zip(parallel.kalman_smoother(problem), naive.kalman_smoother(problem), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


Moments_fields = naive.Moments._fields


def test_combination_of_elements_is_associative():
    g = torch.Generator().manual_seed(0)

    def element():
        A, b, e = (torch.randn(4, 3, *s, generator=g, dtype=F64) for s in ((3, 3), (3,), (3,)))
        C, J = (x @ x.mT for x in torch.randn(2, 4, 3, 3, 3, generator=g, dtype=F64))
        return A, b, C, e, J

    x, y, z = element(), element(), element()
    left = parallel.combine_filtered(parallel.combine_filtered(x, y), z)
    right = parallel.combine_filtered(x, parallel.combine_filtered(y, z))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("backend", ["cpu", "parallel"])
def test_gradcheck_through_the_public_functions(backend):
    model = random_model(0, 2, 5, 2, 2, diffuse=0 if backend == "parallel" else 1)
    y = random_y(3, 2, 5, 2, missing=0)

    def both(y, *matrices):
        result = kalman_filter(y, StateSpace(*matrices, *model[6:]), backend=backend)
        return result.log_likelihood, result.filtered_mean, result.innovation, result.final_covariance

    assert torch.autograd.gradcheck(both, [x.detach().requires_grad_() for x in (y, *model[:6])])


@pytest.mark.parametrize("cut", [1, 2, 17, 39])
def test_run_in_two_parts_equals_one(cut):
    model, y = random_model(5, 4, 40, 2, 1, diffuse=2), random_y(5, 4, 40, 1)
    whole, first = kalman_filter(y, model), kalman_filter(y[:, :cut], model)
    then = model._replace(
        initial_mean=first.final_mean, initial_covariance=first.final_covariance, initial_diffuse=first.final_diffuse
    )
    second = kalman_filter(y[:, cut:], then)
    torch.testing.assert_close(
        first.log_likelihood + second.log_likelihood, whole.log_likelihood, rtol=1e-10, atol=1e-9
    )
    torch.testing.assert_close(second.filtered_mean, whole.filtered_mean[:, cut:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(second.final_covariance, whole.final_covariance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_reset_equals_separate_runs_and_no_gradient_crosses(backend):
    model = random_model(6, 2, 30, 2, 1, diffuse=1)
    y = random_y(6, 2, 30, 1).requires_grad_()
    reset = torch.zeros(2, 30, dtype=torch.bool)
    reset[:, 12] = True
    whole = kalman_filter(y, model, reset=reset, backend=backend)
    parts = [kalman_filter(y[:, s], model, backend=backend) for s in (slice(0, 12), slice(12, 30))]
    smoothed = [kalman_smoother(y[:, s].detach(), model, backend=backend).mean for s in (slice(0, 12), slice(12, 30))]
    torch.testing.assert_close(whole.filtered_mean, torch.cat([p.filtered_mean for p in parts], 1))
    torch.testing.assert_close(whole.log_likelihood, parts[0].log_likelihood + parts[1].log_likelihood)
    torch.testing.assert_close(
        kalman_smoother(y.detach(), model, reset=reset, backend=backend).mean, torch.cat(smoothed, 1)
    )
    (grad,) = torch.autograd.grad(whole.log_likelihood_steps[:, 12:].sum() + whole.filtered_mean[:, 12:].sum(), y)
    assert (grad[:, :12] == 0).all()
    assert (grad[:, 12:] != 0).any()


def test_series_do_not_touch_each_other():
    model, y = random_model(7, 40, 20, 2, 1, diffuse=1), random_y(7, 40, 20, 1)
    clean = kalman_filter(y, model)
    y[3, 5] = torch.inf
    y[4] = torch.nan  # nothing observed at all
    spoiled = kalman_filter(y, model)
    others = [b for b in range(40) if b not in (3, 4)]
    assert torch.equal(clean.filtered_mean[others], spoiled.filtered_mean[others])
    assert torch.equal(clean.log_likelihood[others], spoiled.log_likelihood[others])
    assert float(spoiled.log_likelihood[4]) == 0
    assert not math.isfinite(float(spoiled.log_likelihood[3]))


@pytest.mark.parametrize("N, P", [(1, 1), (2, 1), (3, 2)])
def test_likelihood_alone_has_the_same_bits_beside_a_neighbour_that_stays_diffuse(N, P):
    model, y = random_model(9, 8, 600, N, P, diffuse=1), random_y(9, 8, 600, P)
    clean = kalman_log_likelihood(y, model, backend="cpu")
    y[3] = torch.nan  # the whole block takes the diffuse code at every step
    spoiled = kalman_log_likelihood(y, model, backend="cpu")
    others = [b for b in range(8) if b != 3]
    assert torch.equal(clean[others], spoiled[others])
    assert float(spoiled[3]) == 0


@pytest.mark.parametrize("scale", [1e-70, 1e70])
@pytest.mark.parametrize("N, P", [(1, 1), (2, 1), (2, 3)])
def test_likelihood_of_extreme_variances_neither_overflows_nor_vanishes(N, P, scale):
    y = random_y(10, 3, 1100, P, missing=0.1)
    model = random_model(10, 3, 1100, N, P)
    zero = {"initial_mean": None, "state_intercept": None, "observation_intercept": None}
    model = model._replace(**zero)
    large = model._replace(
        process_covariance=model.process_covariance * scale**2,
        observation_covariance=model.observation_covariance * scale**2,
        initial_covariance=model.initial_covariance * scale**2,
    )
    usual, moved = kalman_log_likelihood(y, model, backend="naive"), math.log(scale) * (~y.isnan()).double().sum((1, 2))
    got = kalman_log_likelihood(y * scale, large, backend="cpu")
    torch.testing.assert_close(got, usual - moved, rtol=1e-11, atol=0)


def test_observation_without_variance_carries_no_information():
    def one(x):
        return torch.tensor([[x]], dtype=F64)

    certain = StateSpace(one(1.0), one(1.0), one(0.0), one(0.0), one(0.0))
    for backend in ("naive", "cpu"):
        got = kalman_filter(torch.ones(1, 3, 1, dtype=F64), certain, backend=backend)
        assert float(got.log_likelihood) == 0
        assert (got.filtered_mean == 0).all()


def test_same_bits_every_time_and_strides_do_not_matter():
    model, y = random_model(8, 50, 30, 2, 1, by_series=False), random_y(8, 50, 30, 1)
    strided = y.transpose(0, 1).contiguous().transpose(0, 1)
    results = []
    for values in (y, y, strided):
        F = model.transition.detach().clone().requires_grad_()
        got = kalman_filter(values, model._replace(transition=F))
        results.append((*got[:6], *torch.autograd.grad(got.log_likelihood.sum() + got.filtered_mean.sum(), F)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def test_half_precision_is_taken_as_float32():
    model, y = random_model(9, 2, 20, 2, 1), random_y(9, 2, 20, 1)
    exact = kalman_filter(y, model)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.2), (torch.float16, 0.03)):
        got = kalman_filter(y.to(dtype), StateSpace(*(None if x is None else x.to(dtype) for x in model)))
        assert got.filtered_mean.dtype == torch.float32
        torch.testing.assert_close(got.filtered_mean.double(), exact.filtered_mean, rtol=tolerance, atol=tolerance)


def test_operators_are_registered_well():
    model, y = random_model(1, 2, 4, 2, 1, diffuse=1), random_y(1, 2, 4, 1)
    problem = prepare(y, model, None)
    inputs = [x.detach().clone().requires_grad_() for x in problem[:-1]]
    for op, rest in (
        (cpu._filter, [[True] * 4]),
        (cpu._filter, [[False, True, False, True]]),
        (cpu._log_likelihood, []),
    ):
        torch.library.opcheck(
            op, (*inputs, None, *rest), test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecated parts
def test_compiles_as_one_graph():
    model, y = random_model(1, 2, 6, 2, 1), random_y(1, 2, 6, 1, missing=0)
    y.requires_grad_()
    compiled = torch.compile(lambda y: kalman_filter(y, model).log_likelihood.sum(), fullgraph=True)
    value = compiled(y)
    (grad,) = torch.autograd.grad(value, y)
    (want,) = torch.autograd.grad(kalman_filter(y, model).log_likelihood.sum(), y)
    torch.testing.assert_close(grad, want)


def test_second_derivative_is_refused_not_zero():
    model, y = random_model(1, 2, 6, 2, 1), random_y(1, 2, 6, 1, missing=0).requires_grad_()
    (grad,) = torch.autograd.grad(kalman_log_likelihood(y, model).sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="kalman_log_likelihood_cpu has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"transition": torch.zeros(2, 3)}, r"transition has shape \(2, 3\), expected \(N, N\)"),
        (
            {"observation": torch.zeros(4, 1, 1, 2)},
            r"observation has shape .* expected \(P, N\) or \(B or 1, T or 1, P, N\)",
        ),
        ({"process_covariance": torch.zeros(3, 2, 2)}, r"process_covariance has shape \(3, 2, 2\), expected"),
        ({"initial_mean": torch.zeros(3)}, r"initial_mean has shape \(3,\), expected \(N,\) with N = 2"),
        ({"initial_covariance": torch.zeros(2, 2, dtype=torch.int64)}, "initial_covariance has dtype int64"),
    ],
)
def test_mistakes_are_named(change, message):
    model = random_model(1, 3, 5, 2, 1)._replace(**change)
    with pytest.raises(ValueError, match=message):
        kalman_filter(torch.zeros(3, 5, 1), model)


def test_other_mistakes_are_named():
    model = random_model(1, 3, 5, 2, 1, diffuse=1)
    with pytest.raises(ValueError, match=r"y has shape \(3, 5\), expected \(B, T, P\)"):
        kalman_filter(torch.zeros(3, 5), model)
    with pytest.raises(ValueError, match="T of at least 1"):
        kalman_filter(torch.zeros(3, 0, 1), model)
    with pytest.raises(ValueError, match=r"reset has shape \(3, 4\)"):
        kalman_filter(torch.zeros(3, 5, 1), model, reset=torch.zeros(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="cannot smooth from a diffuse start"):
        kalman_smoother(torch.zeros(3, 5, 1), model, backend="parallel")
    with pytest.raises(ValueError, match="cannot start anew"):
        kalman_filter(torch.zeros(3, 5, 1), model, backend="parallel", reset=torch.zeros(3, 5, dtype=torch.bool))
    for outputs in ("filtered", ["smoothed"]):
        with pytest.raises(ValueError, match=r"outputs is .* expected a collection of names"):
            kalman_filter(torch.zeros(3, 5, 1), model, outputs=outputs)
    with pytest.raises(ValueError, match="backend is 'fast', expected"):
        kalman_filter(torch.zeros(3, 5, 1), model, backend="fast")
