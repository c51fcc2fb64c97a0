"""The bootstrap particle filter: unbiased, convergent to exact filters, point-in-time, independent of the batch."""

import math

import numpy as np
import pytest
import torch

from ssmfin.classical.nonlinear import ParticleModel, VolatilityParameters, bootstrap_filter, filter_volatility
from ssmfin.classical.nonlinear.particle import _resampled
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace, kalman_filter

LINEAR = ParticleModel(
    lambda e, p: e,
    lambda x, e, p: 0.9 * x + 0.5 * e,
    lambda y, x, p: -0.5 * (math.log(2 * math.pi * 0.4) + (y - x) ** 2 / 0.4),
)
MARKET = VolatilityParameters(mean=-9.0, persistence=0.95, variance_log_variance=0.09)
SERIES = ["mean", "variance", "quantiles", "return_variance", "predicted_return_variance", "log_variance_mean",
          "log_variance_variance", "effective_size", "log_likelihood_steps"]  # fmt: skip


def linear_series(T=30, seed=0):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal(), []
    for _ in range(T):
        y.append(x + np.sqrt(0.4) * generator.standard_normal())
        x = 0.9 * x + 0.5 * generator.standard_normal()
    y = np.array(y)
    y[T // 3] = np.nan
    return y


def exact(y):
    one = torch.ones(1, 1, dtype=torch.float64)
    return kalman_filter(torch.tensor(y)[None, :, None], StateSpace(0.9 * one, one, 0.25 * one, 0.4 * one, one))


def returns_of(model, B=4, T=150, seed=3):
    generator = np.random.default_rng(seed)
    h = model.mean + model.variance_log_variance**0.5 / np.sqrt(1 - model.persistence**2) * generator.standard_normal(B)
    out = np.empty((B, T))
    for t in range(T):
        out[:, t] = np.exp(0.5 * h) * generator.standard_normal(B)
        h = (
            model.mean
            + model.persistence * (h - model.mean)
            + model.variance_log_variance**0.5 * generator.standard_normal(B)
        )
    return out


def on_a_grid(returns, model, log_density, points=600):
    """The exact filter of one series on a fine grid of log variance (rectangle rule; its error is far below 1e-6)."""
    spread = model.variance_log_variance**0.5 / np.sqrt(1 - model.persistence**2)
    grid = model.mean + np.linspace(-9, 9, points) * spread
    step = grid[1] - grid[0]
    mean = model.mean + model.persistence * (grid - model.mean)
    move = np.exp(-0.5 * ((grid[None, :] - mean[:, None]) / model.variance_log_variance**0.5) ** 2)
    move *= step / (model.variance_log_variance**0.5 * np.sqrt(2 * np.pi))
    density = np.exp(-0.5 * ((grid - model.mean) / spread) ** 2) * step / (spread * np.sqrt(2 * np.pi))
    steps, volatility = [], []
    for t, r in enumerate(returns):
        if t:
            density = density @ move
        joint = density if np.isnan(r) else density * np.exp(log_density(r, grid))
        steps.append(np.log(joint.sum()))
        density = joint / joint.sum()
        volatility.append(density @ np.exp(0.5 * grid))
    return np.array(steps), np.array(volatility)


def gaussian(r, h):
    return -0.5 * (math.log(2 * math.pi) + h + r * r * np.exp(-h))


def test_the_likelihood_is_unbiased_on_a_linear_gaussian_model():
    """E exp(estimate) = likelihood, for any number of particles: a mean over 4000 streams, within 4 standard errors."""
    y = linear_series()
    streams = 4000
    found = bootstrap_filter(np.tile(y, (streams, 1)), LINEAR, particles=50, quantiles=())
    ratio = np.exp(found.log_likelihood - exact(y).log_likelihood.item())
    error = ratio.std() / np.sqrt(streams)
    assert error < 0.03  # else the test could not fail
    assert abs(ratio.mean() - 1) < 4 * error
    assert ratio.std() > 0.1  # the streams differ
    assert found.log_likelihood.mean() < exact(y).log_likelihood.item()  # Jensen


@pytest.mark.parametrize("threshold", [0.2, 1.0])
def test_moments_and_quantiles_converge_to_the_kalman_filter(threshold):
    y = linear_series()
    truth = exact(y)
    mean, variance = truth.filtered_mean[0, :, 0].numpy(), truth.filtered_covariance[0, :, 0, 0].numpy()
    found = bootstrap_filter(
        y[None], LINEAR, particles=40_000, quantiles=(0.1587, 0.5), moments={"square": np.square},
        resample_below=threshold,
    )  # fmt: skip
    np.testing.assert_allclose(found.mean[0], mean, atol=0.02)
    np.testing.assert_allclose(found.variance[0], variance, atol=0.01)
    np.testing.assert_allclose(found.quantiles[0, :, 0], mean - np.sqrt(variance), atol=0.03)
    np.testing.assert_allclose(found.quantiles[0, :, 1], mean, atol=0.03)
    np.testing.assert_allclose(found.moments["square"][0], mean**2 + variance, atol=0.05)
    predicted = truth.predicted_mean[0, :, 0].numpy() ** 2 + truth.predicted_covariance[0, :, 0, 0].numpy()
    np.testing.assert_allclose(found.predicted_moments["square"][0], predicted, atol=0.05)
    np.testing.assert_allclose(found.log_likelihood[0], truth.log_likelihood.item(), atol=0.1)


@pytest.mark.parametrize("nu", [None, 5.0])
def test_stochastic_volatility_converges_to_a_fine_grid(nu):
    def student(r, h):
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(math.pi * (nu - 2))
        return constant - 0.5 * h - 0.5 * (nu + 1) * np.log1p(r * r * np.exp(-h) / (nu - 2))

    returns = returns_of(MARKET, B=2)
    returns[0, 40:45] = np.nan
    returns[1, 60] = 0.0
    found = filter_volatility(returns, MARKET._replace(degrees_of_freedom=nu), particles=20_000)
    for b in range(2):
        steps, volatility = on_a_grid(returns[b], MARKET, gaussian if nu is None else student)
        np.testing.assert_allclose(found.log_likelihood[b], steps.sum(), atol=0.15)
        np.testing.assert_allclose(found.log_likelihood_steps[b], steps, atol=0.05)
        np.testing.assert_allclose(found.mean[b], volatility, rtol=0.03)


def test_a_unit_variance_student_has_the_variance_of_the_model():
    """With its innovations near zero h is known: the predictive density integrates to one with variance exp(mu)."""
    points = np.linspace(-0.8, 0.8, 16_001)
    known = VolatilityParameters(mean=-9.0, persistence=0.0, variance_log_variance=1e-18, degrees_of_freedom=5.0)
    density = np.exp(filter_volatility(points[:, None], known, particles=2, quantiles=()).log_likelihood)
    step = points[1] - points[0]
    np.testing.assert_allclose(density.sum() * step, 1.0, rtol=1e-6)
    np.testing.assert_allclose((points**2 * density).sum() * step, np.exp(-9.0), rtol=1e-3)


def test_the_future_leaves_the_past_bit_identical():
    returns = returns_of(MARKET)
    whole = filter_volatility(returns, MARKET, particles=300)
    later = returns.copy()
    later[:, 70:] = [[0.5], [np.nan], [0.0], [-1e-9]]
    changed = filter_volatility(later, MARKET, particles=300)
    for name in SERIES:
        np.testing.assert_array_equal(getattr(changed, name)[:, :70], getattr(whole, name)[:, :70], err_msg=name)
    assert not np.array_equal(changed.mean[:, 70:], whole.mean[:, 70:])
    # what is predicted for t = 70 was known before it
    np.testing.assert_array_equal(changed.predicted_return_variance[:, 70], whole.predicted_return_variance[:, 70])


def test_a_series_depends_on_its_id_and_not_on_its_companions():
    model = MARKET._replace(mean=np.array([-9.0, -8.5, -9.5, -9.0]))
    returns = returns_of(MARKET)
    ids = ["DAX", "SPX", "FTSE", "N225"]
    whole = filter_volatility(returns, model, particles=20_000, ids=ids)  # blocks of one series and a half
    order = [2, 0]
    some = filter_volatility(
        returns[order], model._replace(mean=model.mean[order]), particles=20_000, ids=["FTSE", "DAX"]
    )
    for name in SERIES:
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[order], err_msg=name)
    other = filter_volatility(returns[order], model._replace(mean=model.mean[order]), particles=20_000)
    assert not np.array_equal(other.mean, some.mean)


