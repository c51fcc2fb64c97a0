"""Owns the designs that the tests of the baselines run on: simulated variances, uneven calendars, holes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.models.interface import Design, Target, TrainingSet, Window


def simulate(
    *,
    ids=3,
    dates=260,
    horizons=(1, 5, 10),
    transform="log",
    aggregate="mean",
    bias_correction="lognormal",
    extra_features=2,
    seed=0,
    skip=0.1,
    incomplete=0.03,
):
    """A Design with a persistent positive target; ids skip dates, start late and miss features in places."""
    rng = np.random.default_rng(seed)
    day = np.arange(np.datetime64("2001-01-01"), np.datetime64("2001-01-01") + dates)
    blocks = []
    for k in range(ids):
        present = np.sort(rng.choice(dates, size=int(dates * (1 - skip)), replace=False))
        present = present[present >= 4 * k]
        if k == 1:
            present = present[(present < dates // 4) | (present > dates // 4 + 15)]  # a hole
        n = len(present)
        log_variance = np.zeros(n)
        for t in range(1, n):
            log_variance[t] = 0.95 * log_variance[t - 1] + 0.3 * rng.standard_normal()
        value = 1e-4 * np.exp(log_variance + 0.3 * rng.standard_normal(n))
        returns = np.sqrt(value) * rng.standard_normal(n)
        lags = np.full((n, 3), np.nan)
        for j, width in enumerate((1, 5, 22)):
            for t in range(width - 1, n):
                lags[t, j] = value[t - width + 1 : t + 1].mean()
        labels, known = np.full((n, len(horizons)), np.nan), np.full((n, len(horizons)), dates)
        for j, h in enumerate(horizons):
            for t in range(n - h):
                ahead = value[t + 1 : t + h + 1]
                labels[t, j] = {"mean": ahead.mean(), "sum": ahead.sum(), "last": ahead[-1]}[aggregate]
                known[t, j] = present[t + h]
        features = np.column_stack([np.log(lags), rng.standard_normal((n, extra_features)).cumsum(axis=0)])
        features[rng.random(n) < incomplete, -1] = np.nan
        blocks.append((np.full(n, k), present, value, returns, lags, labels, known, features))
    id_index, date_index, value, returns, lags, labels, known, features = map(np.concatenate, zip(*blocks, strict=True))
    target = Target("rv", tuple(horizons), transform, aggregate, bias_correction)
    share = np.random.default_rng(seed + 1000).beta(8, 2, size=(3, len(value)))
    calm = share[0] > 0.8
    measures = {
        "bv": value * (share[0] + 0.1),
        "continuous": value * np.where(calm, 1.0, share[0]),
        "jump": value * np.where(calm, 0.0, 1.0 - share[0]),
        "rs_pos": value * share[1],
        "rs_neg": value * (1.0 - share[1]),
        "rq": value**2 * (1.0 + share[2]),
    }
    return Design(
        target=target,
        ids=tuple(f"id{k}" for k in range(ids)),
        dates=day,
        id_index=id_index.astype(np.int64),
        date_index=date_index.astype(np.int64),
        starts=np.searchsorted(id_index, np.arange(ids + 1)).astype(np.int64),
        observed=value,
        lag_means=lags,
        features=features,
        feature_names=tuple(f"f{j}" for j in range(features.shape[1])),
        labels=labels,
        label_known=known.astype(np.int64),
        columns={"rv": value, "log_return": returns, **measures},
    )


def windows_of(design, *, size=120, tail=30, step=1, first=140, embargo=0, last=None):
    """Rolling windows with a refit every `step` dates, testing every complete origin from the cutoff on."""
    end = len(design.dates) if last is None else last
    found = []
    for cutoff in range(first, end, step):
        start, until = max(0, cutoff - size + 1), cutoff - embargo
        inside = (design.date_index >= cutoff) & (design.date_index < min(cutoff + step, end)) & design.complete
        found.append(
            Window(
                train_start=start,
                cutoff=cutoff,
                labels_until=until,
                validation_start=cutoff - tail + 1,
                fit_labels_until=cutoff - tail + 1,
                test_rows=np.flatnonzero(inside),
            )
        )
    return found


def cut_at(design, last, *, labels_until):
    """The design up to date `last`, labels after `labels_until` blank; and the new position of each old row."""
    keep = design.date_index <= last
    known = design.label_known[keep]
    blank = known > labels_until
    picked = {
        name: getattr(design, name)[keep] for name in ("id_index", "date_index", "observed", "lag_means", "features")
    }
    shorter = replace(
        design,
        **picked,
        dates=design.dates[: last + 1],
        starts=np.searchsorted(picked["id_index"], np.arange(len(design.ids) + 1)).astype(np.int64),
        labels=np.where(blank, np.nan, design.labels[keep]),
        label_known=np.where(blank, last + 1, known),
        columns={name: column[keep] for name, column in design.columns.items()},
    )
    return shorter, np.cumsum(keep) - 1


def training_of(design, window):
    past, _ = cut_at(design, window.cutoff, labels_until=window.cutoff)
    return TrainingSet.of(past, replace(window, test_rows=np.empty(0, dtype=np.int64)))


def fit_and_predict(forecaster, design, window, *, seed=0):
    """What the harness does for one window: fit on what exists at the cutoff, predict from what exists at each end."""
    fitted = forecaster.fit(training_of(design, window), seed=seed)
    last = int(design.date_index[window.test_rows].max())
    seen, position = cut_at(design, last, labels_until=-1)
    return fitted.predict(seen, position[window.test_rows]), fitted


def spoil_after(design, date, *, seed=1, value=None):
    """Every number that became known after `date` replaced: by noise, or by `value` where one is given."""
    rng = np.random.default_rng(seed)
    late, late_label = design.date_index > date, design.label_known > date

    def spoilt(array, where):
        noise = rng.uniform(0.5, 50.0, array.shape) if value is None else np.full(array.shape, value)
        where = where.reshape(where.shape + (1,) * (array.ndim - where.ndim))
        return np.where(where, noise, array)

    return replace(
        design,
        observed=spoilt(design.observed, late),
        lag_means=spoilt(design.lag_means, late),
        features=spoilt(design.features, late),
        labels=spoilt(design.labels, late_label),
        columns={name: spoilt(column, late) for name, column in design.columns.items()},
    )


@pytest.fixture(scope="session")
def harness():
    """The helpers above, as one namespace."""

    class Harness:
        simulate = staticmethod(simulate)
        windows_of = staticmethod(windows_of)
        cut_at = staticmethod(cut_at)
        training_of = staticmethod(training_of)
        fit_and_predict = staticmethod(fit_and_predict)
        spoil_after = staticmethod(spoil_after)

    return Harness


@pytest.fixture
def design():
    return simulate()
