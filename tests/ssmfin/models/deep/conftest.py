"""Every deep kind, small; and a training set of three ids: one long, one that starts later, one with holes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ssmfin.models.interface import Design, TrainingSet

ROWS = 330


@pytest.fixture(scope="session")
def design(make_design, simulate) -> Design:
    long, late, holes = simulate(3, ROWS)
    days = np.arange(ROWS)
    observed = np.flatnonzero(np.random.default_rng(0).random(ROWS) > 0.1)
    return make_design([long, late[80:], holes[observed]], dates=[days, days[80:], days[observed]])


@pytest.fixture(scope="session")
def training(design, make_training_set) -> TrainingSet:
    return make_training_set(design, 270, size=190, validation=50)


@pytest.fixture(scope="session")
def moved() -> Callable:
    """A fitted model whose networks say something, whatever early stopping kept."""

    def move(fitted, size: float = 0.2):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for group in fitted.groups:
                for network in group.networks:
                    for parameter in network.parameters():
                        parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        return fitted

    return move


@pytest.fixture(scope="session")
def origins() -> Callable:
    def rows(design: Design, first: int, last: int) -> np.ndarray:
        return np.flatnonzero((design.date_index >= first) & (design.date_index <= last) & design.complete)

    return rows
