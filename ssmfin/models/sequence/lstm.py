"""Owns `kind: lstm`: a long short-term memory (`blocks/lstm.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ssmfin.models.deep.forecaster import DeepForecaster, Timescales

if TYPE_CHECKING:
    from ssmfin.models.deep.block import SequenceBlock


class LSTM(DeepForecaster):
    """LSTM forecaster, its gates started over stated time scales.

    References:
        Hochreiter, Schmidhuber (1997), Long short-term memory.
    """

    kind: ClassVar[str] = "lstm"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "sequence"
    summary: ClassVar[str] = "long short-term memory, correcting log-HAR"
    seconds_per_fit: ClassVar[float] = 4.0

    timescales: Timescales = (1.0, 252.0)

    def blocks(self, width: int) -> list[SequenceBlock]:
        from ssmfin.models.sequence.blocks.lstm import LSTMBlock

        return [LSTMBlock(width, timescales=self.timescales) for _ in range(self.layers)]
