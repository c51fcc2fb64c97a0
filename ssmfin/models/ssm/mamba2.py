"""Owns `kind: mamba2`: a selective state-space model with one decay a head (`blocks/mamba2.py`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class Mamba2(DeepForecaster):
    """Mamba-2 forecaster: state-space duality, heads of several time scales.

    References:
        Dao, Gu (2024), Transformers are SSMs.
    """

    kind: ClassVar[str] = "mamba2"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "Mamba-2 (selective deep SSM by heads), correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    state: int = Field(32, ge=1, le=1024, description="states a channel")
    expand: int = Field(2, ge=1, le=16, description="inner channels for each channel")
    head_width: int = Field(16, ge=1, le=1024, description="inner channels of a head; a divisor of expand * width")
    taps: int = Field(4, ge=2, le=64, description="rows of the short convolution, the present one included")
    timescales: Timescales = (1.0, 252.0)

    @property
    def width_step(self) -> int:
        return self.head_width // math.gcd(self.head_width, self.expand)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block

        return [
            Mamba2Block(
                width,
                state=self.state,
                expand=self.expand,
                head=self.head_width,
                taps=self.taps,
                layers=self.layers,
                timescales=self.timescales,
            )
            for _ in range(self.layers)
        ]
