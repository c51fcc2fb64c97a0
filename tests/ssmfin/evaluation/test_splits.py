"""The folds over all options: the properties that DESIGN.md promises, and the messages of windows that cannot work."""

import datetime as dt
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin.evaluation.splits import WalkForward


@st.composite
def walks(draw):
    horizons = tuple(sorted(draw(st.sets(st.integers(1, 8), min_size=1, max_size=3))))
    embargo = draw(st.integers(0, 4))
    validation = draw(st.integers(max(horizons) + embargo + 1, 30))
    size = draw(st.integers(validation + max(horizons) + embargo + 2, 80))
    count = draw(st.integers(size, 200))
    walk = WalkForward(
        train={"kind": draw(st.sampled_from(["rolling", "expanding"])), "size": size},
        validation=validation,
        test=draw(st.integers(1, 40)),
        embargo=embargo,
        refit=draw(st.integers(1, 5)),
        horizons=horizons,
    )
    gaps = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    dates = np.datetime64("2020-01-01") + np.cumsum(gaps)
    if draw(st.booleans()):
        first = draw(st.integers(size - 1, count - 1))
        walk = walk.model_copy(update={"start": dates[first].astype(object)})
    return walk, dates, horizons


@settings(deadline=None, max_examples=300)
@given(walks())
def test_every_origin_from_the_first_cutoff_is_tested_exactly_once(case):
    walk, dates, _ = case
    folds = walk.folds(dates)
    tested = [t for fold in folds for t in range(fold.test_start, fold.test_stop)]
    first = walk.train.size - 1 if walk.start is None else int(np.searchsorted(dates, np.datetime64(walk.start)))
    assert tested == list(range(first, len(dates)))
    assert all(fold.test_start == fold.cutoff for fold in folds)
    assert [b.cutoff - a.cutoff for a, b in itertools.pairwise(folds)] == [walk.test.size] * (len(folds) - 1)


@settings(deadline=None, max_examples=300)
@given(walks())
def test_no_training_label_ends_after_the_cutoff_and_no_fit_label_after_the_first_validation_origin(case):
    walk, dates, horizons = case
    walk.check(horizons)
    for fold in walk.folds(dates):
        origins = np.arange(len(dates))
        for h in horizons:
            known = origins + h
            train = (origins >= fold.train_start) & (known <= fold.labels_until)
            fit = (origins >= fold.train_start) & (origins < fold.validation_start) & (known <= fold.fit_labels_until)
            validation = train & (origins >= fold.validation_start)
            assert train.any()
            assert fit.any()
            assert validation.any()
            assert (known[train] + walk.embargo <= fold.cutoff).all()
            assert known[fit].max() + walk.embargo <= origins[validation].min()
            assert not (fit & ~train).any()
        length = fold.cutoff - fold.train_start + 1
        assert length == walk.train.size if walk.train.kind == "rolling" else fold.train_start == 0


def test_sizes_may_be_bare_numbers():
    assert WalkForward(train=500, test=21).train.size == 500


@pytest.mark.parametrize(
    "options, message",
    [
        ({"train": 0}, "WalkForward.train.size is 0"),
        ({"train": "long"}, "WalkForward.train"),
        ({"tests": 5}, "did you mean 'test'?"),
        ({"refit": 0}, "WalkForward.refit is 0"),
        ({"purge": "none"}, "WalkForward.purge is 'none'"),
        ({"start": "yesterday"}, "WalkForward.start is 'yesterday'"),
    ],
)
def test_wrong_options_are_named_with_their_value(options, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?").replace("(", r"\(")):
        WalkForward(**options)


def test_a_window_longer_than_the_data_is_refused_with_the_number_of_dates():
    dates = np.arange("2020-01-01", "2020-02-01", dtype="M8[D]")
    with pytest.raises(InputError, match="size is 100, longer than the panel \\(31 dates\\)"):
        WalkForward(train=100, validation=10).folds(dates)


@pytest.mark.parametrize(
    ("count", "remedy"),
    [
        (5454, r"use 5244 or less, which leaves 210 dates"),
        (300, "use 150 or less"),
        (90, r"give more dates, or shorten"),
    ],
)
def test_a_window_longer_than_the_data_is_answered_with_a_size_that_leaves_enough_to_forecast(count, remedy):
    dates = np.datetime64("2000-01-01") + np.arange(count)
    walk = WalkForward(train=6000, validation=50, test=21)
    with pytest.raises(InputError, match=remedy):
        walk.folds(dates)


def test_a_start_outside_the_possible_dates_is_refused():
    dates = np.arange("2020-01-01", "2020-03-01", dtype="M8[D]")
    walk = WalkForward(train=30, validation=10, start=dt.date(2020, 1, 5))
    with pytest.raises(InputError, match="use 2020-01-30 or later"):
        walk.folds(dates)
    with pytest.raises(InputError, match="after the last date"):
        walk.model_copy(update={"start": dt.date(2021, 1, 1)}).folds(dates)


def test_a_validation_tail_shorter_than_the_longest_horizon_is_refused():
    with pytest.raises(InputError, match="use at least 23"):
        WalkForward(train=1000, validation=22).check((1, 22))
    with pytest.raises(InputError, match=r"walk_forward\.train\.size is 50"):
        WalkForward(train=50, validation=40).check((22,))
