"""Estimators against simulated prices of known integrated variance: unbiased, robust to jumps, robust to noise."""

import numpy as np
import pytest

from ssmfin.data.realized.block import Block
from ssmfin.data.realized.covariance import realized_beta, realized_covariance
from ssmfin.data.realized.estimators import ESTIMATORS
from ssmfin.data.realized.noise import kernel_bandwidth, parzen, realized_kernel, two_scale_variance
from ssmfin.data.realized.periodicity import intraday_periodicity

DAYS, STEPS, VARIANCE = 4000, 390, 1e-4
JUMP = 0.01  # one a day: its square equals the day's integrated variance
NOISE = 3e-4  # standard deviation of the error of a log price; 390 returns of it add 0.7 of the variance


def block(*, jumps=0.0, noise=0.0, days=DAYS, seed=1, shape=None):
    generator = np.random.default_rng(seed)
    scale = np.ones(STEPS) if shape is None else shape / np.sqrt(np.mean(shape**2))
    returns = generator.standard_normal((days, STEPS)) * np.sqrt(VARIANCE / STEPS) * scale
    if jumps:
        returns[np.arange(days), generator.integers(0, STEPS, days)] += (
            jumps * JUMP * generator.choice([-1.0, 1.0], days)
        )
    price = np.concatenate([np.zeros((days, 1)), np.cumsum(returns, axis=1)], axis=1)
    return Block(price + noise * generator.standard_normal(price.shape), step=5, minutes=1.0)


def bias(values, truth=VARIANCE):
    """Relative bias, and four standard errors of it."""
    return values.mean() / truth - 1.0, 4.0 * values.std() / truth / np.sqrt(len(values))


@pytest.mark.parametrize("name", ["rv", "rv_ss", "bv", "minrv", "medrv", "tsrv"])
def test_variance_estimators_are_unbiased_for_a_diffusion(name):
    error, bound = bias(block()[name])
    assert abs(error) < bound < 0.04


def test_the_kernel_is_unbiased_for_a_diffusion_and_nearly_so_with_its_own_bandwidth():
    calm = block()
    error, bound = bias(realized_kernel(calm.log_price, calm.slow, bandwidth=np.full(DAYS, 12.0)))
    assert abs(error) < bound
    assert -0.025 < bias(calm["rk"])[0] < 0.005


@pytest.mark.parametrize("name, share", [("rs_pos", 0.5), ("rs_neg", 0.5), ("continuous", 1.0)])
def test_parts_of_the_variance_of_a_diffusion(name, share):
    error, bound = bias(block()[name], share * VARIANCE)
    assert abs(error) < bound + (0.01 if name == "continuous" else 0.0)  # the test's size: one day in 1000 is cut


@pytest.mark.parametrize("name", ["rq", "tpq"])
def test_quarticities_are_unbiased_for_a_diffusion(name):
    error, bound = bias(block()[name], VARIANCE**2)
    assert abs(error) < bound < 0.08


def test_variance_with_jumps_is_that_of_the_quadratic_variation():
    error, bound = bias(block(jumps=1.0)["rv"], VARIANCE + JUMP**2)
    assert abs(error) < bound


@pytest.mark.parametrize("name, largest", [("minrv", 0.06), ("medrv", 0.08)])
def test_truncated_estimators_hardly_see_jumps_that_double_the_variance(name, largest):
    error, _ = bias(block(jumps=1.0)[name])
    assert 0.0 < error < largest


def test_bipower_variation_sees_of_a_jump_what_the_returns_beside_it_let_through():
    n = STEPS // 5
    beside = np.sqrt(2.0 / np.pi * VARIANCE / n)  # E|r|
    expected = np.pi * beside * (JUMP - beside) / VARIANCE  # two products of pi / 2 each
    error, bound = bias(block(jumps=1.0)["bv"])
    assert error == pytest.approx(expected, abs=bound)


def test_tripower_quarticity_hardly_sees_jumps_that_multiply_the_quarticity():
    jumped = block(jumps=1.0)
    assert jumped["rq"].mean() / VARIANCE**2 > 20
    assert jumped["tpq"].mean() / VARIANCE**2 < 2


def test_the_jump_test_has_its_size_and_finds_jumps():
    calm, jumped = block(), block(jumps=2.0)
    assert 0.0 < np.mean(calm["jump"] > 0) < 0.008
    assert np.mean(jumped["jump"] > 0) > 0.95
    assert jumped["jump"].mean() == pytest.approx((2 * JUMP) ** 2, rel=0.2)
    np.testing.assert_allclose(jumped["jump"] + jumped["continuous"], jumped["rv"], rtol=1e-12)


def test_signed_jump_variation_has_the_sign_of_the_jump():
    up = block()
    price = up.log_price.copy()
    price[:, 200:] += JUMP
    error, bound = bias(Block(price, 5, 1.0)["sjv"], JUMP**2)
    assert abs(error) < bound
    assert bias(up["sjv"], VARIANCE)[0] + 1.0 == pytest.approx(0.0, abs=0.02)


