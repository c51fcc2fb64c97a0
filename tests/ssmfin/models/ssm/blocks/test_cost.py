"""No block walks through time in Python: the number of torch operations hardly grows with the length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.sequence.blocks.transformer import AttentionBlock
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block
from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin.models.ssm.blocks.s5 import S5Block


class Count(TorchDispatchMode):
    """Counts operations; an operator of ssmfin_kernels is one."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [S4Block, S4DBlock, S5Block, MambaBlock, Mamba2Block, AttentionBlock])
@pytest.mark.parametrize("packed", [False, True])
def test_operations_do_not_grow_with_time(make: Callable[[int], SequenceBlock], packed: bool) -> None:
    block, counts = make(16), []
    for steps in (256, 2048):
        x, reset = torch.randn(2, steps, 16), torch.zeros(2, steps, dtype=torch.bool) if packed else None
        with Count() as count:
            y, _ = block(x, None, reset)
            y.sum().backward()
        counts.append(count.operations)
    # S4 joins chunks by doubling: three more rounds for eight times as many
    assert counts[1] <= counts[0] + (200 if make is S4Block else 0)
    assert counts[1] < 1100


@pytest.mark.parametrize("make", [S4Block, S4DBlock, S5Block, MambaBlock, Mamba2Block, AttentionBlock])
def test_freezing_saves_operations_of_a_step(make: Callable[[int], SequenceBlock]) -> None:
    block, counts = make(16).eval(), []
    for freeze in (False, True):
        if freeze:
            block.freeze()
        with Count() as count, torch.no_grad():
            block.step(torch.zeros(1, 16), block.initial_state(1))
        counts.append(count.operations)
    assert counts[1] < counts[0] or not block.discrete()
    assert counts[1] < 70
