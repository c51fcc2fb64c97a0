"""Owns `kind: hybrid`: Mamba blocks with windowed attention at every k-th place (`blocks/hybrid.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class Hybrid(DeepForecaster):
    """Hybrid forecaster: a state for the long past, attention for exact recall of the near.

    References:
        Ren, Liu, Lu, Shen, Liang, Chen (2024), Samba: simple hybrid state space models.
    """

    kind: ClassVar[str] = "hybrid"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "Mamba blocks with sliding-window attention, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    every: int = Field(2, ge=2, le=64, description="attention at every k-th layer; at most `layers`")
    heads: int = Field(4, ge=1, le=64, description="of attention; a divisor of width / 2")
    window: int = Field(63, ge=1, le=65536, description="rows that attention sees, the present one included")
    state: int = Field(16, ge=1, le=256, description="states a channel of the Mamba blocks")
    expand: int = Field(2, ge=1, le=16, description="inner channels for each channel of the Mamba blocks")
    timescales: Timescales = (1.0, 252.0)

    @property
    def width_step(self) -> int:
        return 2 * self.heads

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.transformer import AttentionBlock
        from ssmfin.models.ssm.blocks.hybrid import hybrid_blocks
        from ssmfin.models.ssm.blocks.mamba import MambaBlock

        return hybrid_blocks(
            self.layers,
            self.every,
            ssm=lambda: MambaBlock(
                width, state=self.state, expand=self.expand, layers=self.layers, timescales=self.timescales
            ),
            attention=lambda: AttentionBlock(width, heads=self.heads, window=self.window, layers=self.layers),
        )
