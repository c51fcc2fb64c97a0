"""Owns Live: a fitted model that reads new rows as they come and forecasts from each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.recalibration import Recalibration
from ssmfin.live.recalibrating import LiveRecalibration
from ssmfin.models.interface import Design, Forecast

if TYPE_CHECKING:
    from ssmfin.live.trained import Frame, Trained

KEYS = ("unique_id", "ds")
CLOSE = 1e-9  # relative; sums over a shorter history round differently


class Live:
    """A model that lives row by row.

        live = sf.fit(sf.S4D(), panel, target="rv").live(panel, keep=64)
        live.update(today)                       # the new rows of some ids -> their forecasts

    A deep model reads each row once, through its stream; another one forecasts from the rows that are kept.

    Attributes:
        stream: of a deep model (`Stream`), else None.
    """

    def __init__(
        self,
        trained: Trained,
        history: Frame,
        *,
        keep: int | None = None,
        recalibrate: Recalibration | Mapping[str, float] | None = None,
    ) -> None:
        from ssmfin.features.transformer import as_panel

        self.trained = trained
        self.keep = keep
        panel = trained.narrowed(as_panel(history))
        design = trained.design(panel)
        self.stream = trained.fitted.stream() if hasattr(trained.fitted, "stream") else None  # keeps torch away
        self._rows = panel.frame
        self._late = "known_at" in panel.frame.columns and bool((panel.frame["known_at"] > panel.frame["ds"]).any())
        if keep is not None:
            if keep < 1:
                raise InputError(f"keep is {keep}; use at least 1 row of each id, or None for all.")
            self._rows = self._newest(panel.frame)
            self._check_kept(design)
        if self.stream is not None:
            self.stream.extend(design)
        self._learning = None if recalibrate is None else self._recalibration(design, recalibrate)

    def __repr__(self) -> str:
        rows = f"{len(self._rows):,} rows of {ids_counted(len(self.trained.ids))} kept"
        return f"Live(keep={self.keep}; {rows}, until {day_of(self._rows['ds'].max())}; of {self.trained!r})"

    def update(self, rows: Frame) -> pl.DataFrame:
        """Read new rows, one or more of some ids, and forecast from each.

        Ids need not have a row on every date: calendars differ, and a row can be left out for good. Time is counted in
        rows of an id. One that has none today keeps its state as it is, a deep model's and its features' alike, and its
        next row is one step on, however many dates lie between; forecasts are h of its own rows ahead. A row that
        exists and is left out is as if its day had not been: lags reach one row further back, and that is not made up
        for later, for a row that is not later than the last one seen of its id is refused.

        Args:
            rows: later than what was seen of their ids, with the columns that are read (`trained.columns_read`);
                others may be there or not.
        Returns:
            As `Trained.forecast`; nothing for a row with an undefined feature, which a deep model skips too.
        Raises:
            InputError: no frame, a column is missing, an id is new, a row is not later, or its target is no number.
                Nothing has changed then.
        """
        new = self._checked(rows)
        joined = pl.concat([self._rows, new]).sort(KEYS)
        design = self.trained.design(Panel(joined))
        fresh = joined.join(new.select(KEYS).with_columns(fresh=True), on=KEYS, how="left", maintain_order="left")
        origins = np.flatnonzero(fresh["fresh"].fill_null(False).to_numpy() & design.complete)
        origins = origins[np.lexsort((design.id_index[origins], design.date_index[origins]))]
        forecasts = list(self._forecasts(design, origins))
        if self._learning is not None:
            forecasts = self._recalibrated(
                self._learning, design, np.flatnonzero(fresh["fresh"].fill_null(False)), forecasts
            )
        frames = [self.trained.framed(design, own, said) for own, said in forecasts]
        self._rows = joined if self.keep is None else self._newest(joined)
        return pl.concat(frames)

    def _recalibration(self, design: Design, how: Recalibration | Mapping[str, float]) -> LiveRecalibration:
        if self._late:
            raise InputError(
                "recalibrate learns from a row on its date, but rows of the history are known later; leave it out."
            )
        levels = self.trained.fitted.forecast(design, np.empty(0, dtype=np.int64)).levels
        if len(levels) < 2:
            raise InputError(
                f"recalibrate shifts quantiles, and {self.trained.forecaster.kind} gives {len(levels) or 'none'}; fit "
                "a model with head='quantiles', 'lognormal' or 'gaussian'."
            )
        return LiveRecalibration(self.trained.target, levels, Recalibration.of(how))

    def _recalibrated(
        self,
        learning: LiveRecalibration,
        design: Design,
        new: np.ndarray,
        forecasts: list[tuple[np.ndarray, Forecast]],
    ) -> list[tuple[np.ndarray, Forecast]]:
        """The forecasts with quantiles that know the outcomes up to their rows. `new`: rows that are seen first."""
        at = {int(row): (part, i) for part, (rows, _) in enumerate(forecasts) for i, row in enumerate(rows)}
        changed = [np.array(said.quantiles) for _, said in forecasts]
        for row in new[np.lexsort((design.id_index[new], design.date_index[new]))]:
            name = design.ids[design.id_index[row]]
            learning.see(name, float(design.observed[row]))
            if int(row) in at:
                part, i = at[int(row)]
                changed[part][i] = learning.say(name, changed[part][i])
        return [(rows, replace(said, quantiles=q)) for (rows, said), q in zip(forecasts, changed, strict=True)]

    def _forecasts(self, design: Design, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Forecast]]:
        """Some of the rows and what is forecast from them, date by date where there is a stream."""
        if self.stream is None or not len(rows):
            yield rows, self.trained.fitted.forecast(design, rows)
            return
        for date in np.unique(design.date_index[rows]):
            own = rows[design.date_index[rows] == date]
            names = [design.ids[k] for k in design.id_index[own]]
            yield own, self.stream.read(names, design.features[own], design.lag_means[own], ds=design.dates[date])

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
        if "known_at" in schema and "known_at" not in frame.columns and "ds" in frame.columns and not self._late:
            frame = frame.with_columns(known_at=pl.col("ds"))
        for name in schema:
            if name in (*KEYS, "known_at") and name not in frame.columns:
                raise InputError(f"the new rows lack column {name!r}; {nearest(name, frame.columns)}.")
        self.trained.require_columns(frame.columns, "the new rows lack")
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
        target = self.trained.target
        value = pl.col(target.column).cast(pl.Float64).fill_null(float("nan"))
        wrong = frame.filter(~value.is_finite() | (value <= 0 if target.transform == "log" else pl.lit(False)))
        if len(wrong):
            row = wrong.row(0, named=True)
            sort = "finite and positive" if target.transform == "log" else "finite"
            raise InputError(
                f"the row ({row['unique_id']}, {row['ds']}) has {target.column} = {row[target.column]}, which is not "
                f"{sort}; repair the row and give it again, or leave it out for good: what comes later may be given "
                "without it. Nothing has changed."
            )
        return frame


def ids_counted(count: int) -> str:
    return f"{count:,} id{'' if count == 1 else 's'}"


def day_of(moment: Any) -> str:
    """The day, and the time where it is not midnight."""
    day, _, time = str(np.datetime64(moment, "s")).partition("T")
    return day if time == "00:00:00" else f"{day} {time}"
