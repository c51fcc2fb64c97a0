"""Gradients reach as far back as the stated time scales say, over ten thousand steps: neither lost nor blown up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block
from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin.models.ssm.blocks.s5 import S5Block

STEPS, WIDTH = 10_000, 8
BLOCKS: dict[str, Callable[..., SequenceBlock]] = {
    "s4": S4Block,
    "s4d": S4DBlock,
    "s5": S5Block,
    "mamba": MambaBlock,
    "mamba2": lambda width, **more: Mamba2Block(width, head=4, **more),
    "gru": GRUBlock,
    "lstm": LSTMBlock,
}


def reached(make: Callable[..., SequenceBlock], longest: float) -> Tensor:
    """(STEPS,) size of the gradient of the last output by the input of each step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = make(WIDTH, timescales=(1.0, longest))
        x = torch.randn(1, STEPS, WIDTH, requires_grad=True)
    y, _ = block(x)
    (grad,) = torch.autograd.grad(y[:, -1].square().sum(), x)
    return grad[0].norm(dim=-1)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_first_of_ten_thousand_steps_is_felt_at_the_last_where_memory_is_that_long(name: str) -> None:
    size = reached(BLOCKS[name], STEPS)
    assert size.isfinite().all()
    # an input weighs one over the memory, so the last step weighs far more; between old ones little is lost
    assert size[:100].mean() > 0.05 * size[STEPS // 2 :][:100].mean() > 0
    assert size.max() < 100 * size[-1]


@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_forgotten_where_memory_is_short(name: str) -> None:
    size = reached(BLOCKS[name], 20)
    assert size[:5000].max() < 1e-12
    assert size[-1] > 0