def test_a_run_that_goes_on_equals_the_whole_run():
    returns = returns_of(MARKET)
    whole = filter_volatility(returns, MARKET, particles=500, seed=9)
    first = filter_volatility(returns[:, :33], MARKET, particles=500, seed=9)
    rest = filter_volatility(returns[:, 33:], MARKET, carry=first.carry)
    again = filter_volatility(returns[:, 33:], MARKET, carry=first.carry)  # the carry is not used up
    for name in SERIES:
        np.testing.assert_array_equal(getattr(rest, name), getattr(whole, name)[:, 33:], err_msg=name)
        np.testing.assert_array_equal(getattr(again, name), getattr(rest, name), err_msg=name)
    np.testing.assert_array_equal(rest.carry.particles, whole.carry.particles)


def test_a_carry_survives_a_file(tmp_path):
    from ssmfin.classical.nonlinear import ParticleState

    returns = returns_of(MARKET)
    first = filter_volatility(returns[:, :33], MARKET, particles=100)
    np.savez(tmp_path / "carry.npz", **first.carry._asdict())
    with np.load(tmp_path / "carry.npz", allow_pickle=False) as stored:
        carry = ParticleState(stored["particles"], stored["log_weights"], int(stored["step"]), stored["keys"])
    a, b = (filter_volatility(returns[:, 33:], MARKET, carry=c) for c in (first.carry, carry))
    np.testing.assert_array_equal(a.quantiles, b.quantiles)


