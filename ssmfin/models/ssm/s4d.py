"""Owns `kind: s4d`: a diagonal state-space model for each channel (`blocks/s4d.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class S4D(DeepForecaster):
    """Diagonal S4 forecaster.

    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.
    """

    kind: ClassVar[str] = "s4d"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "diagonal S4 (deep SSM), correcting log-HAR"

    state: int = Field(
        16, ge=2, le=1024, multiple_of=2, description="real numbers of state a channel; even: conjugate pairs"
    )
    spectrum: Literal["lin", "inv", "legs", "real"] = Field(
        "lin", description="where the state matrix starts: S4D-Lin, S4D-Inv, the diagonal part of LegS, or real modes"
    )
    discretization: Literal["zoh", "bilinear"] = Field("zoh", description="from continuous to discrete time")
    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.ssm.blocks.s4d import S4DBlock

        return [
            S4DBlock(
                width,
                state=self.state,
                spectrum=self.spectrum,
                discretization=self.discretization,
                timescales=self.timescales,
            )
            for _ in range(self.layers)
        ]
