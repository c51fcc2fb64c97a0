"""Random models of every kind, data from them with holes, and two oracles: the dense Gaussian and statsmodels."""

import numpy as np
import torch

from ssmfin.classical.kalman import specification

SPECIFICATIONS = {
    "local_level": specification("local_level"),
    "local_linear_trend": specification("local_linear_trend"),
    "smooth_trend": specification("local_linear_trend", smooth=True),
    "damped_trend": specification("local_linear_trend", damped=True),
    "seasonal": specification("seasonal", period=4),
    "ar1_plus_noise": specification("ar1_plus_noise"),
    "sum_of_two": specification("sum_of_ar1"),
    "sum_of_three": specification("sum_of_ar1", terms=3),
    "stochastic_volatility": specification("stochastic_volatility"),
    "dynamic_regression": specification("dynamic_regression", n_regressors=2),
    "hedge_ratio": specification("dynamic_regression", intercept=False),
    "dynamic_nelson_siegel": specification("dynamic_nelson_siegel", maturities=[1.0, 3.0, 7.0, 10.0]),
    "dynamic_factor": specification("dynamic_factor", n_components=3),
}


def random_case(spec, seed, length, *, missing=0.15):
    """(natural (1, K), what the model observes (1, T, P), x (1, T, J) or None)."""
    rng = np.random.default_rng(seed)
    theta = torch.from_numpy(0.7 * rng.standard_normal((1, len(spec.parameters))))
    x = torch.from_numpy(1 + rng.standard_normal((1, length, spec.regressors))) if spec.regressors else None
    y = torch.from_numpy(2 * rng.standard_normal((1, length, spec.components))).cumsum(1)
    y[torch.from_numpy(rng.random(y.shape) < missing)] = torch.nan
    return spec.natural(theta), y, x


def matrices(spec, natural, length, x):
    """F, H, Q, R, c, d by step, and the start; complex if `natural` is."""
    model = spec.state_space(natural, length, None if x is None else x.to(natural.dtype))
    N, P = len(spec.states), spec.components

    def every(value, *shape):
        if value is None:
            value = natural.new_zeros(shape)
        value = value.reshape(*[1] * (2 + len(shape) - value.ndim), *value.shape)
        return value[0].expand(length, *shape).numpy()

    start = [
        np.zeros(shape) if v is None else v.reshape(-1, *shape)[0].numpy()
        for v, shape in (
            (model.initial_mean, (N,)),
            (model.initial_covariance, (N, N)),
            (model.initial_diffuse, (N, N)),
        )
    ]
    return (
        every(model.transition, N, N),
        every(model.observation, P, N),
        every(model.process_covariance, N, N),
        every(model.observation_covariance, P, P),
        every(model.state_intercept, N),
        every(model.observation_intercept, P),
        *start,
    )


def dense_gaussian(spec, natural, y, x, *, until=None):
    """(mean, covariance) of every state, (T, N) and (T, N, N), given y up to `until`, and the log-likelihood.

    The state path is alpha = A delta + m + C e with delta flat and e standard normal of all shocks; y = Z alpha + d +
    noise. Generalised least squares for delta, normal equations for the rest: no recursion. The diffuse
    log-likelihood counts no log 2 pi for delta (Durbin & Koopman, 7.3).
    """
    T = y.shape[1]
    F, H, Q, R, c, d, a1, P1, P_inf = matrices(spec, natural, T, x)
    N, P = F.shape[1], H.shape[1]
    loads, mean = np.zeros((T * N, N)), np.zeros(T * N)
    shocks = np.zeros((T * N, T * N))  # of the stacked state on (alpha_1, eta_1, .., eta_{T-1})
    loads[:N], mean[:N], shocks[:N, :N] = P_inf, a1, np.eye(N)
    for t in range(1, T):
        now, last = slice(t * N, (t + 1) * N), slice((t - 1) * N, t * N)
        loads[now], mean[now] = F[t - 1] @ loads[last], c[t - 1] + F[t - 1] @ mean[last]
        shocks[now] = F[t - 1] @ shocks[last]
        shocks[now, now] = np.eye(N)
    source = np.zeros((T * N, T * N))
    source[:N, :N] = P1
    for t in range(1, T):
        source[t * N : (t + 1) * N, t * N : (t + 1) * N] = Q[t - 1]
    V = shocks @ source @ shocks.T
    Z, noise = np.zeros((T * P, T * N)), np.zeros((T * P, T * P))
    for t in range(T):
        Z[t * P : (t + 1) * P, t * N : (t + 1) * N] = H[t]
        noise[t * P : (t + 1) * P, t * P : (t + 1) * P] = R[t]
    stacked = y[0].numpy().reshape(-1)
    seen = ~np.isnan(stacked)
    if until is not None:
        seen &= np.arange(T * P) < (until + 1) * P
    Zs, left = Z[seen], (stacked - d.reshape(-1))[seen]
    unknown = np.flatnonzero(np.diag(P_inf) > 0)
    G = Zs @ V @ Zs.T + noise[np.ix_(seen, seen)]
    X, v = Zs @ loads[:, unknown], left - Zs @ mean
    inverse = np.linalg.inv(G)
    log_likelihood = -0.5 * (len(v) * np.log(2 * np.pi) + np.linalg.slogdet(G)[1])
    delta, spread = np.zeros(len(unknown)), np.zeros((len(unknown), len(unknown)))
    if len(unknown):
        information = X.T @ inverse @ X
        spread = np.linalg.inv(information)
        delta = spread @ X.T @ inverse @ v
        log_likelihood -= 0.5 * np.linalg.slogdet(information)[1]
    residual = v - X @ delta
    log_likelihood -= 0.5 * residual @ inverse @ residual
    K = V @ Zs.T @ inverse
    direct = loads[:, unknown] - K @ X
    path = mean + loads[:, unknown] @ delta + K @ residual
    covariance = V - K @ Zs @ V + direct @ spread @ direct.T
    blocks = np.stack([covariance[t * N : (t + 1) * N, t * N : (t + 1) * N] for t in range(T)])
    return path.reshape(T, N), blocks, log_likelihood


def statsmodels_model(spec, natural, y, x):
    """The same model in statsmodels, exactly diffuse; complex where `natural` is."""
    from statsmodels.tsa.statespace.initialization import Initialization
    from statsmodels.tsa.statespace.kalman_filter import INVERT_LU
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    T = y.shape[1]
    F, H, Q, R, c, d, a1, P1, P_inf = matrices(spec, natural, T, x)
    dtype = np.complex128 if natural.is_complex() else np.float64
    N, P = F.shape[1], H.shape[1]
    model = KalmanSmoother(k_endog=P, k_states=N, k_posdef=N, dtype=dtype)
    model.bind(np.ascontiguousarray(y[0].numpy().astype(dtype)))
    model["design"] = H.transpose(1, 2, 0) if (H[0] != H).any() else H[0]
    model["transition"], model["selection"], model["state_cov"] = F[0], np.eye(N), Q[0]
    model["obs_cov"], model["state_intercept"], model["obs_intercept"] = R[0], c[0][:, None], d[0][:, None]
    start = Initialization(N)
    for j in range(N):
        if P_inf[j, j] > 0:
            start.set(j, "diffuse")
        else:
            start.set(j, "known", constant=a1[j : j + 1], stationary_cov=P1[j : j + 1, j : j + 1])
    model.initialization = start
    if natural.is_complex():  # the factorisation of Cholesky conjugates: no complex step passes through it
        model.inversion_method = INVERT_LU
    return model
