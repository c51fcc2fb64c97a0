"""Under autocast a comparator's outputs stay near, and its state stays float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.sequence.blocks.dlinear import DLinearBlock
from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.linear_attention import LinearAttentionBlock
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.sequence.blocks.tcn import TCNBlock
from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock

BLOCKS: list[Callable[[], SequenceBlock]] = [
    lambda: GRUBlock(16),
    lambda: LSTMBlock(16),
    lambda: TCNBlock(16, dilation=2),
    lambda: AttentionBlock(16, window=10),
    lambda: AttentionBlock(16, window=100),
    lambda: FeedForwardBlock(16),
    lambda: LinearAttentionBlock(16),
    lambda: LinearAttentionBlock(16, feature_map="identity", memory=(4, 64)),
    lambda: DLinearBlock(16, context=20),
]


@pytest.mark.parametrize("make", BLOCKS)
@pytest.mark.parametrize("half_inputs", [False, True])
def test_autocast_is_near_and_states_stay_wide(make: Callable[[], SequenceBlock], half_inputs: bool) -> None:
    torch.manual_seed(0)
    block = make()
    x = torch.randn(3, 60, 16)
    reset = torch.zeros(3, 60, dtype=torch.bool)
    reset[1, 30] = True
    exact, _ = block(x, None, reset)
    given = x.bfloat16() if half_inputs else x
    with torch.autocast("cpu", torch.bfloat16):
        first, state = block(given[:, :40], None, reset[:, :40])
        second, after = block(given[:, 40:], state)
        step, next_state = block.step(given[:, 0], after)
        whole, _ = block(given)
        (first.float().sum() + second.float().sum()).backward()
    near = torch.cat((first, second), dim=1).detach().float()
    # relative to the size of all outputs: a bfloat16 has eight bits
    assert float((near - exact.detach()).norm() / exact.detach().norm()) < 0.03
    assert whole.isfinite().all()
    assert step.isfinite().all()
    assert all(part.dtype == torch.float32 for part in (*state, *after, *next_state))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
