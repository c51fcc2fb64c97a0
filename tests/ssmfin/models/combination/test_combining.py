"""Weights over time: known answers, a twin that loops over origins and looks each label up, nothing from the future."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

from ssmfin.evaluation.losses import mse, qlike
from ssmfin.models.combination.combining import Record, combine, combine_quantiles

DEFAULTS = {
    "weights": "rolling",
    "mean": "geometric",
    "loss": "qlike",
    "window": 60,
    "min_periods": 20,
    "shrink": 0.3,
}


def record(seed=0, members=3, ids=3, dates=150, horizons=(1, 4), pooled=True, missing=0.0):
    """Members err by different amounts around a common level; ids skip days, labels mature late."""
    rng = np.random.default_rng(seed)
    date, group, label, known = [], [], [], []
    for k in range(ids):
        days = np.flatnonzero(rng.uniform(size=dates) > 0.2)
        date.append(days)
        group.append(np.full(len(days), 0 if pooled else k))
        later = np.full((len(days), len(horizons)), dates)
        for j, h in enumerate(horizons):
            later[:-h, j] = days[h:]
        known.append(later)
    date, group, known = np.concatenate(date), np.concatenate(group), np.concatenate(known)
    shape = (len(date), len(horizons))
    level = np.exp(rng.standard_normal(shape) * 0.5 - 9)
    label = np.where(known < dates, level * np.exp(0.4 * rng.standard_normal(shape)), np.nan)
    spread = np.array([0.2, 0.4, 0.3, 0.6, 0.5])[:members, None, None]
    forecast = level * np.exp(spread * rng.standard_normal((members, *shape)))
    forecast[rng.uniform(size=forecast.shape) < missing] = np.nan
    return Record(forecast, label, known, date, group, dates, 1 if pooled else ids)


def part(rec, rows):
    """Some rows as a record of their own, all of one group."""
    one = np.zeros(int(rows.sum()), dtype=np.int64)
    return Record(rec.forecast[:, rows], rec.label[rows], rec.known[rows], rec.date[rows], one, rec.dates, 1)


def naive(rec, *, weights, mean, loss, window, min_periods, shrink):
    """Every origin alone: look up what was known, form the weights, combine."""
    K, n, H = rec.forecast.shape
    out, used = np.full((n, H), np.nan), np.full((n, H, K), 1 / K)
    for i in range(n):
        for h in range(H):
            t = rec.date[i]
            past = [
                s
                for s in range(n)
                if rec.group[s] == rec.group[i]
                and rec.known[s, h] <= t
                and (window is None or rec.known[s, h] > t - window)
                and np.isfinite(rec.forecast[:, s, h]).all()
            ]
            f, y = rec.forecast[:, past, h], rec.label[past, h]
            w = np.full(K, 1 / K)
            if weights != "equal" and len({rec.known[s, h] for s in past}) >= min_periods:
                w = inverse(f, y, loss) if weights == "inverse_loss" else regressed(f, y, mean, loss, shrink)
            used[i, h] = w
            own = rec.forecast[:, i, h]
            there = np.isfinite(own)
            if there.any():
                part = w[there] / w[there].sum()
                out[i, h] = np.exp(part @ np.log(own[there])) if mean == "geometric" else part @ own[there]
    return out, used


def inverse(f, y, loss):
    share = 1 / np.array([{"qlike": qlike, "mse": mse}[loss](y, one).mean() for one in f])
    return share / share.sum()


def regressed(f, y, mean, loss, shrink):
    K = len(f)
    centre = np.exp(np.log(f).mean(axis=0)) if mean == "geometric" else f.mean(axis=0)
    x = np.log(f / centre) if mean == "geometric" else f / centre - 1
    scale = 1.0 if loss == "qlike" else centre
    r, x = (y / centre - 1) * scale, x * scale
    size = np.abs(r).max()
    found = minimize(
        lambda w: np.mean((r - w @ x) ** 2) / size**2,
        np.full(K, 1 / K),
        jac=lambda w: -2 * x @ (r - w @ x) / len(r) / size**2,
        bounds=[(0, 1)] * K,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(K)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 300},
    )
    return (1 - shrink) * found.x + shrink / K


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mean": "arithmetic"},
        {"loss": "mse"},
        {"loss": "mse", "mean": "arithmetic", "window": None},
        {"weights": "inverse_loss"},
        {"weights": "inverse_loss", "loss": "mse", "mean": "arithmetic", "window": None},
        {"weights": "equal"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pooled", [True, False])
def test_agrees_with_looking_everything_up_at_each_origin(changes, pooled):
    settings = {**DEFAULTS, **changes}
    rec = record(seed=len(str(changes)), dates=80, pooled=pooled, missing=0.03)
    if settings["weights"] == "rolling":
        settings["min_periods"] = 30  # the twin's optimizer is not exact on a handful of rows
    found = combine(rec, **settings)
    forecast, weights = naive(rec, **settings)
    per_row = found.weights[rec.group, rec.date]
    np.testing.assert_allclose(per_row, weights, atol=2e-4 if settings["weights"] == "rolling" else 1e-12)
    np.testing.assert_allclose(found.forecast, forecast, rtol=2e-4 if settings["weights"] == "rolling" else 1e-12)
    learned = found.learned[rec.group, rec.date]
    assert learned.any() == (settings["weights"] != "equal")
    assert not learned.all()


@pytest.mark.parametrize("loss, mean", [("mse", "arithmetic"), ("qlike", "geometric"), ("qlike", "arithmetic")])
def test_members_of_known_error_covariance_get_the_optimal_weights(loss, mean):
    """Errors of the two (relative ones under QLIKE) have covariance S: w = S^-1 1 / 1'S^-1 1."""
    rng = np.random.default_rng(1)
    n, covariance = 40_000, np.array([[0.001, 0.0004], [0.0004, 0.002]])
    errors = rng.multivariate_normal([0, 0], covariance, n).T
    label = np.exp(rng.standard_normal(n)) if loss == "qlike" else rng.standard_normal(n)
    forecast = {
        ("mse", "arithmetic"): label + errors,
        ("qlike", "geometric"): label * np.exp(errors),
        ("qlike", "arithmetic"): label * (1 + errors),
    }[loss, mean]
    date = np.arange(n)
    known = np.append(date[1:], n)[:, None]
    rec = Record(forecast[:, :, None], label[:, None], known, date, np.zeros(n, dtype=np.int64), n, 1)
    found = combine(rec, weights="rolling", mean=mean, loss=loss, window=None, min_periods=50, shrink=0.0)
    optimal = np.linalg.solve(covariance, np.ones(2))
    np.testing.assert_allclose(found.weights[0, -1, 0], optimal / optimal.sum(), atol=0.01)
    assert {"qlike": qlike, "mse": mse}[loss](label, found.forecast[:, 0])[50:].mean() < min(
        {"qlike": qlike, "mse": mse}[loss](label, one)[50:].mean() for one in forecast
    )


