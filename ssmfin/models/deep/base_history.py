"""Owns what a stream remembers for its base: the last rows of each id, for one that is estimated anew at each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ssmfin.models.baselines.rolling_ridge import FittedRollingRidge
from ssmfin.models.deep.base import Base, rows_alone
from ssmfin.models.interface import Design, FloatArray


class BaseHistory:
    """The last rows of the ids of a stream, each at its place 0, 1, ... there; none where the base is frozen.

    A rolling base sees the rows that a stream was given: an id's rows that were left out are not counted in its labels.
    """

    def __init__(self, base: Base, like: Design, ids: Sequence[str]) -> None:
        """Args: like: a design without rows, of the model's target, ids and features."""
        self.base = base
        self._like = like
        self._known = np.array([like.ids.index(name) for name in ids], dtype=np.int64)
        rolling = base.fitted if isinstance(base.fitted, FittedRollingRidge) else None
        self.length = 0 if rolling is None else rolling.rows + max(like.target.horizons) + rolling.wait
        self._features = np.zeros((len(ids), self.length, like.features.shape[1]))  # the last rows at the end
        self._observed = np.zeros((len(ids), self.length))
        self._count = np.zeros(len(ids), dtype=np.int64)

    def forecast(self, places: np.ndarray, features: FloatArray, lag_means: FloatArray) -> FloatArray:
        """(n, H) of a new row of some ids, (n, F) and (n, 3), which `put` then keeps."""
        order = np.argsort(self._known[places])
        known = self._known[places[order]]
        x, lags = features[order], lag_means[order]
        last = np.arange(len(places))
        if self.length:
            counts = self._count[places[order]]
            x = np.concatenate([self._with(self._features, *of_id) for of_id in zip(places[order], x, strict=True)])
            seen = [self._with(self._observed, *of_id) for of_id in zip(places[order], lags[:, 0], strict=True)]
            lags = np.repeat(np.concatenate(seen)[:, None], 3, axis=1)  # a ridge reads no means: these only are finite
            known, last = np.repeat(known, counts + 1), np.cumsum(counts + 1) - 1
        forecast = np.empty((len(places), len(self._like.target.horizons)))
        forecast[order] = self.base.forecast(rows_alone(self._like, known, x, lags), last)
        return forecast

    def put(self, places: np.ndarray, features: FloatArray, lag_means: FloatArray) -> None:
        """Keep a new row of some ids."""
        if self.length:
            for place, row, newest in zip(places, features, lag_means[:, 0], strict=True):
                self.extend(int(place), row[None], newest[None])

    def extend(self, place: int, features: FloatArray, observed: FloatArray) -> None:
        """Keep many rows of one id: (n, F), NaN where undefined, and (n,) the target at each row."""
        n = min(len(observed), self.length)
        if n:
            for kept, new in ((self._features[place], features), (self._observed[place], observed)):
                kept[: self.length - n] = kept[n:].copy()
                kept[self.length - n :] = new[-n:]
            self._count[place] = min(self._count[place] + n, self.length)

    def start_anew(self, places: np.ndarray) -> None:
        """Forget the rows of some places."""
        self._count[places] = 0

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What is remembered, by name; the tensors share its memory."""
        if self.length:
            yield "base.features", torch.from_numpy(self._features)
            yield "base.observed", torch.from_numpy(self._observed)
            yield "base.count", torch.from_numpy(self._count)

    def _with(self, kept: FloatArray, place: int, new: FloatArray) -> FloatArray:
        """What is kept of one id, and the new row."""
        return np.concatenate([kept[place, self.length - self._count[place] :], np.asarray(new)[None]])
