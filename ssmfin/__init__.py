"""ssmfin: state-space models for quantitative finance, with honest walk-forward evaluation.

The names below are imported when they are first used, so that `import ssmfin` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ssmfin.errors": ["InputError"],
    "ssmfin.data.panel": ["Panel"],
    "ssmfin.data.loading": ["DataSpec", "load_panel"],
    "ssmfin.data.realized.covariances": ["realized_covariances"],
    "ssmfin.data.realized.measures": ["realized_measures"],
    "ssmfin.data.realized.periodicity": ["intraday_periodicity"],
    "ssmfin.data.realized.result": ["RealizedPanel"],
    "ssmfin.reporting.measures": ["measures_report"],
    "ssmfin.data.range_variance": ["garman_klass", "parkinson", "rogers_satchell", "yang_zhang"],
    "ssmfin.features.calendar": ["CalendarIndicators"],
    "ssmfin.features.columns": ["Columns"],
    "ssmfin.features.exponential": ["ExponentialAverages"],
    "ssmfin.features.har": ["HarLags"],
    "ssmfin.features.kalman": ["KalmanFeatures"],
    "ssmfin.features.leverage": ["Leverage"],
    "ssmfin.features.market": ["MarketLags"],
    "ssmfin.features.rank": ["CrossSectionRanks"],
    "ssmfin.features.measures": ["JumpLags", "QuarticityLags"],
    "ssmfin.features.regime": ["RegimeFeatures"],
    "ssmfin.features.spec": ["FeatureSpec"],
    "ssmfin.features.transformer": ["PanelTransformer"],
    "ssmfin.models.deep.block": ["SequenceBlock"],
    "ssmfin.models.interface": ["Fitted", "Forecaster", "Target"],
    "ssmfin.models.baselines.random_walk": ["RandomWalk"],
    "ssmfin.models.baselines.har.members": [
        "CHAR",
        "HAR",
        "HARCJ",
        "HARJ",
        "HARQ",
        "HARQF",
        "HARX",
        "HExp",
        "LHAR",
        "LogHAR",
        "SHAR",
    ],
    "ssmfin.models.baselines.fama_macbeth": ["FamaMacBeth"],
    "ssmfin.models.baselines.historical_mean": ["HistoricalMean"],
    "ssmfin.models.baselines.panel_ridge": ["PanelRidge"],
    "ssmfin.models.baselines.ridge": ["Ridge"],
    "ssmfin.models.baselines.rolling_ridge": ["RollingRidge"],
    "ssmfin.models.baselines.boosted": ["LightGBM"],
    "ssmfin.models.baselines.ewma": ["EWMA"],
    "ssmfin.models.baselines.garch": ["GARCH"],
    "ssmfin.models.baselines.kalman": ["Kalman"],
    "ssmfin.models.combination.spec": ["Combination"],
    "ssmfin.models.deep.forecaster": ["DeepForecaster"],
    "ssmfin.models.sequence.dlinear": ["DLinear"],
    "ssmfin.models.sequence.gru": ["GRU"],
    "ssmfin.models.sequence.linear_attention": ["LinearAttention"],
    "ssmfin.models.sequence.lstm": ["LSTM"],
    "ssmfin.models.sequence.tcn": ["TCN"],
    "ssmfin.models.sequence.transformer": ["Transformer"],
    "ssmfin.models.ssm.hybrid": ["Hybrid"],
    "ssmfin.models.ssm.mamba": ["Mamba"],
    "ssmfin.models.ssm.mamba2": ["Mamba2"],
    "ssmfin.models.ssm.s4": ["S4"],
    "ssmfin.models.ssm.s4d": ["S4D"],
    "ssmfin.models.ssm.s5": ["S5"],
    "ssmfin.evaluation.experiment": ["ModelEntry"],
    "ssmfin.evaluation.splits": ["WalkForward"],
    "ssmfin.evaluation.cross_section": ["CrossSection", "rank_information"],
    "ssmfin.evaluation.comparison": ["diebold_mariano", "mincer_zarnowitz", "model_confidence_set"],
    "ssmfin.evaluation.losses": ["mae", "mse", "qlike"],
    "ssmfin.live": ["fit"],
    "ssmfin.comparing": ["compare"],
    "ssmfin.result": ["Result", "evaluate"],
    "ssmfin.diagnostics": [
        "diagnose",
        "memory",
        "plot_confidence_sets",
        "plot_cumulative_loss",
        "plot_diagnostics",
        "plot_loss_by_id",
        "plot_loss_by_regime",
        "plot_loss_by_year",
        "plot_memory",
        "plot_regimes",
        "plot_states",
    ],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted([*_HOME_OF, "__version__"])

if TYPE_CHECKING:
    from ssmfin.comparing import compare
    from ssmfin.data.loading import DataSpec, load_panel
    from ssmfin.data.panel import Panel
    from ssmfin.data.range_variance import garman_klass, parkinson, rogers_satchell, yang_zhang
    from ssmfin.data.realized.covariances import realized_covariances
    from ssmfin.data.realized.measures import realized_measures
    from ssmfin.data.realized.periodicity import intraday_periodicity
    from ssmfin.data.realized.result import RealizedPanel
    from ssmfin.diagnostics import (
        diagnose,
        memory,
        plot_confidence_sets,
        plot_cumulative_loss,
        plot_diagnostics,
        plot_loss_by_id,
        plot_loss_by_regime,
        plot_loss_by_year,
        plot_memory,
        plot_regimes,
        plot_states,
    )
    from ssmfin.errors import InputError
    from ssmfin.evaluation.comparison import diebold_mariano, mincer_zarnowitz, model_confidence_set
    from ssmfin.evaluation.cross_section import CrossSection, rank_information
    from ssmfin.evaluation.experiment import ModelEntry
    from ssmfin.evaluation.losses import mae, mse, qlike
    from ssmfin.evaluation.splits import WalkForward
    from ssmfin.features.calendar import CalendarIndicators
    from ssmfin.features.columns import Columns
    from ssmfin.features.exponential import ExponentialAverages
    from ssmfin.features.har import HarLags
    from ssmfin.features.kalman import KalmanFeatures
    from ssmfin.features.leverage import Leverage
    from ssmfin.features.market import MarketLags
    from ssmfin.features.measures import JumpLags, QuarticityLags
    from ssmfin.features.rank import CrossSectionRanks
    from ssmfin.features.regime import RegimeFeatures
    from ssmfin.features.spec import FeatureSpec
    from ssmfin.features.transformer import PanelTransformer
    from ssmfin.live import fit
    from ssmfin.models.baselines.boosted import LightGBM
    from ssmfin.models.baselines.ewma import EWMA
    from ssmfin.models.baselines.fama_macbeth import FamaMacBeth
    from ssmfin.models.baselines.garch import GARCH
    from ssmfin.models.baselines.har.members import (
        CHAR,
        HAR,
        HARCJ,
        HARJ,
        HARQ,
        HARQF,
        HARX,
        LHAR,
        SHAR,
        HExp,
        LogHAR,
    )
    from ssmfin.models.baselines.historical_mean import HistoricalMean
    from ssmfin.models.baselines.kalman import Kalman
    from ssmfin.models.baselines.panel_ridge import PanelRidge
    from ssmfin.models.baselines.random_walk import RandomWalk
    from ssmfin.models.baselines.ridge import Ridge
    from ssmfin.models.baselines.rolling_ridge import RollingRidge
    from ssmfin.models.combination.spec import Combination
    from ssmfin.models.deep.block import SequenceBlock
    from ssmfin.models.deep.forecaster import DeepForecaster
    from ssmfin.models.interface import Fitted, Forecaster, Target
    from ssmfin.models.sequence.dlinear import DLinear
    from ssmfin.models.sequence.gru import GRU
    from ssmfin.models.sequence.linear_attention import LinearAttention
    from ssmfin.models.sequence.lstm import LSTM
    from ssmfin.models.sequence.tcn import TCN
    from ssmfin.models.sequence.transformer import Transformer
    from ssmfin.models.ssm.hybrid import Hybrid
    from ssmfin.models.ssm.mamba import Mamba
    from ssmfin.models.ssm.mamba2 import Mamba2
    from ssmfin.models.ssm.s4 import S4
    from ssmfin.models.ssm.s4d import S4D
    from ssmfin.models.ssm.s5 import S5
    from ssmfin.reporting.measures import measures_report
    from ssmfin.result import Result, evaluate


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ssmfin' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
