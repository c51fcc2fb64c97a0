"""The TCN block is two dilated convolutions, as torch convolves a sequence padded on its left."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv1d, gelu, pad

from ssmfin.errors import InputError
from ssmfin.models.sequence.blocks.tcn import TCNBlock


@pytest.mark.parametrize("taps, dilation", [(3, 1), (3, 8), (2, 5), (1, 1)])
def test_it_is_torchs_convolution_of_the_padded_sequence(taps: int, dilation: int) -> None:
    torch.manual_seed(0)
    block = TCNBlock(6, taps=taps, dilation=dilation).double()
    x = torch.randn(2, 40, 6, dtype=torch.float64)
    flow = x.mT  # (B, D, T)
    for layer in (block.enter, block.leave):
        weight = layer.weight.view(6, taps, 6).mT  # (out, taps, in) -> (out, in, taps)
        flow = conv1d(pad(flow, ((taps - 1) * dilation, 0)), weight, layer.bias, dilation=dilation)
        if layer is block.enter:
            flow = gelu(flow)
    torch.testing.assert_close(block(x)[0], flow.mT, rtol=1e-12, atol=1e-13)


def test_blocks_of_doubled_dilation_see_the_stated_steps() -> None:
    torch.manual_seed(0)
    blocks = [TCNBlock(4, dilation=2**layer).double() for layer in range(4)]
    x = torch.randn(1, 100, 4, dtype=torch.float64, requires_grad=True)
    flow = x
    for block in blocks:
        flow = flow + block(flow)[0]
    (grad,) = torch.autograd.grad(flow[0, -1].sum(), x)
    reached = (grad[0] != 0).any(dim=-1)
    steps = 1 + 2 * (3 - 1) * (2**4 - 1)
    assert steps == 1 + sum(block.receptive_field - 1 for block in blocks)
    assert int(reached.sum()) == steps
    assert reached[-steps:].all()


@pytest.mark.parametrize("wrong", [{"taps": 0}, {"dilation": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="is 0; give at least 1"):
        TCNBlock(4, **wrong)
