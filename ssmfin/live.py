"""Owns a model that is used rather than judged: fitted once on a panel, then asked for forecasts, even row by row.

What it is given is cut as in a walk-forward evaluation: training labels end at the moment of fitting, features that
learn do so in the training window alone, and a forecast rests on rows up to its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.design import build_design, cut, training_panel
from ssmfin.features.kinds import feature_specs
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.models.external import SklearnForecaster
from ssmfin.models.interface import Design, Fitted, Forecaster, Target, TrainingSet, Window

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd

    from ssmfin.features.transformer import PanelTransformer

    Frame: TypeAlias = Panel | pl.DataFrame | pd.DataFrame

KEYS = ("unique_id", "ds")
CLOSE = 1e-9  # relative; sums over a shorter history round differently


def fit(
    model: Forecaster | Any,
    panel: Frame,
    *,
    target: str | Target,
    horizons: Sequence[int] = (1, 5, 22),
    features: Mapping[str, FeatureSpec | Mapping[str, Any]] | None = None,
    train: int = 1000,
    validation: int = 125,
    seed: int = 0,
) -> Trained:
    """Fit one model on the newest rows of a panel, for use: no test period is left, `evaluate` is what judges.

    Args:
        model: a forecaster such as `sf.S4D()`, or a regressor in scikit-learn's manner.
        panel: long, with `unique_id` and `ds`; its last date is the moment of fitting.
        target: a column (log, mean over t+1 .. t+h), or a `Target`, which brings its own horizons.
        horizons: rows ahead. features: name -> spec, or its mapping as in a study file; default: HAR lags.
        train: dates of the training window; older rows serve as history. validation: dates of its tail on which early
            stopping and penalties are chosen.
        seed: of a stochastic model.
    Raises:
        InputError: the panel, the target or a feature is wrong, or the window is too short.

    >>> from ssmfin.data.synthetic import simulate_volatility_panel
    >>> from ssmfin.models.baselines.har.members import LogHAR
    >>> panel = simulate_volatility_panel(ids=2, dates=500).frame
    >>> fit(LogHAR(), panel, target="rv", horizons=[1], train=300).forecast(panel).columns
    ['unique_id', 'ds', 'horizon', 'y_hat']
    """
    from ssmfin.features.transformer import as_panel

    if isinstance(model, type) or not callable(getattr(model, "fit", None)):
        raise InputError(f"model is {model!r}, no forecaster; give an instance such as sf.S4D() or a regressor.")
    history = as_panel(panel)
    wanted = Target(column=target, horizons=tuple(horizons)) if isinstance(target, str) else target
    specs = feature_specs({"har": {"kind": "har_lags"}} if features is None else features)
    forecaster = model if isinstance(model, Forecaster) else SklearnForecaster(estimator=model)
    cutoff = len(history.dates) - 1
    needed = validation + max(wanted.horizons) + 2
    if not needed <= train <= cutoff + 1:
        raise InputError(
            f"train is {train}; use at least {needed} dates (validation tail, longest horizon), at most the panel's "
            f"{cutoff + 1}."
        )
    start = cutoff - train + 1
    learned = {
        name: spec.transformer(column=wanted.column, log=wanted.transform == "log").fit(
            training_panel(history, start, cutoff)
        )
        for name, spec in specs.items()
        if isinstance(spec, LearnedSpec)
    }
    design = build_design(history, wanted, specs, learned=learned)
    past, _ = cut(replace(design, usable=design.complete), cutoff, labels_until=cutoff)
    window = Window(
        train_start=start,
        cutoff=cutoff,
        labels_until=cutoff,
        validation_start=cutoff - validation,
        fit_labels_until=cutoff - validation,
        test_rows=np.empty(0, dtype=np.int64),
    )
    training = TrainingSet.of(past, window)
    if not training.train.any(axis=0).all():
        undefined = np.isnan(past.features).sum(axis=0)
        most = past.feature_names[int(undefined.argmax())] if len(undefined) else "the means over 22 rows"
        raise InputError(
            "the training window holds no row with complete features and a known label; most often undefined is "
            f"{most}: lengthen train, or leave that feature out."
        )
    fitted = forecaster.fit(training, seed=seed)
    rows = int(training.train.any(axis=1).sum())
    return Trained(forecaster, fitted, wanted, specs, learned, history.ids, history.dates[-1], rows)


@dataclass(frozen=True)
class Trained:
    """A fitted model and all that turns rows of a panel into what it reads.

    Attributes:
        forecaster: its configuration. fitted: what was learned; a deep model's can be saved and streamed.
        target: what is forecast. features: name -> spec. learned: the transformers of features that learn.
        ids: those of the training panel. cutoff: its last date. rows: that a label was learned from.
    """

    forecaster: Forecaster
    fitted: Fitted
    target: Target
    features: Mapping[str, FeatureSpec]
    learned: Mapping[str, PanelTransformer]
    ids: tuple[str, ...]
    cutoff: np.datetime64
    rows: int = 0

    def __repr__(self) -> str:
        parts = [f"{self._what()} for {self.target.column} at horizons {', '.join(map(str, self.target.horizons))}"]
        parts.append(f"fitted on {self.rows:,} rows of {_ids(len(self.ids))} until {_date(self.cutoff)}")
        outcome = getattr(self.fitted, "outcome", None)
        return f"Trained({'; '.join([*parts, *([f'training: {outcome}'] if outcome else [])])})"

    @property
    def stayed_at_base(self) -> bool:
        """Whether the training of a deep model learned nothing: early stopping kept the start, whose correction is
        zero, so that the forecasts are those of its base and `sf.memory` shows starting values.
        """
        return bool(getattr(self.fitted, "stayed_at_base", False))

    def _what(self) -> str:
        base = getattr(self.fitted, "base_name", None)
        if isinstance(self.forecaster, SklearnForecaster):
            return type(self.forecaster.estimator).__name__
        return self.forecaster.kind if base is None else f"{self.forecaster.kind}, correcting {base},"

    def design(self, panel: Frame) -> Design:
        """The rows of a panel as the model reads them: labels blank.

        Raises:
            InputError: the panel is wrong, or its ids are not those of the training.
        """
        from ssmfin.features.transformer import as_panel

        given = as_panel(panel)
        if given.ids != self.ids:
            odd = sorted(set(given.ids) ^ set(self.ids))
            raise InputError(
                f"the panel's ids are not those of the training, {odd[0]!r} is in one of them alone; give the same "
                f"{len(self.ids)} ids."
            )
        design = build_design(given, self.target, self.features, learned=self.learned)
        return cut(replace(design, usable=design.complete), len(given.dates) - 1, labels_until=None)[0]

    def forecast(self, panel: Frame) -> pl.DataFrame:
        """unique_id, ds (the origin), horizon, y_hat: from every row at or after the moment of fitting.

        Of the training panel itself these are the forecasts from its last date. Rows with an undefined feature have
        none.
        """
        design = self.design(panel)
        rows = np.flatnonzero((design.dates[design.date_index] >= self.cutoff) & design.complete)
        return self._framed(design, rows, self.fitted.predict(design, rows))

    def live(self, history: Frame, *, keep: int | None = None) -> Live:
        """Read a history, then forecast from new rows as they come.

        Args:
            history: rows up to now, those of the training as a rule.
            keep: rows of each id that stay in memory, from which features are computed; None: all, which every feature
                allows. A number makes memory and time constant.
        Raises:
            InputError: with `keep` rows a feature (or a model that is no stream) has not the value it has with all.
        """
        return Live(self, history, keep=keep)

    def _framed(self, design: Design, rows: np.ndarray, y_hat: np.ndarray) -> pl.DataFrame:
        horizons = np.array(self.target.horizons, dtype=np.int32)
        repeat = np.repeat(rows, len(horizons))
        return pl.DataFrame(
            {
                "unique_id": pl.Series([design.ids[k] for k in design.id_index[repeat]], dtype=pl.String),
                "ds": design.dates[design.date_index[repeat]],
                "horizon": np.tile(horizons, len(rows)),
                "y_hat": y_hat.ravel(),
            }
        )


class Live:
    """A model that lives row by row.

        live = sf.fit(sf.S4D(), panel, target="rv").live(panel, keep=64)
        live.update(today)                       # the new rows of some ids -> their forecasts

    A deep model reads each row once, through its stream; another one forecasts from the rows that are kept.

    Attributes:
        stream: of a deep model (`Stream`), else None.
    """

    def __init__(self, trained: Trained, history: Frame, *, keep: int | None = None) -> None:
        from ssmfin.features.transformer import as_panel

        self.trained = trained
        self.keep = keep
        panel = as_panel(history)
        design = trained.design(panel)
        self.stream = trained.fitted.stream() if hasattr(trained.fitted, "stream") else None  # keeps torch away
        self._rows = panel.frame
        if keep is not None:
            if keep < 1:
                raise InputError(f"keep is {keep}; use at least 1 row of each id, or None for all.")
            self._rows = self._newest(panel.frame)
            self._check_kept(design)
        if self.stream is not None:
            self.stream.extend(design)

    def __repr__(self) -> str:
        seen = f"{len(self._rows):,} rows of {_ids(len(self.trained.ids))} kept, until {_date(self._rows['ds'].max())}"
        return f"Live(keep={self.keep}; {seen}; of {self.trained!r})"

    def update(self, rows: Frame) -> pl.DataFrame:
        """Read new rows, one or more of some ids, and forecast from each.

        Args:
            rows: with the columns of the history, later than what was seen of their ids.
        Returns:
            unique_id, ds, horizon, y_hat; nothing for a row with an undefined feature, which a deep model skips too.
        Raises:
            InputError: no frame, a column is missing, an id is new, or a row is not later. Nothing has changed then.
        """
        new = self._checked(rows)
        joined = pl.concat([self._rows, new]).sort(KEYS)
        design = self.trained.design(Panel(joined))
        fresh = joined.join(new.select(KEYS).with_columns(fresh=True), on=KEYS, how="left", maintain_order="left")
        origins = np.flatnonzero(fresh["fresh"].fill_null(False).to_numpy() & design.complete)
        origins = origins[np.lexsort((design.id_index[origins], design.date_index[origins]))]
        y_hat = self._forecast(design, origins)
        self._rows = joined if self.keep is None else self._newest(joined)
        return self.trained._framed(design, origins, y_hat)

    def _forecast(self, design: Design, rows: np.ndarray) -> np.ndarray:
        if self.stream is None:
            return self.trained.fitted.predict(design, rows)
        parts = [np.empty((0, len(design.target.horizons)))]
        for date in np.unique(design.date_index[rows]):
            own = rows[design.date_index[rows] == date]
            names = [design.ids[k] for k in design.id_index[own]]
            parts.append(self.stream.step(names, design.features[own], design.lag_means[own], ds=design.dates[date]))
        return np.concatenate(parts)

    def _newest(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.group_by("unique_id", maintain_order=True).tail(self.keep or 1)

    def _check_kept(self, design: Design) -> None:
        """The newest row of each id must read the same from the kept rows as from all."""
        kept = self.trained.design(Panel(self._rows))
        whole_rows, kept_rows = design.starts[1:] - 1, kept.starts[1:] - 1
        pairs = [
            (design.features[whole_rows], kept.features[kept_rows], "its features"),
            (design.lag_means[whole_rows], kept.lag_means[kept_rows], "the means over 1, 5, 22 rows"),
        ]
        if self.stream is None and design.complete[whole_rows].all() and kept.complete[kept_rows].all():
            predict = self.trained.fitted.predict
            pairs.append((predict(design, whole_rows), predict(kept, kept_rows), "its forecast"))
        for whole, part, what in pairs:
            different = ~np.isclose(part, whole, rtol=CLOSE, atol=0.0, equal_nan=True)
            if different.any():
                k = int(np.argwhere(different)[0, 0])
                raise InputError(
                    f"keep is {self.keep}, too few rows: from them alone the newest row of {design.ids[k]!r} does not "
                    f"have {what}; keep more, or None for all."
                )

    def _checked(self, rows: Frame) -> pl.DataFrame:
        frame = rows.frame if isinstance(rows, Panel) else rows
        schema = self._rows.schema
        if not isinstance(frame, pl.DataFrame):
            pandas = sys.modules.get("pandas")  # without which nothing can be one of its frames
            if pandas is None or not isinstance(frame, pandas.DataFrame):
                raise InputError(
                    f"the new rows are a {type(frame).__name__}, no frame; give a polars or pandas frame of new rows "
                    f"with columns {', '.join(schema)}."
                )
            frame = pl.from_pandas(frame)
        missing = [name for name in schema if name not in frame.columns]
        if missing:
            raise InputError(f"the new rows lack column {missing[0]!r}; {nearest(missing[0], frame.columns)}.")
        try:
            frame = frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        except pl.exceptions.PolarsError as error:
            raise InputError(f"the new rows have another type than the history, {error}; give the same.") from None
        last = self._rows.group_by("unique_id").agg(pl.col("ds").max().alias("last"))
        judged = frame.join(last, on="unique_id", how="left", maintain_order="left")
        unknown = judged.filter(pl.col("last").is_null())
        if len(unknown):
            name = str(unknown["unique_id"][0])
            raise InputError(f"id {name!r} is not in the history; {nearest(name, self.trained.ids)}.")
        late = judged.filter((pl.col("ds") <= pl.col("last")) | pl.struct(KEYS).is_duplicated())
        if len(late):
            row = late.row(0, named=True)
            raise InputError(
                f"the row ({row['unique_id']}, {row['ds']}) is not after the last one seen, {row['last']}, or is given "
                "twice; give each row once, in the order of time."
            )
        return frame


def _ids(count: int) -> str:
    return f"{count:,} id{'' if count == 1 else 's'}"


def _date(moment: Any) -> str:
    """The day, and the time where it is not midnight."""
    day, _, time = str(np.datetime64(moment, "s")).partition("T")
    return day if time == "00:00:00" else f"{day} {time}"
