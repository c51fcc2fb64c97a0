"""Owns `kind: transformer`: causal attention and feed-forward maps (`blocks/transformer.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class Transformer(DeepForecaster):
    """Causal transformer; full attention is a window as long as a training sequence.

    References:
        Vaswani et al. (2017), Attention is all you need; Su et al. (2021), RoFormer.
    """

    kind: ClassVar[str] = "transformer"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "causal transformer, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    heads: int = Field(4, ge=1, le=64, description="of attention; a divisor of width / 2")
    window: int | Literal["full"] = Field(
        "full",
        description="rows that attention sees, the present one included; full: segment + context, all of training's",
    )
    expand: int = Field(4, ge=1, le=16, description="hidden channels of the feed-forward map for each channel")

    @property
    def width_step(self) -> int:
        return 2 * self.heads

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock

        window = self.segment + self.context if self.window == "full" else self.window
        blocks: list[SequenceBlock] = []
        for _ in range(self.layers):
            blocks.append(AttentionBlock(width, heads=self.heads, window=window, layers=self.layers))
            blocks.append(FeedForwardBlock(width, expand=self.expand, layers=self.layers))
        return blocks
