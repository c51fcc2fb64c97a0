"""Where a hybrid puts attention."""

from __future__ import annotations

import pytest

from ssmfin.errors import InputError
from ssmfin.models.sequence.blocks.transformer import AttentionBlock
from ssmfin.models.ssm.blocks.hybrid import hybrid_blocks
from ssmfin.models.ssm.blocks.mamba import MambaBlock


def test_every_kth_block_is_attention_and_all_are_new() -> None:
    blocks = hybrid_blocks(6, 3, ssm=lambda: MambaBlock(8, state=2), attention=lambda: AttentionBlock(8, heads=2))
    assert [isinstance(block, AttentionBlock) for block in blocks] == [False, False, True, False, False, True]
    assert len({id(block) for block in blocks}) == 6


@pytest.mark.parametrize("layers, every", [(2, 3), (4, 1), (4, 0)])
def test_a_hybrid_of_one_kind_is_refused(layers: int, every: int) -> None:
    with pytest.raises(InputError, match="give"):
        hybrid_blocks(layers, every, ssm=lambda: MambaBlock(8), attention=lambda: AttentionBlock(8))
