"""Owns every block of the deep models, small, for what all of them must do, on the CPU and on a GPU.

Imports torch, and neither pydantic nor pytest: a machine that has only torch can run what is built on it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin.models.deep.block import SequenceBlock, State
from ssmfin.models.sequence.blocks.dlinear import DLinearBlock
from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.linear_attention import LinearAttentionBlock
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.sequence.blocks.tcn import TCNBlock
from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock
from ssmfin.models.ssm.blocks.hybrid import hybrid_blocks
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block
from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin.models.ssm.blocks.s5 import S5Block

WIDTH = 8
BLOCKS: dict[str, Callable[[], SequenceBlock]] = {
    "s4": lambda: S4Block(WIDTH, state=8, timescales=(2, 60)),
    "s4d-lin": lambda: S4DBlock(WIDTH, state=8, timescales=(2, 60)),
    "s4d-inv-bilinear": lambda: S4DBlock(WIDTH, state=8, spectrum="inv", discretization="bilinear", timescales=(2, 60)),
    "s4d-legs": lambda: S4DBlock(WIDTH, state=8, spectrum="legs"),
    "s4d-real": lambda: S4DBlock(WIDTH, state=4, spectrum="real", timescales=(2, 60)),
    "s4d-real-bilinear": lambda: S4DBlock(WIDTH, state=4, spectrum="real", discretization="bilinear"),
    "s5": lambda: S5Block(WIDTH, state=16),
    "s5-bilinear": lambda: S5Block(WIDTH, state=16, discretization="bilinear"),
    "mamba": lambda: MambaBlock(WIDTH, state=4),
    "mamba2": lambda: Mamba2Block(WIDTH, state=8, head=4),
    "gru": lambda: GRUBlock(WIDTH),
    "lstm": lambda: LSTMBlock(WIDTH),
    "tcn": lambda: TCNBlock(WIDTH, dilation=4),
    "tcn-of-one-tap": lambda: TCNBlock(WIDTH, taps=1),
    "transformer-windowed": lambda: AttentionBlock(WIDTH, heads=2, window=6),
    "transformer-of-one-step": lambda: AttentionBlock(WIDTH, heads=2, window=1),
    "transformer-full": lambda: AttentionBlock(WIDTH, heads=2, window=200),
    "feed-forward": lambda: FeedForwardBlock(WIDTH),
    "linear-attention": lambda: LinearAttentionBlock(WIDTH, heads=2),
    "linear-attention-decaying": lambda: LinearAttentionBlock(WIDTH, heads=2, feature_map="identity", memory=(4, 60)),
    "dlinear": lambda: DLinearBlock(WIDTH, context=20, average=5),
    "dlinear-of-one-step": lambda: DLinearBlock(WIDTH, context=1),
}

# the blocks of a network of each kind, as the kinds make them by default for a width that is a multiple of 8
KINDS: dict[str, Callable[[int], list[SequenceBlock]]] = {
    "s4": lambda width: [S4Block(width) for _ in range(2)],
    "s4d": lambda width: [S4DBlock(width) for _ in range(2)],
    "s5": lambda width: [S5Block(width) for _ in range(2)],
    "mamba": lambda width: [MambaBlock(width, layers=2) for _ in range(2)],
    "mamba2": lambda width: [Mamba2Block(width, layers=2) for _ in range(2)],
    "hybrid": lambda width: hybrid_blocks(
        2,
        2,
        ssm=lambda: MambaBlock(width, layers=2),
        attention=lambda: AttentionBlock(width, window=63, layers=2),
    ),
    "gru": lambda width: [GRUBlock(width) for _ in range(2)],
    "lstm": lambda width: [LSTMBlock(width) for _ in range(2)],
    "tcn": lambda width: [TCNBlock(width, dilation=2**layer, layers=5) for layer in range(5)],
    "transformer": lambda width: [
        block
        for _ in range(2)
        for block in (AttentionBlock(width, window=384, layers=2), FeedForwardBlock(width, layers=2))
    ],
    "linear_attention": lambda width: [
        block
        for _ in range(2)
        for block in (LinearAttentionBlock(width, memory=(1, 252), layers=2), FeedForwardBlock(width, layers=2))
    ],
    "dlinear": lambda width: [DLinearBlock(width, context=128)],
}


def moved(name: str, dtype: torch.dtype = torch.float64) -> SequenceBlock:
    """One of BLOCKS, its parameters moved away from where they start, in eval mode; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        made = BLOCKS[name]()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return made.to(dtype).eval()


def streamed(block: SequenceBlock, x: Tensor) -> tuple[Tensor, State]:
    """The outputs (B, T, D) of one step after the other, and the last state."""
    state = block.initial_state(len(x), device=x.device, dtype=x.dtype)
    rows = []
    for t in range(x.shape[1]):
        y, state = block.step(x[:, t], state)
        rows.append(y)
    return torch.stack(rows, dim=1), state


RESETS = {0: (0, 70), 1: (3, 4, 64, 150), 2: ()}  # sequence: steps at which a new one starts


def resets(steps: int) -> Tensor:
    """(3, steps) bool of RESETS."""
    mask = torch.zeros(3, steps, dtype=torch.bool)
    for row, starts in RESETS.items():
        mask[row, [start for start in starts if start < steps]] = True
    return mask
