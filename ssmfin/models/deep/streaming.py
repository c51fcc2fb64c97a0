"""Owns streams: forecasts from one new row of each id at a time, in constant memory and time. Imports torch.

A stream equals the batch: after the same rows it gives what `FittedDeep.predict` gives, to rounding. A row is all that
is known at its origin: the study's features, and the means of the target over the last 1, 5, 22 rows, for the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssmfin.errors import InputError, nearest
from ssmfin.models.deep.sequences import calendar, days, input_rows
from ssmfin.models.deep.skeleton import Inputs, NetworkState
from ssmfin.models.deep.stream_states import StreamStates, read_states
from ssmfin.models.deep.training import one_thread
from ssmfin.models.interface import Design, FloatArray, Forecast

if TYPE_CHECKING:
    from ssmfin.models.deep.prediction import FittedDeep, Group, Numbers

CHUNK = 1024  # rows of a history at once
NEVER = np.iinfo(np.int64).min
NO_ROWS = np.empty(0, dtype=np.int64)


class Stream:
    """The states of some ids after their last rows.

        stream = fitted.stream(["sp500"])
        stream.extend(history)
        stream.step(["sp500"], features, lag_means, ds=today)

    Raises:
        InputError: an id is not one of the model's, or is given twice; or the model's history is limited.
    """

    def __init__(self, fitted: FittedDeep, ids: tuple[str, ...]) -> None:
        if fitted.forecaster.evaluate_length != "all":
            raise InputError(
                f"evaluate_length is {fitted.forecaster.evaluate_length}, but a stream rests on all rows it was given; "
                "fit with evaluate_length: all."
            )
        for name in ids:
            if name not in fitted.ids:
                raise InputError(f"id {name!r} is not one of the model's; {nearest(name, fitted.ids)}.")
        if len(set(ids)) != len(ids) or not ids:
            raise InputError(f"ids is {list(ids)}; name at least one, each once.")
        self.fitted = fitted
        self.ids = ids
        self._states = StreamStates(fitted, ids)
        self._last = np.full(len(ids), NEVER)  # time of the last row, in microseconds since 1970
        self._device = self._states.device
        for group in fitted.groups:
            for network in group.networks:
                for block in network.blocks:
                    block.freeze()

    def step(
        self,
        ids: Sequence[str],
        features: FloatArray,
        lag_means: FloatArray,
        *,
        ds: np.datetime64 | str | None = None,
    ) -> FloatArray:
        """Read one new row of some ids and forecast the mean from it: `read` without quantiles and events.

        Returns:
            (n, H) forecasts of the mean on the original scale.
        """
        return self.read(ids, features, lag_means, ds=ds).mean

    def read(
        self,
        ids: Sequence[str],
        features: FloatArray,
        lag_means: FloatArray,
        *,
        ds: np.datetime64 | str | None = None,
    ) -> Forecast:
        """Read one new row of some ids and forecast from it all that the head knows, as `FittedDeep.forecast` does.

        Args:
            ids: (n,) some of the stream's, each once.
            features: (n, F) in the order of `fitted.feature_names`.
            lag_means: (n, 3) means of the target over the last 1, 5, 22 rows, original scale.
            ds: date or time of the rows, after that of the ids' last ones; needed for `calendar` and `sessions: reset`.
        Raises:
            InputError: a value is not finite, a row is not newer, an id or a shape is wrong. No state has changed then.
        """
        places = self._checked_places(ids)
        features, lag_means = np.asarray(features, dtype=np.float64), np.asarray(lag_means, dtype=np.float64)
        self._check(ids, "features", features, len(self.fitted.feature_names))
        self._check(ids, "lag_means", lag_means, 3)
        when = self._checked_time(ids, places, ds)
        known = np.array([self.fitted.ids.index(name) for name in ids])
        base = self._states.base.forecast(places, features, lag_means)
        forecast = self.fitted.read(base, self._advance(places, known, features, when), known)
        for values in (forecast.mean, forecast.quantiles, forecast.event):
            if values is not None and not np.isfinite(values).all():
                bad = ids[int(np.argwhere(~np.isfinite(values))[0, 0])]
                raise InputError(f"the forecast for {bad!r} is not finite; look at its features and lag means.")
        self._states.base.put(places, features, lag_means)
        self._commit(places, when)
        return forecast

    def extend(self, design: Design) -> None:
        """Read a long history, every row of it, without forecasting: as many calls of `step`, but faster.

        Ids of the design that are not in the stream are left out; rows with an undefined feature too, as in the batch.

        Raises:
            InputError: the features are not the model's, or a row is not newer than the id's last one.
        """
        if design.feature_names != self.fitted.feature_names:
            raise InputError(
                f"the history has features {list(design.feature_names)}, the model {list(self.fitted.feature_names)}; "
                "build it with the study's features."
            )
        sequences = input_rows(design)
        rows_of = {
            place: sequences[design.ids.index(name)] for place, name in enumerate(self.ids) if name in design.ids
        }
        stamps = design.dates.astype("datetime64[us]").astype(np.int64)[design.date_index]
        for place, rows in rows_of.items():
            if len(rows) and stamps[rows[0]] <= self._last[place]:
                raise InputError(_not_newer(self.ids[place], stamps[rows[0]], self._last[place]))
        with one_thread(), torch.inference_mode(), self.fitted.autocast(self._device):
            for which, group in enumerate(self.fitted.groups):
                for place in self._states.places[which].tolist():
                    own = rows_of.get(place, NO_ROWS)
                    if len(own):
                        self._extend_one(design, own, which, group, place, int(stamps[own[0]]))
        for place, rows in rows_of.items():
            if len(rows):
                of_id = design.rows_of(design.ids.index(self.ids[place]))
                self._states.base.extend(place, design.features[of_id], design.observed[of_id])
                self._last[place] = stamps[rows[-1]]

    def _extend_one(self, design: Design, rows: np.ndarray, which: int, group: Group, place: int, first: int) -> None:
        """Lead the state of one id, in each network of its group, over `rows`, the first of them at time `first`."""
        one = self._states.inside(which, np.array([place]))
        for begin in range(0, len(rows), CHUNK):
            inputs = self.fitted.reader.inputs(design, rows[None, begin : begin + CHUNK]).to(self._device)
            if inputs.reset is not None and begin == 0:
                inputs.reset[0, 0] = self._new_day(place, first)
            for member, network in enumerate(group.networks):
                _, after = network(inputs, self._states.taken(which, member, one))
                self._states.put(which, member, one, after)

    def reset(self, ids: Sequence[str] | None = None) -> None:
        """Start some ids anew (default: all), as if their next row were their first: at a session's start, say."""
        places = np.arange(len(self.ids)) if ids is None else self._checked_places(ids)
        self._states.start_anew(places)

    def save(self, path: str | Path) -> None:
        """Write the states (safetensors), with what they belong to in the file's metadata."""
        self._states.save(Path(path), self.fitted, self.ids, self._last)

    @classmethod
    def restore(cls, fitted: FittedDeep, path: str | Path) -> Stream:
        """The stream that was saved, for the same fitted model.

        Raises:
            InputError: the file is no stream's, or belongs to other weights.
        """
        ids, tensors = read_states(Path(path), fitted)
        stream = cls(fitted, ids)
        for name, part in stream._states.tensors():
            part.copy_(tensors[name])
        stream._last[:] = tensors["last"].numpy()
        return stream

    def _advance(self, places: np.ndarray, known: np.ndarray, features: FloatArray, when: int) -> Numbers:
        """The networks' numbers, leaving the new states in `self._after` for `_commit`."""
        fitted = self.fitted
        found: Numbers = []
        self._after: list[tuple[int, int, torch.Tensor, NetworkState]] = []
        columns = fitted.reader.scale.apply(fitted.ids, known, features)
        numbers = np.array([fitted.reader.numbers.get(fitted.ids[k], 0) for k in known])
        day = np.full(len(places), 0 if when == NEVER else _day(when))
        fresh = np.array([fitted.reader.daily and self._new_day(place, when) for place in places])
        with one_thread(), torch.inference_mode(), fitted.autocast(self._device):
            inputs = Inputs(
                torch.from_numpy(columns).to(fitted.reader.dtype),
                torch.from_numpy(calendar(day)),
                torch.from_numpy(numbers),
            ).to(self._device)
            for which, (group, own) in enumerate(zip(fitted.groups, self._states.places, strict=True)):
                everyone = len(own) == len(self.ids)  # all ids share networks, as they do by default
                mine = np.arange(len(places)) if everyone else np.flatnonzero(np.isin(places, own))
                if not len(mine):
                    continue
                inside = self._states.inside(which, places[mine])
                part = inputs if everyone else inputs.pick(torch.from_numpy(mine).to(self._device))
                keep = torch.from_numpy(~fresh[mine]).to(self._device)
                several = []
                for member, network in enumerate(group.networks):
                    state = self._states.taken(which, member, inside)
                    if fresh.any():
                        state = tuple(
                            tuple(torch.where(keep.view(-1, *[1] * (x.ndim - 1)), x, 0.0) for x in block)
                            for block in state
                        )
                    raw, after = network.step(part, state)
                    several.append(raw.double().cpu().numpy() * group.credibility[:, None])
                    self._after.append((which, member, inside, after))
                found.append((group, mine, several))
        return found

    def _commit(self, places: np.ndarray, when: int) -> None:
        for which, member, inside, after in self._after:
            self._states.put(which, member, inside, after)
        if when != NEVER:
            self._last[places] = when

    def _new_day(self, place: int, when: int) -> bool:
        last = int(self._last[place])
        return last != NEVER and _day(last) != _day(when)

    def _checked_places(self, ids: Sequence[str]) -> np.ndarray:
        if isinstance(ids, str) or len(set(ids)) != len(ids):
            raise InputError(f"ids is {ids!r}; give a list with each id once.")
        for name in ids:
            if name not in self.ids:
                raise InputError(f"id {name!r} is not in the stream; {nearest(name, self.ids)}.")
        return np.array([self.ids.index(name) for name in ids], dtype=np.int64)

    def _check(self, ids: Sequence[str], what: str, values: FloatArray, columns: int) -> None:
        if values.shape != (len(ids), columns):
            raise InputError(f"{what} has shape {values.shape}; give (ids, columns) = {(len(ids), columns)}.")
        bad = ~np.isfinite(values)
        if what == "lag_means" and self.fitted.base.log:
            bad |= values <= 0
        if bad.any():
            i, j = (int(x) for x in np.argwhere(bad)[0])
            sort = "not finite" if what == "features" else "not finite and positive"
            raise InputError(
                f"{what} of {ids[i]!r} is {sort} in column {j}, {values[i, j]}; leave the row out: no state changed."
            )

    def _checked_time(self, ids: Sequence[str], places: np.ndarray, ds: np.datetime64 | str | None) -> int:
        if ds is None:
            if self.fitted.forecaster.calendar or self.fitted.reader.daily:
                raise InputError("ds is missing; the model reads the calendar or resets each day: give the rows' date.")
            return int(NEVER)
        try:
            when = int(np.datetime64(ds).astype("datetime64[us]").astype(np.int64))
        except (ValueError, TypeError):
            raise InputError(f"ds is {ds!r}; give a date or time, such as '2024-05-31'.") from None
        for name, place in zip(ids, places, strict=True):
            if when <= self._last[place]:
                raise InputError(_not_newer(name, when, self._last[place]))
        return when


def _day(when: int) -> int:
    return int(days(np.array(when).astype("datetime64[us]")))


def _not_newer(name: str, when: Any, last: Any) -> str:
    return (
        f"the row of {name!r} at {np.datetime64(int(when), 'us')} is not newer than its last one, at "
        f"{np.datetime64(int(last), 'us')}; give rows in the order of time, each once."
    )
