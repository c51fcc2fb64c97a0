"""Owns `kind: mamba`: a state-space model whose steps depend on the input (`blocks/mamba.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class Mamba(DeepForecaster):
    """Mamba forecaster: selective scan.

    References:
        Gu, Dao (2023), Mamba: linear-time sequence modeling with selective state spaces.
    """

    kind: ClassVar[str] = "mamba"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "Mamba (selective deep SSM), correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    state: int = Field(16, ge=1, le=256, description="states a channel")
    expand: int = Field(2, ge=1, le=16, description="inner channels for each channel")
    taps: int = Field(4, ge=2, le=64, description="rows of the short convolution, the present one included")
    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.ssm.blocks.mamba import MambaBlock

        return [
            MambaBlock(
                width,
                state=self.state,
                expand=self.expand,
                taps=self.taps,
                layers=self.layers,
                timescales=self.timescales,
            )
            for _ in range(self.layers)
        ]
