"""The forecast that a deep model corrects, whichever it is: exact before training, the same from disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.members import LogHAR
from ssmfin.models.baselines.panel_ridge import PanelRidge
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.baselines.rolling_ridge import FittedRollingRidge, RollingRidge
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.streaming import Stream
from ssmfin.models.ssm.s4d import S4D

ALONE = {"log_har": LogHAR(), "ridge": Ridge(), "panel_ridge": PanelRidge(), "rolling_ridge": RollingRidge()}
SMALL = {"context": 24, "width": 8, "segment": 48, "state": 4, "device": "cpu"}


@pytest.mark.parametrize("kind", ALONE)
def test_a_network_that_has_learned_nothing_is_its_base_to_the_bit(kind, design, training, origins) -> None:
    rows = origins(design, 270, 329)
    alone = ALONE[kind].fit(training).predict(design, rows)
    np.testing.assert_array_equal(
        S4D(**SMALL, residual=kind, epochs=0).fit(training, seed=0).predict(design, rows), alone
    )


@pytest.mark.parametrize("kind", [*ALONE, "none"])
def test_a_base_comes_back_from_its_arrays(kind, design, training, origins) -> None:
    base = Base.of(training, kind)
    again = Base.restored(kind, True, design.ids, {name: np.array(value) for name, value in base.arrays().items()})
    rows = origins(design, 270, 329)
    np.testing.assert_array_equal(again.forecast(design, rows), base.forecast(design, rows))
    np.testing.assert_array_equal(again.label_range, base.label_range)


def test_a_correction_of_a_rolling_base_knows_nothing_of_later_rows(design, training, origins, moved) -> None:
    fitted = moved(S4D(**SMALL, residual="rolling_ridge", epochs=2).fit(training, seed=0), 0.05)
    rows = origins(design, 280, 320)
    later = design.date_index > 300
    changed = replace(
        design,
        observed=np.where(later, 3e-4, design.observed),
        features=np.where(later[:, None], 0.5, design.features),
        labels=np.full_like(design.labels, np.nan),
    )
    before, after = fitted.predict(design, rows), fitted.predict(changed, rows)
    past = ~later[rows]
    np.testing.assert_array_equal(before[past], after[past])
    assert (before[~past] != after[~past]).all()


def rows_at(design, date: int) -> np.ndarray:
    return np.flatnonzero((design.date_index == date) & design.complete)


def step(stream, design, date: int) -> np.ndarray:
    rows = rows_at(design, date)[::-1]  # in any order
    names = [design.ids[k] for k in design.id_index[rows]]
    return stream.step(names, design.features[rows], design.lag_means[rows], ds=design.dates[date])[::-1]


@pytest.fixture(scope="module")
def rolling(training, moved):
    model = S4D(**SMALL, residual="rolling_ridge", residual_rows=80, epochs=1, precision="float64")
    return moved(model.fit(training, seed=1), 0.05)


def test_a_stream_keeps_the_rows_that_a_rolling_base_learns_from(
    rolling, design, cut_design, origins, tmp_path
) -> None:
    dates = range(290, 330)
    batch = rolling.predict(design, np.concatenate([rows_at(design, date) for date in dates]))
    from_history, one_by_one = rolling.stream(), rolling.stream()
    from_history.extend(cut_design(design, 150))
    from_history.extend(after(design, 150, 289))
    for date in range(290):
        if len(rows_at(design, date)):
            step(one_by_one, design, date)
    for stream in (from_history, one_by_one):
        np.testing.assert_allclose(np.concatenate([step(stream, design, d) for d in dates]), batch, rtol=1e-10)
    from_history.save(tmp_path / "stream.safetensors")
    again = Stream.restore(rolling, tmp_path / "stream.safetensors")
    row = rows_at(design, 329)
    rest = [design.ids[k] for k in design.id_index[row]], design.features[row], design.lag_means[row]
    np.testing.assert_array_equal(again.step(*rest, ds="2030-01-01"), from_history.step(*rest, ds="2030-01-01"))


def after(design, first: int, last: int):
    """The rows of the dates first + 1 .. last."""
    keep = (design.date_index > first) & (design.date_index <= last)
    counts = [int(keep[design.rows_of(k)].sum()) for k in range(len(design.ids))]
    parts = {
        name: getattr(design, name)[keep]
        for name in ("id_index", "date_index", "observed", "lag_means", "features", "labels", "label_known")
    }
    return replace(design, starts=np.cumsum([0, *counts]), **parts)


def test_a_row_that_is_refused_and_a_new_start_leave_the_rolling_base_right(rolling, design, cut_design) -> None:
    stream, untouched = rolling.stream(), rolling.stream()
    for each in (stream, untouched):
        each.extend(cut_design(design, 289))
    row = rows_at(design, 290)
    names = [design.ids[k] for k in design.id_index[row]]
    with pytest.raises(InputError, match="is not finite"):
        stream.step(names, design.features[row] * np.nan, design.lag_means[row])
    np.testing.assert_array_equal(step(stream, design, 290), step(untouched, design, 290))
    stream.reset()
    fresh = rolling.stream()
    np.testing.assert_array_equal(step(stream, design, 291), step(fresh, design, 291))


def test_rows_at_which_a_rolling_base_stands_in_by_what_has_seen_their_label_teach_nothing(training) -> None:
    base = Base.of(training, "rolling_ridge", rows=200)
    taught, design = base.teaching(training), training.design
    assert isinstance(base.fitted, FittedRollingRidge)
    stands_in = base.fitted.frozen.predict(design, np.arange(design.rows)) == base.forecast(
        design, np.arange(design.rows)
    )
    assert (training.fit & stands_in & design.complete[:, None]).any()
    assert not ((taught.fit | taught.validation) & stands_in).any()
    np.testing.assert_array_equal(taught.fit, training.fit & ~stands_in)
    none = Base.of(training, "rolling_ridge", rows=2000).teaching(training)  # none has 500 rows behind it
    np.testing.assert_array_equal(none.fit, training.fit)
    assert Base.of(training, "ridge").teaching(training) is training
