"""Owns streams: forecasts from one new row of each id at a time, in constant memory and time. Imports torch.

A stream equals the batch: after the same rows it gives what `FittedDeep.predict` gives, to rounding. A row is all that
is known at its origin: the study's features, and the means of the target over the last 1, 5, 22 rows, for the base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssmfin.errors import InputError, nearest
from ssmfin.models.deep.base import rows_alone
from ssmfin.models.deep.sequences import calendar, days, input_rows
from ssmfin.models.deep.skeleton import Inputs, Network, NetworkState
from ssmfin.models.deep.training import one_thread
from ssmfin.models.interface import Design, FloatArray

if TYPE_CHECKING:
    from ssmfin.models.deep.prediction import FittedDeep

FORMAT = "ssmfin-stream-1"
CHUNK = 1024  # rows of a history at once
NEVER = np.iinfo(np.int64).min


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
        # of each group: its ids' places in the stream, and a state of all of them for each network
        self._places: list[np.ndarray] = []
        self._states: list[list[NetworkState]] = []
        self._last = np.full(len(ids), NEVER)  # time of the last row, in microseconds since 1970
        for group in fitted.groups:
            places = [place for place, name in enumerate(ids) if group.ids is None or name in group.ids]
            self._places.append(np.array(places, dtype=np.int64))
            self._states.append([network.initial_state(len(places)) for network in group.networks])
            for network in group.networks:
                for block in network.blocks:
                    block.freeze()

    @property
    def _device(self) -> torch.device:
        return next(self.fitted.network.parameters()).device

    def step(
        self,
        ids: Sequence[str],
        features: FloatArray,
        lag_means: FloatArray,
        *,
        ds: np.datetime64 | str | None = None,
    ) -> FloatArray:
        """Read one new row of some ids and forecast from it.

        Args:
            ids: (n,) some of the stream's, each once.
            features: (n, F) in the order of `fitted.feature_names`.
            lag_means: (n, 3) means of the target over the last 1, 5, 22 rows, original scale.
            ds: date or time of the rows, after that of the ids' last ones; needed for `calendar` and `sessions: reset`.
        Returns:
            (n, H) forecasts of the mean on the original scale.
        Raises:
            InputError: a value is not finite, a row is not newer, an id or a shape is wrong. No state has changed then.
        """
        places = self._checked_places(ids)
        features, lag_means = np.asarray(features, dtype=np.float64), np.asarray(lag_means, dtype=np.float64)
        self._check(ids, "features", features, len(self.fitted.feature_names))
        self._check(ids, "lag_means", lag_means, 3)
        when = self._checked_time(ids, places, ds)
        known = np.array([self.fitted.ids.index(name) for name in ids])
        order = np.argsort(known)
        stamp = np.datetime64(0 if when == NEVER else when, "us")
        alone = rows_alone(self._like(), known[order], features[order], lag_means[order], stamp)
        base = np.empty((len(ids), len(alone.target.horizons)))
        base[order] = self.fitted.base.forecast(alone, np.arange(len(ids)))
        forecasts = self._advance(places, known, features, base, when)
        if not np.isfinite(forecasts).all():
            bad = ids[int(np.argwhere(~np.isfinite(forecasts))[0, 0])]
            raise InputError(f"the forecast for {bad!r} is not finite; look at its features and lag means.")
        self._commit(places, when)
        return forecasts

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
            for networks, (which, one), place in self._of_each_place():
                rows = rows_of.get(place, np.empty(0, dtype=np.int64))
                for begin in range(0, len(rows), CHUNK):
                    index = rows[None, begin : begin + CHUNK]
                    inputs = self.fitted.reader.inputs(design, index).to(self._device)
                    if inputs.reset is not None and begin == 0:
                        inputs.reset[0, 0] = self._new_day(place, int(stamps[rows[0]]))
                    for member, network in enumerate(networks):
                        state = self._states[which][member]
                        _, after = network(inputs, _taken(state, one))
                        _put(state, one, after)
        for place, rows in rows_of.items():
            if len(rows):
                self._last[place] = stamps[rows[-1]]

    def reset(self, ids: Sequence[str] | None = None) -> None:
        """Start some ids anew (default: all), as if their next row were their first: at a session's start, say."""
        places = np.arange(len(self.ids)) if ids is None else self._checked_places(ids)
        for own, states in zip(self._places, self._states, strict=True):
            inside = torch.from_numpy(np.flatnonzero(np.isin(own, places))).to(self._device)
            for state in states:
                _put(state, inside, tuple(tuple(part[inside] * 0 for part in block) for block in state))

    def save(self, path: str | Path) -> None:
        """Write the states (safetensors), with what they belong to in the file's metadata."""
        from safetensors.torch import save_file

        tensors = dict(self._tensors())
        tensors["last"] = torch.from_numpy(self._last)
        about = {"format": FORMAT, "ids": json.dumps(self.ids), "weights": self._fingerprint()}
        save_file({name: part.detach().cpu().contiguous() for name, part in tensors.items()}, str(path), about)

    @classmethod
    def restore(cls, fitted: FittedDeep, path: str | Path) -> Stream:
        """The stream that was saved, for the same fitted model.

        Raises:
            InputError: the file is no stream's, or belongs to other weights.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read as a saved stream, {error}; save it with Stream.save.") from None
        if about.get("format") != FORMAT:
            raise InputError(f"{path} is no saved stream, format {about.get('format')!r}; save it with Stream.save.")
        stream = cls(fitted, tuple(json.loads(about["ids"])))
        if about["weights"] != stream._fingerprint():
            raise InputError(f"{path} belongs to a model with other weights; restore it with the one that saved it.")
        for name, part in stream._tensors():
            part.copy_(tensors[name])
        stream._last[:] = tensors["last"].numpy()
        return stream

    def _advance(
        self, places: np.ndarray, known: np.ndarray, features: FloatArray, base: FloatArray, when: int
    ) -> FloatArray:
        """Forecasts (n, H), leaving the new states in `self._after` for `_commit`."""
        fitted = self.fitted
        corrections = np.zeros((fitted.forecaster.ensemble, *base.shape))
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
            for which, (group, own) in enumerate(zip(fitted.groups, self._places, strict=True)):
                mine = np.flatnonzero(np.isin(places, own))
                if not len(mine):
                    continue
                inside = torch.from_numpy(np.searchsorted(own, places[mine])).to(self._device)
                part = inputs.pick(torch.from_numpy(mine).to(self._device))
                keep = torch.from_numpy(~fresh[mine]).to(self._device)
                for member, network in enumerate(group.networks):
                    state = _taken(self._states[which][member], inside)
                    if fresh.any():
                        state = tuple(
                            tuple(torch.where(keep.view(-1, *[1] * (x.ndim - 1)), x, 0.0) for x in block)
                            for block in state
                        )
                    raw, after = network.step(part, state)
                    numbers_of = raw.double().cpu().numpy() * group.credibility[:, None]
                    corrections[member, mine] = group.head.mean(numbers_of)
                    self._after.append((which, member, inside, after))
        several, _ = fitted._corrected(base, corrections)
        return np.asarray(several.mean(axis=0) if len(several) > 1 else several[0])

    def _commit(self, places: np.ndarray, when: int) -> None:
        for which, member, inside, after in self._after:
            _put(self._states[which][member], inside, after)
        if when != NEVER:
            self._last[places] = when

    def _like(self) -> Design:
        """A design without rows, of the model's target and ids."""
        fitted = self.fitted
        nothing, H = np.empty(0, dtype=np.int64), len(fitted.target.horizons)
        return Design(
            target=fitted.target,
            ids=fitted.ids,
            dates=np.empty(0, dtype="datetime64[us]"),
            id_index=nothing,
            date_index=nothing,
            starts=np.zeros(len(fitted.ids) + 1, dtype=np.int64),
            observed=np.empty(0),
            lag_means=np.empty((0, 3)),
            features=np.empty((0, len(fitted.feature_names))),
            feature_names=fitted.feature_names,
            labels=np.empty((0, H)),
            label_known=np.empty((0, H), dtype=np.int64),
            columns={},
        )

    def _of_each_place(self) -> Iterator[tuple[list[Network], tuple[int, torch.Tensor], int]]:
        for which, (group, own) in enumerate(zip(self.fitted.groups, self._places, strict=True)):
            for inside, place in enumerate(own):
                yield group.networks, (which, torch.tensor([inside], device=self._device)), int(place)

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

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for which, states in enumerate(self._states):
            for member, state in enumerate(states):
                for number, block in enumerate(state):
                    for part, tensor in enumerate(block):
                        yield f"state.{which}.{member}.{number}.{part}", tensor

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for group in self.fitted.groups:
            for network in group.networks:
                for name, value in sorted(network.state_dict().items()):
                    digest.update(name.encode())
                    digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _taken(state: NetworkState, which: torch.Tensor) -> NetworkState:
    return tuple(tuple(part[which] for part in block) for block in state)


def _put(state: NetworkState, which: torch.Tensor, after: NetworkState) -> None:
    for block, new in zip(state, after, strict=True):
        for part, value in zip(block, new, strict=True):
            part[which] = value


def _day(when: int) -> int:
    return int(days(np.array(when).astype("datetime64[us]")))


def _not_newer(name: str, when: Any, last: Any) -> str:
    return (
        f"the row of {name!r} at {np.datetime64(int(when), 'us')} is not newer than its last one, at "
        f"{np.datetime64(int(last), 'us')}; give rows in the order of time, each once."
    )
