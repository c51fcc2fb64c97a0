"""`match_parameters` finds the nearest count, and says where none is near."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssmfin.errors import InputError
from ssmfin.models.deep.sizing import match_parameters, parameter_count
from ssmfin.models.sequence.blocks.dlinear import DLinearBlock
from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.linear_attention import LinearAttentionBlock
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.sequence.blocks.tcn import TCNBlock
from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock


class Sized(nn.Module):
    """A module of so many numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.empty(size))


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(40, 30_000),
    multiple_of=st.sampled_from([1, 2, 8]),
    square=st.integers(0, 3),
    line=st.integers(1, 20),
)
def test_the_nearest_of_all_widths_is_found(budget: int, multiple_of: int, square: int, line: int) -> None:
    def size(width: int) -> int:
        return square * width * width + line * width

    widths = range(multiple_of, 2 * budget + 2 * multiple_of, multiple_of)
    if size(multiple_of) > budget:
        with pytest.raises(InputError, match="narrowest"):
            match_parameters(lambda width: Sized(size(width)), budget, multiple_of=multiple_of)
    else:
        nearest = min(widths, key=lambda width: (abs(size(width) - budget), width))
        assert match_parameters(lambda width: Sized(size(width)), budget, multiple_of=multiple_of) == nearest


# parameters of a block of width D in closed form
CLOSED_FORMS = {
    "gru": (GRUBlock, lambda D: 6 * D * D + 6 * D),
    "lstm": (LSTMBlock, lambda D: 8 * D * D + 8 * D),
    "tcn": (TCNBlock, lambda D: 6 * D * D + 2 * D),
    "attention": (lambda D: AttentionBlock(D, heads=2), lambda D: 4 * D * D),
    "feed-forward": (FeedForwardBlock, lambda D: 8 * D * D + 5 * D),
    "linear-attention": (lambda D: LinearAttentionBlock(D, heads=2), lambda D: 4 * D * D),
    "dlinear": (lambda D: DLinearBlock(D, context=20), lambda D: 41 * D),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_comparators_are_sized_to_fifty_thousand_by_their_closed_form(name: str) -> None:
    build, size = CLOSED_FORMS[name]
    width = match_parameters(build, 50_000, multiple_of=4)
    assert parameter_count(build(width)) == size(width)
    assert size(width) == pytest.approx(50_000, rel=0.06)
    assert all(abs(size(width) - 50_000) <= abs(size(width + step) - 50_000) for step in (-4, 4))


def test_a_budget_below_the_narrowest_network_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"is 100, but the narrowest network \(width 8\) has 432 parameters"):
        match_parameters(GRUBlock, 100, multiple_of=8)


def test_a_network_that_ignores_its_width_is_refused() -> None:
    with pytest.raises(InputError, match="has 5 parameters at width 1 and 5 at width 2"):
        match_parameters(lambda width: Sized(5), 50)


@pytest.mark.parametrize("budget, multiple_of", [(0, 1), (-3, 1), (10, 0)])
def test_arguments_below_one_are_refused(budget: int, multiple_of: int) -> None:
    with pytest.raises(InputError, match="give at least 1"):
        match_parameters(Sized, budget, multiple_of=multiple_of)


def test_torchs_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    match_parameters(GRUBlock, 5_000)
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_and_frozen_numbers_count_once_and_not_at_all() -> None:
    one = nn.Linear(3, 3, bias=False)
    frozen = nn.Linear(5, 5)
    frozen.requires_grad_(False)
    assert parameter_count(nn.Sequential(one, one, frozen)) == 9


def test_the_log_says_how_near_it_came(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ssmfin.models.deep.sizing"):
        match_parameters(Sized, 1_000, multiple_of=300)
    assert "width 900: 900 parameters, -10.0 % of the budget of 1,000" in caplog.text
