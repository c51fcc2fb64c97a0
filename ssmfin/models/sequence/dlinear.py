"""Owns `kind: dlinear`: linear maps of a window's trend and of the rest (`blocks/dlinear.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class DLinear(DeepForecaster):
    """DLinear forecaster: no state, `context` rows weighed linearly.

    References:
        Zeng, Chen, Zhang, Xu (2023), Are transformers effective for time series forecasting?
    """

    kind: ClassVar[str] = "dlinear"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "two linear maps of the last rows, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 2.0

    layers: int = Field(1, ge=1, le=16, description="blocks, one after the other")
    context: int = Field(
        128, ge=1, le=65536, description="rows of the window, and of the warm-up that leads each training sequence"
    )
    average: int = Field(25, ge=1, le=65535, description="rows of the moving average that is the trend; odd")

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.dlinear import DLinearBlock

        return [DLinearBlock(width, context=self.context, average=self.average) for _ in range(self.layers)]