def test_nothing_known_later_changes_a_weight():
    rec = record(seed=3, dates=120)
    day = 70
    label, forecast = rec.label.copy(), rec.forecast.copy()
    label[rec.known > day] *= 1e6
    forecast[:, rec.date > day] *= 1e-6
    for weights in ("rolling", "inverse_loss"):
        for window in (40, None):
            settings = {**DEFAULTS, "weights": weights, "window": window}
            before = combine(rec, **settings)
            after = combine(rec._replace(label=label, forecast=forecast), **settings)
            np.testing.assert_array_equal(before.weights[:, : day + 1], after.weights[:, : day + 1])
            past = rec.date <= day
            np.testing.assert_array_equal(before.forecast[past], after.forecast[past])
            assert not np.array_equal(before.weights[:, day + 10 :], after.weights[:, day + 10 :])


def test_the_label_of_the_day_before_counts_and_that_of_the_day_after_does_not():
    """Exactly at the border: a label known at t changes the weights of t, one known at t + 1 does not."""
    rec = record(seed=5, ids=1, dates=90, horizons=(4,))
    t = int(rec.date[60])
    before = combine(rec, **DEFAULTS).weights[0, t]
    for known, changes in ((t, True), (int(rec.date[61]), False)):
        label = np.where(rec.known == known, rec.label * 3, rec.label)
        after = combine(rec._replace(label=label), **DEFAULTS).weights[0, t]
        assert np.array_equal(before, after) != changes


