"""Owns the diagnosis of a filtered panel: every residual test of every series in one table, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.diagnostics import residual_tests
from ssmfin.diagnostics.innovations import standardised_innovations
from ssmfin.errors import InputError

if TYPE_CHECKING:
    import polars as pl

FloatArray = np.ndarray  # float64


@dataclass(frozen=True)
class Diagnosis:
    """Residual tests of B series with P components each; arrays (B, P).

    Attributes:
        ids: (B,). status: (B,) of the fit: converged, not_converged, failed; "given" where there was none.
        reason: (B,) its words, "" where all is well.
        observations: seen and not diffuse.
        mean, variance: of the standardised innovations; 0 and 1 if the model is right.
        ljung_box, ljung_box_p: Q over the first `lags` lags.
        heteroskedasticity, heteroskedasticity_p: H of last against first third, two-sided.
        jarque_bera, jarque_bera_p, skewness, kurtosis.
        cusum_crossed, cusum_of_squares_crossed: bool.
        lags: of Ljung-Box. level: below which a p-value counts as a finding.
    """

    ids: tuple[str, ...]
    status: tuple[str, ...]
    reason: tuple[str, ...]
    observations: np.ndarray
    mean: FloatArray
    variance: FloatArray
    ljung_box: FloatArray
    ljung_box_p: FloatArray
    heteroskedasticity: FloatArray
    heteroskedasticity_p: FloatArray
    jarque_bera: FloatArray
    jarque_bera_p: FloatArray
    skewness: FloatArray
    kurtosis: FloatArray
    cusum_crossed: np.ndarray
    cusum_of_squares_crossed: np.ndarray
    lags: int
    level: float

    @property
    def table(self) -> pl.DataFrame:
        """One row a series and component."""
        import polars as pl

        B, P = self.mean.shape
        columns: dict[str, Any] = {
            "unique_id": np.repeat(np.array(self.ids, dtype=str), P),
            "component": np.tile(np.arange(P), B),
            "status": np.repeat(np.array(self.status, dtype=str), P),
        }
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                columns[name] = value.ravel()
        return pl.DataFrame(columns)

    def findings(self, series: int = 0, component: int = 0) -> list[str]:
        """What is wrong with one series, in words; empty if nothing is."""
        at = (series, component)
        found = []
        if self.status[series] in ("not_converged", "failed"):
            found.append(f"the fit is {self.status[series]}: {self.reason[series].rstrip('.')}")
        if self.observations[at] < self.lags + 2:
            return [*found, f"only {self.observations[at]} innovations: too few to test"]
        if self.ljung_box_p[at] < self.level:
            found.append(
                f"autocorrelated: Ljung-Box Q({self.lags}) = {self.ljung_box[at]:.1f}, p = {self.ljung_box_p[at]:.2g}; "
                "the model misses some dynamics"
            )
        if self.heteroskedasticity_p[at] < self.level:
            way = "grew" if self.heteroskedasticity[at] > 1 else "fell"
            found.append(
                f"variance {way}: H = {self.heteroskedasticity[at]:.2f}, p = {self.heteroskedasticity_p[at]:.2g}; "
                "standard errors and bands are off at both ends"
            )
        if self.jarque_bera_p[at] < self.level:
            found.append(
                f"not normal: skewness {self.skewness[at]:.2f}, kurtosis {self.kurtosis[at]:.2f}, "
                f"Jarque-Bera p = {self.jarque_bera_p[at]:.2g}; quantiles are off, means less so"
            )
        if self.cusum_crossed[at]:
            found.append("CUSUM leaves its bounds: the mean has shifted")
        if self.cusum_of_squares_crossed[at]:
            found.append("CUSUM of squares leaves its bounds: the variance has shifted")
        return found

    def __str__(self) -> str:
        lines = []
        for b, name in enumerate(self.ids):
            for p in range(self.mean.shape[1]):
                label = name if self.mean.shape[1] == 1 else f"{name}[{p}]"
                found = self.findings(b, p) or ["no test finds anything wrong"]
                lines.append(f"{label} ({self.observations[b, p]} innovations): " + "; ".join(found))
        return "\n".join(lines)


def diagnose(
    source: Any, *, ids: Sequence[object] | None = None, lags: int = 10, parameters: int = 0, level: float = 0.05
) -> Diagnosis:
    """Test the standardised innovations of every series for all that a right model rules out.

    Args:
        source: what a filter returned, or an array (T,), (B, T) or (B, T, P).
        ids: (B,) names; None for positions.
        lags: of Ljung-Box; fewer where the series is short. parameters: taken off its degrees of freedom.
        level: of every test, for the words and for the bounds of the CUSUMs (0.01, 0.05 or 0.1).
    Returns:
        Diagnosis; `print` it, or take its `table`.
    References:
        Durbin & Koopman (2012), section 2.12; Commandeur & Koopman (2007), section 8.5.

    >>> z = np.random.default_rng(0).standard_normal(200)
    >>> print(diagnose(z, ids=["noise"]))
    noise (200 innovations): no test finds anything wrong
    """
    z = np.moveaxis(standardised_innovations(source), 1, 2)  # (B, T, P) -> (B, P, T)
    B, _, T = z.shape
    names = tuple(str(name) for name in (range(B) if ids is None else ids))
    if len(names) != B:
        raise InputError(f"ids has {len(names)} entries for {B} series; give one id a series.")
    fit = getattr(source, "fit", None)
    status = ("given",) * B if fit is None else tuple(str(word) for word in fit.status)
    reason = ("",) * B if fit is None else tuple(fit.reason)
    if T < 4:
        raise InputError(f"source has {T} steps; give at least 4.")
    lags = min(lags, T - 2)
    seen = (~np.isnan(z)).sum(-1)
    counted = np.maximum(seen, 1)
    mean = np.where(seen > 0, np.nansum(z, axis=-1) / counted, np.nan)
    variance = np.where(seen > 0, np.nansum((z - mean[..., None]) ** 2, axis=-1) / counted, np.nan)
    box = residual_tests.ljung_box(z, lags, parameters=parameters)
    break_ = residual_tests.heteroskedasticity(z)
    normality = residual_tests.jarque_bera(z)
    return Diagnosis(
        names,
        status,
        reason,
        seen,
        mean,
        variance,
        box.statistic[..., -1],
        box.p_value[..., -1],
        break_.statistic,
        break_.p_value,
        normality.statistic,
        normality.p_value,
        normality.skewness,
        normality.kurtosis,
        residual_tests.cusum(z, level=level).crossed,
        residual_tests.cusum_of_squares(z, level=level).crossed,
        lags,
        level,
    )
