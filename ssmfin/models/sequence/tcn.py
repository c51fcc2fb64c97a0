"""Owns `kind: tcn`: a temporal convolutional network (`blocks/tcn.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssmfin.models.deep.forecaster import DeepForecaster

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class TCN(DeepForecaster):
    """Temporal convolutional network: dilation doubles from layer to layer.

    References:
        Bai, Kolter, Koltun (2018), An empirical evaluation of generic convolutional and recurrent networks.
    """

    kind: ClassVar[str] = "tcn"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "temporal convolutional network, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 2.0

    layers: int = Field(5, ge=1, le=20, description="blocks, of dilation 1, 2, 4, ...")
    taps: int = Field(
        3, ge=1, le=64, description="rows that a convolution weighs; sees 1 + 2 (taps - 1) (2^layers - 1) rows"
    )

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.tcn import TCNBlock

        return [TCNBlock(width, taps=self.taps, dilation=2**layer, layers=self.layers) for layer in range(self.layers)]
