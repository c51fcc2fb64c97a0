"""Owns `kind: s5`: one state-space model of all channels (`blocks/s5.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class S5(DeepForecaster):
    """S5 forecaster: one state for all channels, by a parallel scan.

    References:
        Smith, Warrington, Linderman (2023), Simplified state space layers for sequence modeling.
    """

    kind: ClassVar[str] = "s5"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "S5 (deep SSM, one state for all channels), correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 2.0

    state: int = Field(32, ge=2, le=4096, multiple_of=2, description="real numbers of state; a multiple of 2 `parts`")
    parts: int = Field(2, ge=1, le=64, description="blocks of the initial state matrix")
    discretization: Literal["zoh", "bilinear"] = Field("zoh", description="from continuous to discrete time")
    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.ssm.blocks.s5 import S5Block

        return [
            S5Block(
                width,
                state=self.state,
                parts=self.parts,
                discretization=self.discretization,
                timescales=self.timescales,
            )
            for _ in range(self.layers)
        ]
