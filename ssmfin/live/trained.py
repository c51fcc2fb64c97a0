"""Owns a fitted model and all that turns rows of a panel into what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.columns import forecast_columns
from ssmfin.evaluation.design import build_design, cut
from ssmfin.evaluation.recalibration import Recalibration
from ssmfin.features.spec import FeatureSpec
from ssmfin.live.updating import KEYS, Live, day_of, ids_counted
from ssmfin.models.external import SklearnForecaster
from ssmfin.models.interface import Design, Fitted, Forecast, Forecaster, Target

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd

    from ssmfin.features.transformer import PanelTransformer

    Frame: TypeAlias = Panel | pl.DataFrame | pd.DataFrame


@dataclass(frozen=True)
class Trained:
    """A fitted model and all that turns rows of a panel into what it reads.

    Attributes:
        forecaster: its configuration. fitted: what was learned; a deep model's can be saved and streamed.
        target: what is forecast. features: name -> spec. learned: the transformers of features that learn.
        ids: those of the training panel. cutoff: its last date. rows: that a label was learned from.
        columns: value columns of the training panel.
    """

    forecaster: Forecaster
    fitted: Fitted
    target: Target
    features: Mapping[str, FeatureSpec]
    learned: Mapping[str, PanelTransformer]
    ids: tuple[str, ...]
    cutoff: np.datetime64
    rows: int = 0
    columns: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [f"{self._what()} for {self.target.column} at horizons {', '.join(map(str, self.target.horizons))}"]
        parts.append(f"fitted on {self.rows:,} rows of {ids_counted(len(self.ids))} until {day_of(self.cutoff)}")
        outcome = getattr(self.fitted, "outcome", None)
        return f"Trained({'; '.join([*parts, *([f'training: {outcome}'] if outcome else [])])})"

    @property
    def stayed_at_base(self) -> bool:
        """Whether the training of a deep model learned nothing: early stopping kept the start, whose correction is
        zero, so that the forecasts are those of its base and `sf.memory` shows starting values.
        """
        return bool(getattr(self.fitted, "stayed_at_base", False))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before use, a sentence each: that the training of a deep model learned nothing, and why."""
        if not self.stayed_at_base:
            return ()
        return (f"{self.forecaster.kind} {self.fitted.outcome}: its forecasts are those of {self.fitted.base_name}.",)  # type: ignore[attr-defined]

    def _what(self) -> str:
        base = getattr(self.fitted, "base_name", None)
        if isinstance(self.forecaster, SklearnForecaster):
            return type(self.forecaster.estimator).__name__
        return self.forecaster.kind if base is None else f"{self.forecaster.kind}, correcting {base},"

    def design(self, panel: Frame) -> Design:
        """The rows of a panel as the model reads them: labels blank, and of its columns `columns_read` alone.

        Raises:
            InputError: the panel is wrong, lacks a column, or its ids are not those of the training.
        """
        from ssmfin.features.transformer import as_panel

        given = self.narrowed(as_panel(panel))
        if given.ids != self.ids:
            odd = sorted(set(given.ids) ^ set(self.ids))
            raise InputError(
                f"the panel's ids are not those of the training, {odd[0]!r} is in one of them alone; give the same "
                f"{len(self.ids)} ids."
            )
        design = build_design(given, self.target, self.features, learned=self.learned)
        return cut(replace(design, usable=design.complete), len(given.dates) - 1, labels_until=None)[0]

    @cached_property
    def columns_read(self) -> dict[str, str]:
        """Each value column that forecasts rest on, and what reads it; of the whole panel where a part does not say."""
        log = self.target.transform == "log"
        readers: list[tuple[str, tuple[str, ...] | None]] = [("the target", (self.target.column,))]
        for name, spec in self.features.items():
            transformer = self.learned.get(name) or spec.transformer(column=self.target.column, log=log)
            readers.append((f"feature {name!r}", transformer.columns_read()))
        readers.append((self.forecaster.kind, self.forecaster.columns_read()))
        found: dict[str, str] = {}
        for reader, names in readers:
            found |= {name: reader for name in (self.columns if names is None else names) if name not in found}
        return found

    def forecast(self, panel: Frame) -> pl.DataFrame:
        """All that the model says from every row at or after the moment of fitting.

        Of the training panel itself these are the forecasts from its last date. Rows with an undefined feature have
        none.

        Returns:
            unique_id, ds (the origin), horizon, y_hat and, of a model whose head knows more, the columns that it has in
            predictions.parquet: q05, q25, .. or event, event_threshold.
        """
        design = self.design(panel)
        rows = np.flatnonzero((design.dates[design.date_index] >= self.cutoff) & design.complete)
        return self.framed(design, rows, self.fitted.forecast(design, rows))

    def live(
        self,
        history: Frame,
        *,
        keep: int | None = None,
        recalibrate: Recalibration | Mapping[str, float] | None = None,
    ) -> Live:
        """Read a history, then forecast from new rows as they come.

        Args:
            history: rows up to now, those of the training as a rule.
            keep: rows of each id that stay in memory, from which features are computed; None: all, which every feature
                allows. A number makes memory and time constant.
            recalibrate: let quantiles learn from their own misses, such as {"rate": 0.05, "bound": 1}
                (`evaluation.recalibration`); None: they stay as the model gives them.
        Raises:
            InputError: with `keep` rows a feature (or a model that is no stream) has not the value it has with all; or
                there are no quantiles to recalibrate.
        """
        return Live(self, history, keep=keep, recalibrate=recalibrate)

    def narrowed(self, panel: Panel) -> Panel:
        """The keys, `known_at` where it is there, and the columns that are read."""
        self.require_columns(panel.frame.columns, "the panel lacks")
        known_at = [name for name in panel.frame.columns if name == "known_at"]
        return Panel(panel.frame.select(*KEYS, *known_at, *self.columns_read), panel.notes)

    def require_columns(self, given: Sequence[str], lacks: str) -> None:
        """Refuse columns among which one that is read is missing.

        Args:
            lacks: who lacks it, to begin the message with.
        Raises:
            InputError: names the first of them, and what reads it.
        """
        missing = [name for name in self.columns_read if name not in given]
        if missing:
            others = [name for name in given if name not in (*KEYS, "known_at")]
            raise InputError(
                f"{lacks} column {missing[0]!r}, which {self.columns_read[missing[0]]} reads; "
                f"{nearest(missing[0], others)}."
            )

    def framed(self, design: Design, rows: np.ndarray, forecast: Forecast) -> pl.DataFrame:
        horizons = np.array(self.target.horizons, dtype=np.int32)
        repeat = np.repeat(rows, len(horizons))
        return pl.DataFrame(
            {
                "unique_id": pl.Series([design.ids[k] for k in design.id_index[repeat]], dtype=pl.String),
                "ds": design.dates[design.date_index[repeat]],
                "horizon": np.tile(horizons, len(rows)),
                **forecast_columns(forecast),
            }
        )