def test_weights_per_id_are_those_of_each_id_alone():
    rec = record(seed=2, pooled=False)
    together = combine(rec, **DEFAULTS)
    for k in range(rec.groups):
        own = rec.group == k
        alone = combine(part(rec, own), **DEFAULTS)
        np.testing.assert_array_equal(together.forecast[own], alone.forecast)


def test_a_member_that_lacks_an_id_leaves_the_others_their_forecasts():
    rec = record(seed=4, pooled=False)
    absent = rec.group == 1
    forecast = rec.forecast.copy()
    forecast[0, absent] = np.nan
    pooled = rec._replace(forecast=forecast, group=np.zeros_like(rec.group), groups=1)
    found = combine(pooled, **DEFAULTS)
    assert np.isfinite(found.forecast).all()
    without = combine(part(rec, ~absent), **DEFAULTS)
    np.testing.assert_array_equal(found.forecast[~absent], without.forecast)
    w = found.weights[0, rec.date[absent]][:, :, 1:]
    w = w / w.sum(axis=-1, keepdims=True)
    expected = np.exp(np.sum(w * np.log(np.moveaxis(forecast[1:, absent], 0, -1)), axis=-1))
    np.testing.assert_allclose(found.forecast[absent], expected, rtol=1e-12)
    forecast[:, 0] = np.nan
    assert np.isnan(combine(pooled._replace(forecast=forecast), **DEFAULTS).forecast[0]).all()


def test_full_shrinkage_and_want_of_history_give_equal_weights():
    rec = record()
    equal = combine(rec, **{**DEFAULTS, "weights": "equal"}).forecast
    np.testing.assert_allclose(combine(rec, **{**DEFAULTS, "shrink": 1.0}).forecast, equal, rtol=1e-12)
    np.testing.assert_array_equal(combine(rec, **{**DEFAULTS, "min_periods": 1000}).forecast, equal)


def test_a_forecast_that_is_not_positive_gets_no_weight_under_qlike():
    rec = record(seed=6)
    forecast = rec.forecast.copy()
    forecast[1] *= -1
    found = combine(rec._replace(forecast=forecast), **{**DEFAULTS, "weights": "inverse_loss", "mean": "arithmetic"})
    assert (found.weights[found.learned][:, 1] == 0).all()
    assert (found.weights[found.learned].sum(axis=-1) > 0.999).all()


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_quantiles_of_one_family_average_to_that_family(mean):
    """Normal members: the average quantile is normal with the average mean and deviation (not their mixture's)."""
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(3), size=(7, 2))  # (n, H, K)
    centre, spread = rng.standard_normal((3, 7, 2)), np.exp(rng.standard_normal((3, 7, 2)))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    members = centre[..., None] + spread[..., None] * norm.ppf(levels)  # (K, n, H, Q)
    found = combine_quantiles(np.exp(members) if mean == "geometric" else members, weights, mean=mean)
    found = np.log(found) if mean == "geometric" else found
    average = np.einsum("knh,nhk->nh", centre, weights)[..., None] + np.einsum("knh,nhk->nh", spread, weights)[
        ..., None
    ] * norm.ppf(levels)
    np.testing.assert_allclose(found, average, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from(["arithmetic", "geometric"]))
def test_averaged_quantiles_do_not_cross_and_stay_within_their_members(seed, mean):
    rng = np.random.default_rng(seed)
    members = np.sort(np.exp(rng.standard_normal((3, 4, 2, 5))) * (rng.uniform(size=(3, 4, 2, 5)) > 0.1), axis=-1)
    weights = rng.dirichlet(np.ones(3), size=(4, 2)) * (rng.uniform(size=(4, 2, 3)) > 0.3)
    weights = np.where(weights.any(-1, keepdims=True), weights, 1.0)
    weights /= weights.sum(-1, keepdims=True)
    found = combine_quantiles(members, weights, mean=mean)
    assert (np.diff(found, axis=-1) >= -1e-15).all()
    assert (found >= members.min(axis=0) * (1 - 1e-12)).all()
    assert (found <= members.max(axis=0) * (1 + 1e-12)).all()


def test_a_horizon_that_a_member_does_not_tell_is_not_told():
    members = np.ones((2, 3, 2, 1))
    members[1, :, 1] = np.nan
    found = combine_quantiles(members, np.full((3, 2, 2), 0.5), mean="geometric")
    assert (found[:, 0] == 1).all()
    assert np.isnan(found[:, 1]).all()
