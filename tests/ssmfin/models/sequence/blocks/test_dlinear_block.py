"""The DLinear block equals the paper's decomposition and two linear maps, window by window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from ssmfin.errors import InputError
from ssmfin.models.sequence.blocks.dlinear import DLinearBlock, banded_product


def explicit(block: DLinearBlock, x: Tensor) -> Tensor:
    """One origin at a time: pad by the window's ends, average, subtract, weigh."""
    L, half = block.context, block.average // 2
    line = pad(x, (0, 0, L - 1, 0))
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        window = line[:, t : t + L].mT  # (B, D, L)
        trend = avg_pool1d(pad(window, (half, half), mode="replicate"), block.average, stride=1)
        out[:, t] = (block.trend * trend + block.remainder * (window - trend)).sum(-1) + block.bias
    return out


@pytest.mark.parametrize("context, average", [(20, 5), (1, 1), (1, 3), (30, 25), (7, 25), (130, 25)])
def test_it_is_the_decomposition_and_two_linear_maps_of_each_window(context: int, average: int) -> None:
    torch.manual_seed(0)
    block = DLinearBlock(4, context=context, average=average).double()
    x = torch.randn(2, 150, 4, dtype=torch.float64)
    with torch.no_grad():
        block.bias.normal_()
        torch.testing.assert_close(block(x)[0], explicit(block, x), rtol=1e-11, atol=1e-12)


def test_equal_maps_see_no_trend() -> None:
    block = DLinearBlock(3, context=30).double()
    with torch.no_grad():
        block.trend.copy_(block.remainder)
    torch.testing.assert_close(block.discrete()[0], block.remainder)


@pytest.mark.parametrize("Q", [1, 3, 16, 40])
def test_the_banded_product_is_a_sum_of_lags_whatever_the_chunk(Q: int) -> None:
    torch.manual_seed(0)
    line, taps = torch.randn(2, 45, 3, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    expected = sum(taps[:, i] * line[:, i : i + 40] for i in range(6))
    torch.testing.assert_close(banded_product(line, taps, Q), expected, rtol=1e-12, atol=1e-13)


def test_many_resets_in_one_row_and_none_in_the_next() -> None:
    torch.manual_seed(0)
    block = DLinearBlock(3, context=9, average=3).double()
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[0, ::4] = True
    y, _ = block(x, None, reset)
    for begin in range(0, 40, 4):
        torch.testing.assert_close(y[:1, begin : begin + 4], explicit(block, x[:1, begin : begin + 4]))
    torch.testing.assert_close(y[1:], explicit(block, x[1:]))


def test_a_long_window_takes_memory_of_its_length() -> None:
    block = DLinearBlock(1, context=50_001, average=101)  # a matrix of the moving average would take 20 GB
    with torch.no_grad():
        block.trend.fill_(1.0)
        block.remainder.zero_()
        torch.testing.assert_close(block.discrete()[0].sum(), torch.tensor(50_001.0))


@pytest.mark.parametrize("wrong", [{"context": 0}, {"average": 4}, {"average": -1}])
def test_impossible_windows_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give"):
        DLinearBlock(4, **wrong)
