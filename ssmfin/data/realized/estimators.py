"""Owns the table of estimators: a name a study may give, the function behind it, and what it needs.

A further estimator is one function over a block of sessions and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssmfin.data.realized.block import Block
from ssmfin.data.realized.covariance import realized_beta, realized_covariance
from ssmfin.data.realized.jumps import jump_statistic, jump_variation
from ssmfin.data.realized.moments import (
    realized_kurtosis,
    realized_quarticity,
    realized_skewness,
    tripower_quarticity,
)
from ssmfin.data.realized.noise import realized_kernel, two_scale_variance
from ssmfin.data.realized.variance import (
    bipower_variation,
    median_variance,
    min_variance,
    negative_semivariance,
    positive_semivariance,
    realized_variance,
    signed_jump_variation,
    subsampled_variance,
)


class Estimator(NamedTuple):
    """One column of the result.

    Attributes:
        compute: block to (D,).
        meaning: a few words for tables.
        finer: it needs the fine grid to be finer than the sampling interval.
        market: it needs the market's returns.
    """

    compute: Callable[[Block], np.ndarray]
    meaning: str
    finer: bool = False
    market: bool = False


def _market(block: Block) -> np.ndarray:
    return np.full(block.returns.shape, np.nan) if block.market is None else block.market


ESTIMATORS: dict[str, Estimator] = {
    "rv": Estimator(lambda b: realized_variance(b.returns), "realized variance"),
    "rv_ss": Estimator(lambda b: subsampled_variance(b.log_price, b.step), "subsampled realized variance"),
    "bv": Estimator(lambda b: bipower_variation(b.returns), "bipower variation"),
    "minrv": Estimator(lambda b: min_variance(b.returns), "minimum realized variance"),
    "medrv": Estimator(lambda b: median_variance(b.returns), "median realized variance"),
    "rq": Estimator(lambda b: realized_quarticity(b.returns), "realized quarticity"),
    "tpq": Estimator(lambda b: tripower_quarticity(b.returns), "tripower quarticity"),
    "rs_pos": Estimator(lambda b: positive_semivariance(b.returns), "semivariance of gains"),
    "rs_neg": Estimator(lambda b: negative_semivariance(b.returns), "semivariance of losses"),
    "sjv": Estimator(lambda b: signed_jump_variation(b.returns), "signed jump variation"),
    "rk": Estimator(lambda b: realized_kernel(b.log_price, b.slow), "realized kernel (Parzen)"),
    "tsrv": Estimator(lambda b: two_scale_variance(b.log_price, b.step), "two-scale realized variance", finer=True),
    "rskew": Estimator(lambda b: realized_skewness(b.returns), "realized skewness"),
    "rkurt": Estimator(lambda b: realized_kurtosis(b.returns), "realized kurtosis"),
    "bns_z": Estimator(lambda b: jump_statistic(b["rv"], b["bv"], b["tpq"], b.n), "jump statistic"),
    "jump": Estimator(
        lambda b: jump_variation(b["rv"], b["bv"], b["bns_z"], b.jump_level), "variance of significant jumps"
    ),
    "continuous": Estimator(lambda b: b["rv"] - b["jump"], "variance without significant jumps"),
    "cov_market": Estimator(
        lambda b: realized_covariance(b.returns, _market(b)), "covariance with the market", market=True
    ),
    "beta": Estimator(lambda b: realized_beta(b.returns, _market(b)), "beta to the market", market=True),
}
