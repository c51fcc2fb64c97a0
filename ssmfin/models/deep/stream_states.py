"""Owns the states of a stream: of some ids, for every network that forecasts them, in memory and on disk; in torch.

A group of ids shares networks (`prediction.Group`), and each network has one state of fixed size for all of its ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssmfin.errors import InputError
from ssmfin.models.deep.base_history import BaseHistory
from ssmfin.models.deep.skeleton import NetworkState

if TYPE_CHECKING:
    from ssmfin.models.deep.prediction import FittedDeep

FORMAT = "ssmfin-stream-1"


class StreamStates:
    """States of the ids of a stream, each at its place 0, 1, ... there.

    Attributes:
        base: what the base remembers. places: of each group, the places of its ids in the stream.
        device: where the states are.
    """

    def __init__(self, fitted: FittedDeep, ids: tuple[str, ...]) -> None:
        self.base = BaseHistory(fitted.base, fitted.without_rows(), ids)
        self.device = next(fitted.network.parameters()).device
        self.places: list[np.ndarray] = []
        self._states: list[list[NetworkState]] = []
        for group in fitted.groups:
            own = [place for place, name in enumerate(ids) if group.ids is None or name in group.ids]
            self.places.append(np.array(own, dtype=np.int64))
            self._states.append([network.initial_state(len(own)) for network in group.networks])

    def inside(self, group: int, places: np.ndarray) -> torch.Tensor:
        """Rows of the group's states that belong to places of the stream, all of them the group's."""
        return torch.from_numpy(np.searchsorted(self.places[group], places)).to(self.device)

    def taken(self, group: int, member: int, inside: torch.Tensor) -> NetworkState:
        """A copy of some rows."""
        return tuple(tuple(part[inside] for part in block) for block in self._states[group][member])

    def put(self, group: int, member: int, inside: torch.Tensor, after: NetworkState) -> None:
        """Overwrite some rows."""
        for block, new in zip(self._states[group][member], after, strict=True):
            for part, value in zip(block, new, strict=True):
                part[inside] = value

    def start_anew(self, places: np.ndarray) -> None:
        """Zero the rows of some places: the zero state is the state before a first step."""
        self.base.start_anew(places)
        for own, members in zip(self.places, self._states, strict=True):
            rows = torch.from_numpy(np.flatnonzero(np.isin(own, places))).to(self.device)
            for state in members:
                for block in state:
                    for part in block:
                        part[rows] = 0

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The states themselves, by name."""
        yield from self.base.tensors()
        for which, members in enumerate(self._states):
            for member, state in enumerate(members):
                for number, block in enumerate(state):
                    for part, tensor in enumerate(block):
                        yield f"state.{which}.{member}.{number}.{part}", tensor

    def save(self, path: Path, fitted: FittedDeep, ids: tuple[str, ...], last: np.ndarray) -> None:
        """Write the states and the ids' last times (safetensors), with what they belong to in the file's metadata."""
        from safetensors.torch import save_file

        tensors = dict(self.tensors())
        tensors["last"] = torch.from_numpy(last)
        about = {"format": FORMAT, "ids": json.dumps(ids), "weights": fingerprint(fitted)}
        save_file({name: part.detach().cpu().contiguous() for name, part in tensors.items()}, str(path), about)


def read_states(path: Path, fitted: FittedDeep) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    """Ids, and the tensors by name, `last` among them, of what `StreamStates.save` wrote.

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
    if about["weights"] != fingerprint(fitted):
        raise InputError(f"{path} belongs to a model with other weights; restore it with the one that saved it.")
    return tuple(json.loads(about["ids"])), tensors


def fingerprint(fitted: FittedDeep) -> str:
    """Of all weights: SHA-256 over names and bytes."""
    digest = hashlib.sha256()
    for group in fitted.groups:
        for network in group.networks:
            for name, value in sorted(network.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
