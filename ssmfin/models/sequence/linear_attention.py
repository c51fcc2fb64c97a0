"""Owns `kind: linear_attention`: attention without a softmax, and feed-forward maps (`blocks/linear_attention.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class LinearAttention(DeepForecaster):
    """Linear-attention forecaster: the special case of state-space duality without selection, its heads decaying.

    References:
        Katharopoulos, Vyas, Pappas, Fleuret (2020), Transformers are RNNs; Sun et al. (2023), Retentive network.
    """

    kind: ClassVar[str] = "linear_attention"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "linear attention, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    heads: int = Field(4, ge=1, le=64, description="of attention; a divisor of `width`")
    feature_map: Literal["elu", "identity"] = Field("elu", description="of queries and keys: elu + 1, or none (RetNet)")
    timescales: Timescales | None = Field(
        (1.0, 252.0),
        description="shortest and longest time scale of the heads, in rows (until 1/e is left); null: no decay, every "
        "past row counts alike, and float32 slowly loses the newest among them",
    )
    expand: int = Field(4, ge=1, le=16, description="hidden channels of the feed-forward map for each channel")

    @property
    def width_step(self) -> int:
        return self.heads

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.linear_attention import LinearAttentionBlock
        from ssmfin.models.sequence.blocks.transformer import FeedForwardBlock

        blocks: list[SequenceBlock] = []
        for _ in range(self.layers):
            blocks.append(
                LinearAttentionBlock(
                    width, heads=self.heads, feature_map=self.feature_map, memory=self.timescales, layers=self.layers
                )
            )
            blocks.append(FeedForwardBlock(width, expand=self.expand, layers=self.layers))
        return blocks
