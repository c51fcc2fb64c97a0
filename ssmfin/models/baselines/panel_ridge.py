"""Owns ridge regression of a panel: slopes common to all ids, and each id's own departure from them, shrunk."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import CONSTANT, Regression
from ssmfin.models.baselines.linear_walk import Estimates, FittedLinear
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.baselines.scales import model_response, require_positive_training
from ssmfin.models.interface import FloatArray, Forecaster, TrainingSet

LEAST_ROWS = 100  # before an id's own residual variance is worth more than that of the panel


class PanelRidge(Forecaster):
    """Ridge regression with slopes that are mostly common: each id's own are shrunk towards those of the panel.

    b   = argmin sum_i sum_t (y_it - a_i - x_it'b)^2 + n penalty sum_j (sd_j b_j)^2
    d_i = argmin sum_t (y_it - a_i - x_it'(b + d))^2 + n_i own h sum_j (sd_j d_j)^2,      forecast a_i + x'(b + d_i)

    with n rows of all ids and n_i of one, sd_j about the ids' own means. Labels over h rows overlap, so they say h
    times less about an id: hence own h. own -> infinity is the within estimator, own = 0 a regression for each id,
    which fits one crisis to every id; common slopes need not, and that shows at long horizons. Penalties are the
    user's: a validation tail of half a year cannot choose between them. s2 of the bias correction is the id's residual
    variance, of all ids together for an id with fewer than `LEAST_ROWS`.

    References:
        Lindley, Smith (1972), Journal of the Royal Statistical Society B 34, section 3; Maddala, Trost, Li, Joutz
        (1997), Journal of Business and Economic Statistics 15 (shrinkage of a panel's slopes).
    """

    kind: ClassVar[str] = "panel_ridge"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "ridge on all features, each id's slopes shrunk towards those of all ids"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    seconds_per_fit: ClassVar[float] = 0.2
    fits_per_task: ClassVar[int] = 32

    penalty: float = Field(
        1e-3, ge=1e-9, le=1e9, description="of the common slopes, per row and standardised regressor"
    )
    own: float = Field(
        0.3, ge=1e-9, le=1e9, description="of an id's departure from them, per row and horizon; large: no departure"
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> FittedLinear:
        design = training.design
        if design.target.transform == "log":
            require_positive_training(training, model=self.kind)
        if not design.features.shape[1]:
            raise InputError("features is empty, 0 columns; name at least one feature set for panel_ridge.")
        response = model_response(design)
        estimates: Estimates = {}
        for h, horizon in enumerate(design.target.horizons):
            found = self._slopes(training, h, response[:, h], float(horizon))
            estimates |= {(k, h): (regression, None) for k, regression in found.items()}
        return Ridge().from_estimates(design.ids, estimates)

    def _slopes(self, training: TrainingSet, h: int, response: FloatArray, horizon: float) -> dict[int, Regression]:
        design, p = training.design, training.design.features.shape[1]
        of_id = {
            k: rows
            for k in range(len(design.ids))
            if len(rows := np.flatnonzero(training.train[design.rows_of(k), h]) + int(design.starts[k]))
        }
        if not of_id:
            raise InputError(
                f"the training window that ends at {design.dates[training.window.cutoff]} has no label for horizon "
                f"{design.target.horizons[h]}; lengthen walk_forward.train.size, or drop that horizon."
            )
        centres = {k: (design.features[rows].mean(axis=0), response[rows].mean()) for k, rows in of_id.items()}
        x = {k: design.features[rows] - centres[k][0] for k, rows in of_id.items()}
        n = sum(len(rows) for rows in of_id.values())
        scale = np.sqrt(sum(np.square(part).sum(axis=0) for part in x.values()) / n)
        largest = np.max([np.abs(mean) for mean, _ in centres.values()], axis=0)
        inverse = np.where(scale > CONSTANT * largest, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
        x = {k: part * inverse for k, part in x.items()}
        y = {k: response[rows] - centres[k][1] for k, rows in of_id.items()}
        moments = {k: (x[k].T @ x[k], x[k].T @ y[k]) for k in of_id}
        unit = np.eye(p)
        common = np.linalg.solve(
            np.sum([xx for xx, _ in moments.values()], axis=0) / n + self.penalty * unit,
            np.sum([xy for _, xy in moments.values()], axis=0) / n,
        )
        slopes: dict[int, FloatArray] = {}
        squares: dict[int, float] = {}
        freedom: dict[int, float] = {}  # of the residuals
        for k, (xx, xy) in moments.items():
            count = len(of_id[k])
            solved = np.linalg.solve(
                xx / count + self.own * horizon * unit, np.column_stack([xy - xx @ common, xx]) / count
            )
            slopes[k] = common + solved[:, 0]
            squares[k] = float(np.square(y[k] - x[k] @ slopes[k]).sum())
            freedom[k] = max(count - 1 - float(np.trace(solved[:, 1:])), 1.0)
        overall = sum(squares.values()) / sum(freedom.values())
        answers = {}
        for k, rows in of_id.items():
            coefficients = slopes[k] * inverse
            variance = squares[k] / freedom[k] if len(rows) >= LEAST_ROWS else overall
            answers[k] = Regression(
                intercept=np.array([centres[k][1] - centres[k][0] @ coefficients]),
                coefficients=coefficients[None],
                residual_variance=np.array([variance]),
                n=np.array([float(len(rows))]),
                penalty=np.array([self.penalty]),
            )
        return answers
