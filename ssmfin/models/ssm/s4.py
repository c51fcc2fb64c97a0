"""Owns `kind: s4`: state-space models of full memory, diagonal plus low rank (`blocks/s4.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class S4(DeepForecaster):
    """S4 forecaster: HiPPO-LegS, one system a channel.

    References:
        Gu, Goel, Re (2022), Efficiently modeling long sequences with structured state spaces.
    """

    kind: ClassVar[str] = "s4"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "S4 (deep SSM, HiPPO-LegS), correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 2.0

    state: int = Field(16, ge=2, le=256, multiple_of=2, description="real numbers of state a channel; even")
    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.ssm.blocks.s4 import S4Block

        return [S4Block(width, state=self.state, timescales=self.timescales) for _ in range(self.layers)]
