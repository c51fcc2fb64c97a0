"""Owns a fitted deep model: forecasts of many rows, by one pass over each id's history. Imports torch.

The histories run from their first rows in chunks of one shape, (ids, CHUNK), with carried states: a matrix product of
another shape may round differently, and so what comes later could change the bits of what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from ssmfin.errors import InputError
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.heads import Head
from ssmfin.models.deep.memory import layer_memories, sensitivity_by_age
from ssmfin.models.deep.monitors import state_norm
from ssmfin.models.deep.sequences import Reader, chunk, input_rows, training_segments
from ssmfin.models.deep.skeleton import Network, NetworkState
from ssmfin.models.deep.training import one_thread
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecast, Memory, Target

if TYPE_CHECKING:
    from ssmfin.models.deep.forecaster import DeepForecaster
    from ssmfin.models.deep.streaming import Stream

CHUNK = 128
WINDOWS_AT_ONCE = 8  # likewise always this many


@dataclass(frozen=True)
class Group:
    """The ids that share networks.

    Attributes:
        ids: names; None: all, those that training never saw too.
        networks: one for each member of the ensemble.
        head: what their numbers mean.
        credibility: (H,) factor of every number: 1 trusts the networks fully.
    """

    ids: frozenset[str] | None
    networks: list[Network]
    head: Head
    credibility: FloatArray

    def members(self, design: Design) -> np.ndarray:
        """Positions of the group's ids in a design."""
        return np.array(
            [k for k, name in enumerate(design.ids) if self.ids is None or name in self.ids], dtype=np.int64
        )


# For each group: which of the rows asked for are its own, and each network's numbers (n, H, P) there.
Numbers: TypeAlias = "list[tuple[Group, np.ndarray, list[FloatArray]]]"

# What a head reads off its numbers at some of the rows asked for.
Reading: TypeAlias = "Callable[[Head, FloatArray, np.ndarray], FloatArray | None]"