def test_noise_robust_estimators_are_unbiased_where_the_plain_one_is_not():
    noisy = block(noise=NOISE)
    plain = np.sum(np.diff(noisy.log_price, axis=1) ** 2, axis=1)
    assert plain.mean() / VARIANCE - 1.0 == pytest.approx(2 * STEPS * NOISE**2 / VARIANCE, rel=0.03)
    error, bound = bias(noisy["tsrv"])
    assert abs(error) < bound
    error, _ = bias(noisy["rk"])
    assert 0.0 < error < 0.06  # positive by construction, of order n^(-1/5) (eq. 7 of the paper)


def test_the_bandwidth_follows_its_formula_and_grows_with_noise():
    calm, noisy = block(days=200), block(days=200, noise=NOISE)
    wide, narrow = (kernel_bandwidth(b.log_price, 2, b.slow) for b in (noisy, calm))
    expected = 3.5134 * ((1.0 / (2 * 194.5)) ** 0.4) * STEPS**0.6  # xi^2 = 1 / (2 n) without noise, n of 2 minutes
    assert narrow.mean() == pytest.approx(expected, rel=0.05)
    dense, sparse = (1.0 + 2 * STEPS / k * NOISE**2 / VARIANCE for k in (2, 20))  # what noise makes of either variance
    assert wide.mean() / narrow.mean() == pytest.approx((dense / sparse) ** 0.4, rel=0.03)


def test_the_kernel_is_its_definition():
    """Against the double loop of the paper's formula."""
    price = block(days=3, noise=NOISE).log_price[:, :61]
    bandwidth = np.array([3.2, 7.0, 0.4])
    found = realized_kernel(price, 20, bandwidth=bandwidth)
    for day in range(3):
        path = price[day]
        ends = np.concatenate([[path[:2].mean()], path[2:-2], [path[-2:].mean()]])
        returns, width = np.diff(ends), int(np.ceil(bandwidth[day]))
        total = 0.0
        for h in range(-width, width + 1):
            weight = float(parzen(np.array(h / (width + 1.0))))
            total += weight * sum(returns[i] * returns[i - abs(h)] for i in range(abs(h), len(returns)))
        assert found[day] == pytest.approx(total * 60 / 58.5, rel=1e-12)


def test_two_scales_are_their_definition():
    price = block(days=2, noise=NOISE).log_price[:, :41]
    step, n = 4, 40
    for day in range(2):
        grids = [np.sum(np.diff(price[day, k::step]) ** 2) for k in range(step)]
        nbar = (n - step + 1) / step
        plain = np.mean(grids) - nbar / n * np.sum(np.diff(price[day]) ** 2)
        factor = (1 - 1 / step) * (n - step + 1) / n
        assert two_scale_variance(price, step)[day] == pytest.approx(plain / factor, rel=1e-12)


def test_skewness_and_kurtosis_of_a_diffusion_and_of_a_jump():
    calm = block()
    assert abs(calm["rskew"].mean()) < 4 * calm["rskew"].std() / np.sqrt(DAYS)
    assert calm["rkurt"].mean() == pytest.approx(3.0 * 78 / 80, rel=0.03)  # E of n sum r^4 / RV^2 for n normal returns
    price = calm.log_price.copy()
    price[:, 200:] += 3 * JUMP
    jumped = Block(price, 5, 1.0)
    assert jumped["rskew"].mean() > 4
    assert jumped["rkurt"].mean() > 40


def test_covariance_and_beta_are_unbiased():
    generator = np.random.default_rng(3)
    market = 0.001 * generator.standard_normal((DAYS, 78))
    asset = 1.3 * market + 0.001 * generator.standard_normal((DAYS, 78))
    error, bound = bias(realized_covariance(asset, market), 1.3 * 78e-6)
    assert abs(error) < bound
    error, bound = bias(realized_beta(asset, market), 1.3)
    assert abs(error) < bound


@pytest.mark.parametrize("robust", [True, False])
def test_the_pattern_of_the_day_is_found(robust):
    shape = 1.0 + 0.8 * np.cos(np.linspace(0, 2 * np.pi, STEPS))
    found = intraday_periodicity(block(shape=shape).returns, robust=robust)
    truth = np.sqrt(np.add.reduceat(shape**2, np.arange(0, STEPS, 5)))
    np.testing.assert_allclose(found, truth / np.sqrt(np.mean(truth**2)), rtol=0.08)


def test_jumps_hurt_the_plain_pattern_and_not_the_robust_one():
    jumped = block(days=1000)
    returns = jumped.returns.copy()
    returns[::10, 30] += 0.02
    assert intraday_periodicity(returns, robust=False)[30] > 2.0
    assert intraday_periodicity(returns)[30] == pytest.approx(1.0, abs=0.15)


def test_every_estimator_has_one_value_a_session_and_none_is_left_untested():
    sample = block(days=7)
    plain = {name: sample[name] for name, estimator in ESTIMATORS.items() if not estimator.market}
    assert {len(values) for values in plain.values()} == {7}
    assert all(np.isfinite(values).all() for values in plain.values())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7])
def test_short_sessions_give_numbers_or_nan_but_no_error(steps):
    price = np.cumsum(0.01 * np.random.default_rng(0).standard_normal((4, steps + 1)), axis=1)
    for step in (1, 5):
        short = Block(price, step, 1.0)
        for name, estimator in ESTIMATORS.items():
            if not estimator.market:
                assert short[name].shape == (4,)
