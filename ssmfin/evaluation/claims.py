"""Owns the claims that a verdict is made of: which models are held against which, and what the tests allow to say.

A claim is one model against another at one horizon, by the study's primary loss, pooled over ids:

- ssm: a state-space model against the best baseline of the horizon, picked after the fact by the same loss;
- combination: a combination with a state-space member against that same baseline;
- added: that combination against the same without its state-space members, where the study has it (the member that is
  left, or a combination of those that are left) and it is not that baseline already;
- custom: a model of the user's own against that same best baseline;
- change: a model in one run against the same model in another (`changes.py`).

All claims of a study are corrected together (Holm): each is one more try to find a win.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl

from ssmfin.evaluation.comparison import diebold_mariano, holm
from ssmfin.evaluation.leaderboard import Leaderboard

Role = Literal["ssm", "combination", "added", "custom", "change"]
FEW_PERIODS = 30  # below, the test rejects a true null in 10 % of samples and more at the nominal 5 % (simulated)


@dataclass(frozen=True)
class Combinations:
    """What a verdict must know of the combinations.

    Attributes:
        members: combination -> its members. without: combination -> the model that is the same without its state-space
            members; absent where the study has none.
    """

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)

    def state_space(self, model: str, families: Mapping[str, str]) -> tuple[str, ...]:
        """The state-space members of a combination."""
        return tuple(member for member in self.members.get(model, ()) if families.get(member) == "ssm")


@dataclass(frozen=True)
class Claim:
    """One model against another at one horizon.

    Attributes:
        model: the one that is judged. baseline: what it is held against. role: see the module.
        ratio: loss of the model / loss of the baseline; NaN where undefined.
        statistic, p_value: Diebold-Mariano, two-sided; NaN where there is no test, for `reason`.
        p_adjusted: after Holm over all claims of the verdict.
        in_mcs: the model belongs to the model confidence set at this horizon.
        periods: non-overlapping horizons that the dates hold.
    """

    horizon: int
    model: str
    baseline: str
    ratio: float
    statistic: float
    p_value: float
    p_adjusted: float
    in_mcs: bool
    periods: int
    alpha: float
    reason: str = ""
    role: Role = "ssm"

    @property
    def significant(self) -> bool:
        """NaN compares as False: no test, no significance."""
        return self.p_value < self.alpha and self.p_adjusted < self.alpha

    @property
    def enough(self) -> bool:
        return self.periods >= FEW_PERIODS

    @property
    def wins(self) -> bool:
        return self.ratio < 1 and self.significant and self.enough and self.in_mcs

    @property
    def loses(self) -> bool:
        return self.ratio > 1 and self.significant and self.enough


def make_claims(
    leaderboard: Leaderboard, families: Mapping[str, str], combined: Combinations, alpha: float
) -> tuple[Claim, ...]:
    """All claims of a study, horizon by horizon. A horizon without a baseline of finite loss has none."""
    table = primary(leaderboard)
    scored = sorted(table["model"].unique())
    baselines = [m for m in scored if families[m] == "baseline"]
    ssms = [m for m in scored if families[m] == "ssm"]
    customs = [m for m in scored if families[m] == "custom"]
    combinations = [m for m in scored if combined.state_space(m, families)]
    claims: list[Claim] = []
    for h in table["horizon"].unique().sort():
        best = best_of(table, h, baselines)
        if best is None:
            continue
        duel = Duels(leaderboard, table, int(h), alpha)
        claims += [duel.claim(m, best[0], "ssm") for m in ssms]
        for m in combinations:
            claims.append(duel.claim(m, best[0], "combination"))
            other = combined.without.get(m)
            if other is not None and other in scored and other != best[0]:
                claims.append(duel.claim(m, other, "added"))
        claims += [duel.claim(m, best[0], "custom") for m in customs]
    return corrected(claims)


def corrected(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims with p-values that allow for all of them (Holm)."""
    adjusted = holm(np.array([claim.p_value for claim in claims]))
    return tuple(replace(claim, p_adjusted=float(p)) for claim, p in zip(claims, adjusted, strict=True))


@dataclass(frozen=True)
class Duels:
    """Tests of pairs of models at one horizon, by the primary loss. `table`: as `primary` gives it."""

    leaderboard: Leaderboard
    table: pl.DataFrame
    horizon: int
    alpha: float

    def claim(self, model: str, other: str, role: Role) -> Claim:
        row, base = (
            self.table.filter((pl.col("horizon") == self.horizon) & (pl.col("model") == m)).row(0, named=True)
            for m in (model, other)
        )
        by_date = self.leaderboard.date_losses.filter(pl.col("horizon") == self.horizon).sort("ds")
        losses, base_losses = (by_date.filter(pl.col("model") == m)["value"].to_numpy() for m in (model, other))
        test = diebold_mariano(losses, base_losses, horizon=self.horizon)
        return Claim(
            horizon=self.horizon,
            model=model,
            baseline=other,
            ratio=_ratio(row["value"], base["value"]),
            statistic=test.statistic,
            p_value=test.p_value,
            p_adjusted=math.nan,
            in_mcs=bool(row["in_mcs"]),
            periods=test.n // self.horizon,
            alpha=self.alpha,
            reason=test.reason,
            role=role,
        )


def primary(leaderboard: Leaderboard) -> pl.DataFrame:
    """The pooled table of the loss that counts."""
    return leaderboard.pooled.filter(pl.col("loss") == leaderboard.losses[0])


def best_of(table: pl.DataFrame, horizon: int, models: Iterable[str]) -> tuple[str, float] | None:
    """The model of lowest finite loss at a horizon, ties by name, and its loss."""
    rows = table.filter(
        (pl.col("horizon") == horizon) & pl.col("model").is_in(list(models)) & pl.col("value").is_finite()
    )
    if rows.is_empty():
        return None
    model, value = rows.sort("value", "model").select("model", "value").row(0)
    return str(model), float(value)


def _ratio(value: float, base: float) -> float:
    """NaN where the quotient is undefined; an infinite base has been passed over, or is the judged pair's own."""
    if base > 0 and math.isfinite(base):
        return value / base
    return 1.0 if value == base else math.nan
