"""Designs and training sets from arrays, for models that never see a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ssmfin.models.interface import Design, Target, TrainingSet, Window


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    means = np.full(len(values), np.nan)
    if len(values) >= window:
        means[window - 1 :] = np.lib.stride_tricks.sliding_window_view(values, window).mean(axis=1)
    return means


def design_of(
    variances: Sequence[np.ndarray],
    *,
    dates: Sequence[np.ndarray] | None = None,
    extra: Sequence[np.ndarray] | None = None,
    horizons: tuple[int, ...] = (1, 5),
    transform: str = "log",
) -> Design:
    """Daily variances of some ids (and `dates`, integers, when calendars differ; `extra` features, (T, E) each)."""
    dates = [np.arange(len(values)) for values in variances] if dates is None else list(dates)
    calendar = np.unique(np.concatenate(dates))
    lag_means, labels, known, date_index = [], [], [], []
    for values, days in zip(variances, dates, strict=True):
        rows, position = len(values), np.searchsorted(calendar, days)
        lag_means.append(np.column_stack([trailing_mean(values, window) for window in (1, 5, 22)]))
        label = np.full((rows, len(horizons)), np.nan)
        label_known = np.full((rows, len(horizons)), len(calendar))
        for column, h in enumerate(horizons):
            label[: rows - h, column] = trailing_mean(values, h)[h:]
            label_known[: rows - h, column] = position[h:]
        labels.append(label)
        known.append(label_known)
        date_index.append(position)
    means = np.concatenate(lag_means)
    features = np.log(means) if extra is None else np.column_stack([np.log(means), np.concatenate(list(extra))])
    return Design(
        target=Target("rv", horizons, transform),  # type: ignore[arg-type]
        ids=tuple(f"id{k}" for k in range(len(variances))),
        dates=np.datetime64("2000-01-03") + calendar,
        id_index=np.repeat(np.arange(len(variances)), [len(values) for values in variances]),
        date_index=np.concatenate(date_index),
        starts=np.cumsum([0, *map(len, variances)]),
        observed=np.concatenate(list(variances)),
        lag_means=means,
        features=features,
        feature_names=tuple(f"feature{column}" for column in range(features.shape[1])),
        labels=np.concatenate(labels),
        label_known=np.concatenate(known),
        columns={},
    )


def up_to(design: Design, date: int, *, with_labels: bool = False) -> Design:
    """The rows up to a date; labels that were not known then are blank."""
    keep = design.date_index <= date
    known = with_labels & (design.label_known[keep] <= date)
    counts = [int(keep[design.rows_of(k)].sum()) for k in range(len(design.ids))]
    return Design(
        target=design.target,
        ids=design.ids,
        dates=design.dates[: date + 1],
        id_index=design.id_index[keep],
        date_index=design.date_index[keep],
        starts=np.cumsum([0, *counts]),
        observed=design.observed[keep],
        lag_means=design.lag_means[keep],
        features=design.features[keep],
        feature_names=design.feature_names,
        labels=np.where(known, design.labels[keep], np.nan),
        label_known=design.label_known[keep],
        columns={},
    )


def training_set_of(design: Design, cutoff: int, *, size: int, validation: int) -> TrainingSet:
    """A rolling window of `size` dates ending at the cutoff, its last `validation` dates for early stopping."""
    first = cutoff - validation + 1
    return TrainingSet.of(
        up_to(design, cutoff, with_labels=True),
        Window(
            train_start=cutoff - size + 1,
            cutoff=cutoff,
            labels_until=cutoff,
            validation_start=first,
            fit_labels_until=first,
            test_rows=np.empty(0, dtype=np.int64),
        ),
    )


def simulated_variances(count: int, rows: int, seed: int = 0) -> list[np.ndarray]:
    """Log variances of levels that differ between ids: a persistent AR(1) plus measurement noise."""
    rng = np.random.default_rng(seed)
    paths = []
    for k in range(count):
        level = np.empty(rows)
        level[0] = 0.0
        shocks = 0.25 * rng.standard_normal(rows)
        for t in range(1, rows):
            level[t] = 0.97 * level[t - 1] + shocks[t]
        paths.append(1e-4 * np.exp(k + level + 0.4 * rng.standard_normal(rows)))
    return paths


@pytest.fixture(scope="session")
def make_design() -> Callable[..., Design]:
    return design_of


@pytest.fixture(scope="session")
def cut_design() -> Callable[..., Design]:
    return up_to


@pytest.fixture(scope="session")
def make_training_set() -> Callable[..., TrainingSet]:
    return training_set_of


@pytest.fixture(scope="session")
def simulate() -> Callable[..., list[np.ndarray]]:
    return simulated_variances