class FittedDeep(Fitted):
    """A base, and the networks that correct it. Ids without a network keep their base.

    `event_level`, (K + 1, H), is where the event of head `event` begins, by id; last, for an id that was not there.
    """

    def __init__(
        self,
        *,
        forecaster: DeepForecaster,
        target: Target,
        ids: tuple[str, ...],
        feature_names: tuple[str, ...],
        base: Base,
        reader: Reader,
        groups: list[Group],
        event_level: FloatArray | None,
        notes: dict[str, Any],
    ) -> None:
        self.forecaster = forecaster
        self.target = target
        self.ids = ids
        self.feature_names = feature_names
        self.base = base
        self.reader = reader
        self.groups = groups
        self.event_level = event_level
        self.notes = notes

    @property
    def network(self) -> Network:
        """The first network."""
        return self.groups[0].networks[0]

    @property
    def learned(self) -> tuple[bool, ...]:
        """Of each network, group by group: whether training moved it. Else its correction is exactly zero: early
        stopping kept the start, whose last layer is zero.
        """
        return tuple(
            bool(network.head.weight.any() or network.head.bias.any())
            for group in self.groups
            for network in group.networks
        )

    @property
    def stayed_at_base(self) -> bool:
        """Whether no network learned anything, so that the forecasts are those of the base."""
        return not any(self.learned)

    @property
    def base_name(self) -> str:
        """What is corrected, in words."""
        if self.base.kind == "none":
            return "the mean label"
        return "har" if self.base.kind == "log_har" and not self.base.log else self.base.kind

    @property
    def outcome(self) -> str:
        """What training came to, in words."""
        learned = self.learned
        if not any(learned):
            return f"learned nothing beyond {self.base_name}, {self._why_nothing()}"
        text = f"best epoch {self.notes['best_epoch']:.3g} of {self.notes['epochs']:.3g}"
        if len(learned) > 1:
            text += ", on average"
        stayed = len(learned) - sum(learned)
        return f"{text}; {stayed} of {len(learned)} networks stayed at {self.base_name}" if stayed else text

    def _why_nothing(self) -> str:
        epochs = self.notes.get("epochs", 0)
        if not epochs:
            return "for no epoch was trained"
        if "validation_loss" not in self.notes:
            return "for its correction is exactly zero"
        return f"for no epoch of {epochs:.3g} lowered the validation loss"

    def memory(self, design: Design) -> Memory:
        return Memory(layer_memories(self), sensitivity_by_age(self, design))

    def without_rows(self) -> Design:
        """A design of the model's target, ids and features that has no rows."""
        nothing, H = np.empty(0, dtype=np.int64), len(self.target.horizons)
        return Design(
            target=self.target,
            ids=self.ids,
            dates=np.empty(0, dtype="datetime64[us]"),
            id_index=nothing,
            date_index=nothing,
            starts=np.zeros(len(self.ids) + 1, dtype=np.int64),
            observed=np.empty(0),
            lag_means=np.empty((0, 3)),
            features=np.empty((0, len(self.feature_names))),
            feature_names=self.feature_names,
            labels=np.empty((0, H)),
            label_known=np.empty((0, H), dtype=np.int64),
            columns={},
        )

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return self.forecast(design, rows).mean

    def forecast(self, design: Design, rows: np.ndarray) -> Forecast:
        """The mean, and quantiles at the forecaster's `levels` or the event's probability where the head has them."""
        base, found = self.base.forecast(design, rows), self._raw(design, rows)
        several, refused = self.corrected(base, self._corrections(base, found))
        if not self.base.log:
            self.notes["insanity_filter"] = self.notes.get("insanity_filter", 0) + refused
        if len(several) > 1 and len(base):
            spread = np.std(several, axis=0) / (np.abs(base) if self.base.log else self.base.label_scale)
            self.notes["ensemble_spread"] = float(spread.mean())
        return self._told(several, base, found, self._numbers(design)[rows])

    def read(self, base: FloatArray, found: Numbers, known: np.ndarray) -> Forecast:
        """All that is forecast from a base, (n, H), and the networks' numbers; `known`: (n,) positions in `ids`."""
        several, _ = self.corrected(base, self._corrections(base, found))
        return self._told(several, base, found, known)

    def _told(self, several: FloatArray, base: FloatArray, found: Numbers, known: np.ndarray) -> Forecast:
        """A forecast from every member's mean, (M, n, H)."""
        levels = np.array(self.forecaster.levels)
        quantiles = self._averaged(base, found, lambda head, raw, _: head.quantiles(raw, levels))
        event, threshold = self._event(base, found, known)
        return Forecast(
            mean=np.asarray(several.mean(axis=0) if len(several) > 1 else several[0]),
            levels=() if quantiles is None else self.forecaster.levels,
            quantiles=None if quantiles is None else self.base.on_original_scale(base, quantiles),
            event=event,
            threshold=threshold,
        )

    def _numbers(self, design: Design) -> np.ndarray:
        """(R,) position of each row's id in `ids`; their number for one that training never saw."""
        number = {name: k for k, name in enumerate(self.ids)}
        known = np.array([number.get(name, len(self.ids)) for name in design.ids], dtype=np.int64)
        return np.asarray(known[design.id_index])

    def _event(
        self, base: FloatArray, found: Numbers, known: np.ndarray
    ) -> tuple[FloatArray | None, FloatArray | None]:
        """(n, H) probability of the event, and where it begins, original scale; None where the head knows none."""
        if self.event_level is None:
            return None, None
        threshold = self.event_level[known]
        begins = self.base.residual(threshold, base)
        return self._averaged(base, found, lambda head, raw, at: head.event_probability(raw, begins[at])), threshold

    def predict_quantiles(self, design: Design, rows: np.ndarray, levels: Sequence[float]) -> FloatArray | None:
        """(n, H, Q) quantiles on the original scale, increasing in the level; None where the head has none.

        Those of an ensemble are averaged (Vincent's way: the average of quantile functions is one).

        Raises:
            InputError: a level is not between 0 and 1.
        """
        asked = np.asarray(levels, dtype=np.float64)
        if not ((asked > 0) & (asked < 1)).all():
            raise InputError(f"levels is {list(levels)}; use numbers between 0 and 1.")
        base = self.base.forecast(design, rows)
        found = self._averaged(base, self._raw(design, rows), lambda head, raw, _: head.quantiles(raw, asked))
        return None if found is None else self.base.on_original_scale(base, found)

    def predict_event(self, design: Design, rows: np.ndarray) -> FloatArray | None:
        """(n, H) probability that the label exceeds the id's threshold; None where the head has none."""
        base = self.base.forecast(design, rows)
        return self._event(base, self._raw(design, rows), self._numbers(design)[rows])[0]

    def corrections(self, design: Design, rows: np.ndarray) -> FloatArray:
        """g of every member of the ensemble, (M, n, H): zero where an id has no network."""
        return self._corrections(np.empty((len(rows), len(design.target.horizons))), self._raw(design, rows))

    def _corrections(self, base: FloatArray, found: Numbers) -> FloatArray:
        out = np.zeros((self.forecaster.ensemble, *base.shape))
        for group, asked, raw in found:
            for member, values in enumerate(raw):
                out[member, asked] = group.head.mean(values)
        return out

    def stream(self, ids: Sequence[str] | None = None) -> Stream:
        """Forecasts from one row at a time; `ids` default to those of the training."""
        from ssmfin.models.deep.streaming import Stream

        return Stream(self, self.ids if ids is None else tuple(ids))

    def save(self, folder: str | Path) -> None:
        """Write weights.safetensors and config.json, from which `DeepForecaster.load` restores all of this."""
        from ssmfin.models.deep.weights import save_fitted

        save_fitted(self, Path(folder))

    def corrected(self, base: FloatArray, corrections: FloatArray) -> tuple[FloatArray, int]:
        """(M, n, H) forecasts of every member from `base`, (n, H), and how many corrections were refused."""
        found = [self.base.corrected(base, g) for g in corrections]
        return np.stack([forecast for forecast, _ in found]), sum(refused for _, refused in found)

    def _averaged(self, base: FloatArray, found: Numbers, read: Reading) -> FloatArray | None:
        zero = np.zeros((*base.shape, 1 + self.groups[0].head.extra))
        start = read(self.groups[0].head, zero, np.arange(len(base)))  # an id without a network: as untrained
        if start is None:
            return None
        out = np.array(start)
        for group, asked, raw in found:
            several = [answer for values in raw if (answer := read(group.head, values, asked)) is not None]
            out[asked] = np.mean(several, axis=0)
        return out

    def _raw(self, design: Design, rows: np.ndarray) -> Numbers:
        """For each group: which of `rows` are its own, and each network's numbers (n, H, P), shrunk."""
        sequences = input_rows(design)
        found = []
        for group in self.groups:
            members = group.members(design)
            asked = np.flatnonzero(np.isin(design.id_index[rows], members))
            if len(asked):
                own = [sequences[k] for k in members]
                raw = [self._history(network, design, own, rows[asked]) for network in group.networks]
                found.append((group, asked, [values * group.credibility[:, None] for values in raw]))
        return found

    def _history(self, network: Network, design: Design, sequences: list[np.ndarray], rows: np.ndarray) -> FloatArray:
        """(n, H, P) numbers of one network at `rows`."""
        device = next(network.parameters()).device
        H = len(design.target.horizons)
        answers = np.full((design.rows, H, len(network.limits)), np.nan)
        with one_thread(), torch.inference_mode(), self.autocast(device):
            if self.forecaster.evaluate_length == "all":
                state: NetworkState | None = None
                needed = max(int(np.searchsorted(own, rows[np.isin(rows, own)].max(initial=-1))) for own in sequences)
                for number in range(needed // CHUNK + 1):
                    index = chunk(sequences, number, CHUNK)
                    raw, state = network(self.reader.inputs(design, index).to(device), state)
                    answers[index[index >= 0]] = raw.double().cpu().numpy()[index >= 0]
                self.notes["state_norm"] = state_norm(state) if state is not None else 0.0
            else:
                self._windows(network, design, sequences, rows, answers)
        return np.asarray(answers[rows])

    def _windows(
        self, network: Network, design: Design, sequences: list[np.ndarray], rows: np.ndarray, answers: FloatArray
    ) -> None:
        """As `_history`, of windows of one length, as in training; where they begin depends on the id's past alone."""
        device = next(network.parameters()).device
        model = self.forecaster
        length = int(model.evaluate_length) * (model.segment + model.context)
        everything = np.zeros(design.rows, dtype=bool)
        everything[np.concatenate(sequences)] = True
        index, is_origin = training_segments(sequences, everything, length - model.segment, model.segment)
        index = np.pad(index, ((0, 0), (0, length - index.shape[1])), constant_values=-1)
        is_origin = np.pad(is_origin, ((0, 0), (0, length - is_origin.shape[1])))
        wanted = np.isin(np.where(is_origin, index, -1), rows).any(axis=1)
        index, is_origin = index[wanted], is_origin[wanted]
        for begin in range(0, len(index), WINDOWS_AT_ONCE):
            batch = np.full((WINDOWS_AT_ONCE, length), -1, dtype=np.int64)
            part = index[begin : begin + WINDOWS_AT_ONCE]
            batch[: len(part)] = part
            raw, _ = network(self.reader.inputs(design, batch).to(device))
            used = is_origin[begin : begin + WINDOWS_AT_ONCE]
            answers[part[used]] = raw.double().cpu().numpy()[: len(part)][used]

    def autocast(self, device: torch.device) -> torch.autocast:
        """bfloat16 arithmetic where it was asked for and there is a GPU."""
        wanted = self.forecaster.precision == "bf16" and device.type == "cuda"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)
