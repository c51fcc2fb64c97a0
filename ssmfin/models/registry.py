"""Owns the names of models: `kind` in a study to the class that implements it, imported only when asked for."""

from __future__ import annotations

from importlib import import_module

from ssmfin.errors import InputError, nearest
from ssmfin.models.external import load_external
from ssmfin.models.interface import Forecaster

__all__ = ["BENCHMARKS", "KINDS", "forecaster_class", "load_external"]

KINDS: dict[str, str] = {
    "random_walk": "ssmfin.models.baselines.random_walk:RandomWalk",
    "historical_mean": "ssmfin.models.baselines.historical_mean:HistoricalMean",
    "ewma": "ssmfin.models.baselines.ewma:EWMA",
    "garch": "ssmfin.models.baselines.garch:GARCH",
    "kalman": "ssmfin.models.baselines.kalman:Kalman",
    "har": "ssmfin.models.baselines.har.members:HAR",
    "log_har": "ssmfin.models.baselines.har.members:LogHAR",
    "har_j": "ssmfin.models.baselines.har.members:HARJ",
    "har_cj": "ssmfin.models.baselines.har.members:HARCJ",
    "char": "ssmfin.models.baselines.har.members:CHAR",
    "shar": "ssmfin.models.baselines.har.members:SHAR",
    "harq": "ssmfin.models.baselines.har.members:HARQ",
    "harq_f": "ssmfin.models.baselines.har.members:HARQF",
    "lhar": "ssmfin.models.baselines.har.members:LHAR",
    "har_x": "ssmfin.models.baselines.har.members:HARX",
    "hexp": "ssmfin.models.baselines.har.members:HExp",
    "ridge": "ssmfin.models.baselines.ridge:Ridge",
    "panel_ridge": "ssmfin.models.baselines.panel_ridge:PanelRidge",
    "rolling_ridge": "ssmfin.models.baselines.rolling_ridge:RollingRidge",
    "fama_macbeth": "ssmfin.models.baselines.fama_macbeth:FamaMacBeth",
    "lightgbm": "ssmfin.models.baselines.boosted:LightGBM",
    "s4": "ssmfin.models.ssm.s4:S4",
    "s4d": "ssmfin.models.ssm.s4d:S4D",
    "s5": "ssmfin.models.ssm.s5:S5",
    "mamba": "ssmfin.models.ssm.mamba:Mamba",
    "mamba2": "ssmfin.models.ssm.mamba2:Mamba2",
    "hybrid": "ssmfin.models.ssm.hybrid:Hybrid",
    "gru": "ssmfin.models.sequence.gru:GRU",
    "lstm": "ssmfin.models.sequence.lstm:LSTM",
    "tcn": "ssmfin.models.sequence.tcn:TCN",
    "transformer": "ssmfin.models.sequence.transformer:Transformer",
    "linear_attention": "ssmfin.models.sequence.linear_attention:LinearAttention",
    "dlinear": "ssmfin.models.sequence.dlinear:DLinear",
    "combination": "ssmfin.models.combination.spec:Combination",
}
BENCHMARKS: tuple[str, ...] = ("random_walk", "har", "log_har", "ridge", "lightgbm")


def forecaster_class(kind: str) -> type[Forecaster]:
    """The class of a model kind.

    Raises:
        InputError: there is no such kind.

    >>> forecaster_class("log_har").__name__
    'LogHAR'
    """
    if kind not in KINDS:
        raise InputError(
            f"model kind is unknown, {kind!r}; {nearest(kind, KINDS)} (a class of your own: package.module:Class)"
        )
    module, _, name = KINDS[kind].partition(":")
    found: type[Forecaster] = getattr(import_module(module), name)
    return found