def test_seeds_give_other_numbers_and_the_same_seed_the_same():
    returns = returns_of(MARKET)
    a, b, c = (filter_volatility(returns, MARKET, particles=200, seed=s).mean for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_series_have_independent_random_numbers():
    returns = np.tile(returns_of(MARKET)[:1], (2, 1))
    found = filter_volatility(returns, MARKET, particles=200)
    exact_steps, _ = on_a_grid(returns[0], MARKET, gaussian)
    errors = found.log_likelihood_steps - exact_steps
    assert abs(np.corrcoef(errors)[0, 1]) < 0.3


def test_systematic_resampling_keeps_each_particle_floor_or_ceiling_times():
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.full(50, 0.3), size=200)
    x = np.tile(np.arange(50.0), (200, 1))
    offsets = generator.random(200)
    drawn = _resampled(x, weights, offsets)
    copies = (drawn[:, :, None] == np.arange(50.0)).sum(axis=1)
    assert drawn.shape == x.shape
    assert (np.abs(copies - 50 * weights) < 1 + 1e-9).all()
    # unbiased: the mean number of copies over offsets is M W
    one = np.tile(weights[:1], (4000, 1))
    many = _resampled(np.tile(x[:1], (4000, 1)), one, (np.arange(4000) + 0.5) / 4000)
    mean_copies = (many[:, :, None] == np.arange(50.0)).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(mean_copies, 50 * weights[0], atol=1e-3)


def test_missing_returns_predict_and_score_nothing():
    returns = returns_of(MARKET)
    returns[:, 10:20] = np.nan
    found = filter_volatility(returns, MARKET, particles=2000)
    assert (found.log_likelihood_steps[:, 10:20] == 0).all()
    np.testing.assert_array_equal(found.return_variance[:, 10:20], found.predicted_return_variance[:, 10:20])
    stationary = MARKET.variance_log_variance / (1 - MARKET.persistence**2)
    assert (found.log_variance_variance[:, 19] > 0.5 * stationary).all()


def test_a_series_of_missing_values_stays_at_the_prior():
    found = filter_volatility(np.full((1, 50), np.nan), MARKET, particles=5000)
    np.testing.assert_allclose(found.log_variance_mean, -9.0, atol=0.1)
    assert found.log_likelihood[0] == 0.0


def test_an_impossible_observation_is_marked_and_the_rest_are_unaffected():
    returns = returns_of(MARKET)
    broken = returns.copy()
    broken[1, 50] = 1e200
    a = filter_volatility(returns, MARKET, particles=200)
    b = filter_volatility(broken, MARKET, particles=200)
    assert b.log_likelihood[1] == -np.inf
    assert np.isfinite(b.mean).all()
    np.testing.assert_array_equal(a.mean[[0, 2, 3]], b.mean[[0, 2, 3]])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model": MARKET._replace(persistence=1.0)}, "persistence is 1.0"),
        ({"model": MARKET._replace(variance_log_variance=0.0)}, "variance_log_variance is 0.0"),
        ({"model": MARKET._replace(degrees_of_freedom=2.0)}, "degrees_of_freedom is 2.0"),
        ({"model": MARKET._replace(mean=np.zeros(3))}, "parameters['mean']"),
        ({"model": MARKET._replace(mean=np.nan)}, "parameters['mean'] is nan"),
        ({"returns": np.zeros(5)}, "y has shape (5,)"),
        ({"returns": np.full((2, 3), np.inf)}, "infinite at series 0, step 0"),
        ({"particles": 1}, "particles is 1"),
        ({"quantiles": (0.0,)}, "quantiles are (0.0,)"),
        ({"resample_below": 0.0}, "resample_below is 0.0"),
        ({"ids": ["a"]}, "ids has 1 entries for 2 series"),
        ({"ids": ["a", "a"]}, "ids repeat"),
    ],
)
def test_mistakes_are_named(change, words):
    arguments = {"returns": np.zeros((2, 3)), "model": MARKET} | change
    with pytest.raises(InputError) as caught:
        filter_volatility(arguments.pop("returns"), arguments.pop("model"), **arguments)
    assert words in str(caught.value)
