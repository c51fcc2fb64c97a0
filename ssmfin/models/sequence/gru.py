"""Owns `kind: gru`: a gated recurrent unit (`blocks/gru.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class GRU(DeepForecaster):
    """GRU forecaster, its gates started over stated time scales.

    References:
        Cho et al. (2014), Learning phrase representations using RNN encoder-decoder.
    """

    kind: ClassVar[str] = "gru"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "gated recurrent unit, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.gru import GRUBlock

        return [GRUBlock(width, timescales=self.timescales) for _ in range(self.layers)]
