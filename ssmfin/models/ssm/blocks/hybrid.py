"""Owns the order of blocks in a hybrid: state-space blocks, and attention at every k-th place."""

from __future__ import annotations

from collections.abc import Callable

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock


def hybrid_blocks(
    layers: int, every: int, *, ssm: Callable[[], SequenceBlock], attention: Callable[[], SequenceBlock]
) -> list[SequenceBlock]:
    """`layers` blocks, the k-th, 2k-th, ... of them attention: a state for the long past, recall for the near.

    Args:
        layers: in all. every: k.
        ssm, attention: make a new block each time they are called.
    Raises:
        InputError: fewer layers than `every`, so that no attention would be there; `every` below 2.
    References:
        Ren, Liu, Lu, Shen, Liang, Chen (2024), Samba: simple hybrid state space models, section 2.

    >>> hybrid_blocks(5, 2, ssm=lambda: "ssm", attention=lambda: "attention")
    ['ssm', 'attention', 'ssm', 'attention', 'ssm']
    """
    if every < 2:
        raise InputError(f"every is {every}, which leaves no state-space block; give 2 or more.")
    if layers < every:
        raise InputError(
            f"layers is {layers} with attention at every {every}th, so at none; give {every} layers or more."
        )
    return [attention() if place % every == 0 else ssm() for place in range(1, layers + 1)]
