"""Owns the verdict: what the leaderboard's numbers allow one to say about state-space models, in plain words.

A state-space model *wins* at a horizon only if all of this holds, by the study's primary loss, pooled over ids:

- its loss is below that of the best baseline of that horizon, which is picked after the fact by the same loss (the
  hardest baseline to beat, so the claim errs on the side of caution);
- the two-sided Diebold-Mariano test between the two rejects at `alpha` after Holm's correction for the number of
  comparisons made (state-space models x horizons);
- it belongs to the model confidence set;
- the dates hold at least FEW_PERIODS non-overlapping horizons, below which such tests reject too often.

It *loses* if its loss is higher, the corrected test rejects and the dates suffice. All else could be chance, and the
words say so. The words are made from `Verdict.claims` alone: nothing is said which no claim holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.comparison import diebold_mariano, holm
from ssmfin.evaluation.leaderboard import Leaderboard
from ssmfin.evaluation.losses import loss_named

FEW_PERIODS = 30  # below, the test rejects a true null in 10 % of samples and more at the nominal 5 % (simulated)


@dataclass(frozen=True)
class Claim:
    """One state-space model against the best baseline of one horizon.

    Attributes:
        ratio: loss of the model / loss of the baseline; NaN where undefined.
        statistic, p_value: Diebold-Mariano, two-sided; NaN where there is no test, for `reason`.
        p_adjusted: after Holm over all claims of the verdict.
        in_mcs: the model belongs to the model confidence set at this horizon.
        periods: non-overlapping horizons that the dates hold.
    """

    horizon: int
    ssm: str
    baseline: str
    ratio: float
    statistic: float
    p_value: float
    p_adjusted: float
    in_mcs: bool
    periods: int
    alpha: float
    reason: str = ""

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


@dataclass(frozen=True)
class Verdict:
    """Sentences, and the claims they are made of. `headline` is the first line of a report."""

    headline: str
    paragraphs: tuple[str, ...]
    claims: tuple[Claim, ...]

    def __str__(self) -> str:
        return "\n\n".join((self.headline, *self.paragraphs))


def make_verdict(
    leaderboard: Leaderboard,
    *,
    families: Mapping[str, str],
    step: str | None = None,
    alpha: float = 0.05,
) -> Verdict:
    """Say whether a state-space model beats the best baseline, by how much, how surely and at what cost.

    Args:
        leaderboard: of the study; its first loss is the one that counts.
        families: model -> "baseline", "ssm", "sequence" or "custom"; all models of the study, those that failed too.
        step: what one step of the horizon is, singular: "day", "hour"; None: what the origins suggest, "day", "week",
            "month" or plain "step".
        alpha: level of the test after Holm's correction.
    Raises:
        InputError: alpha is not in (0, 1), or a model has no family.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha of the verdict is {alpha}; choose a level between 0 and 1, such as 0.05.")
    table = _primary(leaderboard)
    for model in table["model"].unique().sort():
        if model not in families:
            raise InputError(f"model {model!r} has no family; {nearest(model, families)}")
    scored = set(table["model"])
    ssms = sorted(m for m in scored if families[m] == "ssm")
    absent = sorted(m for m, family in families.items() if family == "ssm" and m not in scored)
    claims = _claims(leaderboard, table, families, ssms, alpha)
    words = _Words(leaderboard, table, families, claims, step or step_name(leaderboard.date_losses["ds"]), alpha)
    if claims:
        opening = words.opening()
    elif ssms:
        opening = "No state-space model can be judged: no baseline has a finite loss on the same rows."
    elif absent:
        opening = f"No state-space model can be judged: {_listed(absent)} did not finish. {words.leaders()}"
    else:
        opening = f"There is no deep state-space model in this study. {words.leaders()}"
    if absent and claims:
        opening += f" {_listed(absent)} did not finish and {'is' if len(absent) == 1 else 'are'} not judged."
    headline = " ".join(part for part in (opening, words.confidence_set(), words.cost()) if part)
    paragraphs = (words.scope(), *words.details(), words.rules(), words.others())
    return Verdict(headline, tuple(p for p in (*paragraphs, *leaderboard.notes) if p), claims)


def step_name(dates: pl.Series) -> str:
    """What one row of the panel is called, from the usual distance between dates: day, week, month, else step."""
    dates = dates.unique().sort()
    if dates.dtype != pl.Date or len(dates) < 3:
        return "step"
    days = dates.diff().drop_nulls().dt.total_days().median()
    gap = float(days) if isinstance(days, int | float) else 0.0
    return "day" if gap <= 4 else "week" if 5 <= gap <= 9 else "month" if 26 <= gap <= 35 else "step"


def _primary(leaderboard: Leaderboard) -> pl.DataFrame:
    return leaderboard.pooled.filter(pl.col("loss") == leaderboard.losses[0])


def _best(table: pl.DataFrame, horizon: int, models: Iterable[str]) -> tuple[str, float] | None:
    """The model of lowest finite loss at a horizon, ties by name, and its loss."""
    rows = table.filter(
        (pl.col("horizon") == horizon) & pl.col("model").is_in(list(models)) & pl.col("value").is_finite()
    )
    if rows.is_empty():
        return None
    model, value = rows.sort("value", "model").select("model", "value").row(0)
    return str(model), float(value)


def _claims(
    leaderboard: Leaderboard, table: pl.DataFrame, families: Mapping[str, str], ssms: list[str], alpha: float
) -> tuple[Claim, ...]:
    baselines = [m for m in table["model"].unique() if families[m] == "baseline"]
    claims = []
    for h in table["horizon"].unique().sort():
        best = _best(table, h, baselines)
        if best is None:
            continue
        baseline, base_value = best
        by_date = leaderboard.date_losses.filter(pl.col("horizon") == h).sort("ds")
        base_losses = by_date.filter(pl.col("model") == baseline)["value"].to_numpy()
        for ssm in ssms:
            row = table.filter((pl.col("horizon") == h) & (pl.col("model") == ssm)).row(0, named=True)
            losses = by_date.filter(pl.col("model") == ssm)["value"].to_numpy()
            test = diebold_mariano(losses, base_losses, horizon=h)
            claims.append(
                Claim(
                    horizon=int(h),
                    ssm=ssm,
                    baseline=baseline,
                    ratio=_ratio(row["value"], base_value),
                    statistic=test.statistic,
                    p_value=test.p_value,
                    p_adjusted=math.nan,
                    in_mcs=bool(row["in_mcs"]),
                    periods=test.n // int(h),
                    alpha=alpha,
                    reason=test.reason,
                )
            )
    adjusted = holm(np.array([claim.p_value for claim in claims]))
    return tuple(replace(claim, p_adjusted=float(p)) for claim, p in zip(claims, adjusted, strict=True))


def _ratio(value: float, base: float) -> float:
    if base > 0:
        return value / base
    return 1.0 if value == base else math.nan


@dataclass(frozen=True)
class _Words:
    """Turns claims into sentences."""

    leaderboard: Leaderboard
    table: pl.DataFrame
    families: Mapping[str, str]
    claims: tuple[Claim, ...]
    step: str
    alpha: float

    @property
    def label(self) -> str:
        return loss_named(self.leaderboard.losses[0]).label

    @property
    def horizons(self) -> list[int]:
        return [int(h) for h in self.table["horizon"].unique().sort()]

    @property
    def tested(self) -> int:
        return sum(not math.isnan(claim.p_value) for claim in self.claims)

    def at(self, horizons: Iterable[int]) -> str:
        """'1 day', '1, 5 and 22 days'"""
        horizons = list(horizons)
        plural = "" if horizons == [1] else "s"
        return f"{_listed(map(str, horizons))} {self.step}{plural}"

    def opening(self) -> str:
        """The headline's first sentence: one clause for the leading claim of each horizon."""
        leading = []
        for h in dict.fromkeys(claim.horizon for claim in self.claims):
            at_h = [claim for claim in self.claims if claim.horizon == h]
            leading.append(min(at_h, key=lambda c: (not c.wins, math.isnan(c.ratio), c.ratio, c.ssm)))
        winners = {claim.ssm for claim in leading if claim.wins}
        won = [claim.horizon for claim in leading if claim.wins]
        rest = [claim.horizon for claim in leading if not claim.wins]
        if not won:
            start = "No state-space model beats the best baseline"
        else:
            who = next(iter(winners)) if len(winners) == 1 else "A state-space model"
            start = f"{who} beats the best baseline at {self.at(won)} ahead"
            if rest:
                start += f", but not at {self.at(rest)}"
        clauses = [f"at {self.at([claim.horizon])}, {self.clause(claim)}" for claim in leading]
        if len(leading) == 1 and won:  # the horizon has been said
            clauses = [self.clause(leading[0])]
        return f"{start}: {'; '.join(clauses)}."

    def clause(self, claim: Claim) -> str:
        """One claim: the difference, then what the test makes of it."""
        if math.isnan(claim.ratio) or math.isinf(claim.ratio):
            return f"{claim.ssm} cannot be compared with {claim.baseline}, {claim.reason or 'its loss is undefined'}"
        if claim.ratio == 1:
            return f"{claim.ssm} and {claim.baseline} have the same {self.label}"
        difference = self.difference(claim)
        if math.isnan(claim.p_value):
            return f"{difference}, untested because {claim.reason}"
        p = _p(claim.p_adjusted)
        if claim.wins:
            return f"{difference} ({p})"
        if claim.loses:
            return f"{difference}, significantly worse ({p})"
        if claim.significant and not claim.enough:
            stretches = f"{claim.periods} separate stretches of {self.at([claim.horizon])}"
            return f"{difference}, on too few dates to rely on ({p}, but only {stretches})"
        if claim.significant:  # lower loss, but outside the confidence set
            return f"{difference} ({p}), yet it is not in the model confidence set"
        if claim.p_value < self.alpha:
            return (
                f"{difference}, which could be chance once all {self.tested} comparisons are counted "
                f"({p}; {_p(claim.p_value)} on its own)"
            )
        return f"{difference}, which could be chance ({p})"

    def difference(self, claim: Claim) -> str:
        """'s4d's QLIKE is 4.3 % lower than log_har's'"""
        mine, theirs = f"{claim.ssm}'s {self.label}", f"{claim.baseline}'s"
        if claim.ratio >= 2:
            return f"{mine} is {claim.ratio:.{1 if claim.ratio < 100 else 0}f} times {theirs}"
        percent = abs(claim.ratio - 1) * 100
        size = f"{percent:.1f} %" if percent >= 0.05 else "less than 0.1 %"
        return f"{mine} is {size} {'lower' if claim.ratio < 1 else 'higher'} than {theirs}"

    def leaders(self) -> str:
        """Which model has the lowest loss, per horizon, without any claim about significance."""
        best = {h: _best(self.table, h, self.families) for h in self.horizons}
        groups = _grouped((h, found[0]) for h, found in best.items() if found is not None)
        if not groups:
            return f"No model has a finite {self.label}."
        return (
            f"The lowest {self.label} is that of "
            + _listed(model if len(groups) == 1 else f"{model} at {self.at(at)}" for model, at in groups)
            + "."
        )

    def confidence_set(self) -> str:
        members = []
        for h in self.horizons:
            rows = self.table.filter((pl.col("horizon") == h) & pl.col("in_mcs")).sort("value", "model")
            if rows["mcs_p_value"].null_count() < rows.height:
                members.append((h, _listed(rows["model"])))
        groups = _grouped(members)
        if not groups:
            return ""
        percent = f"{(1 - self.leaderboard.mcs_size) * 100:g} %"
        listed = "; ".join(names if at == self.horizons else f"{names} at {self.at(at)}" for names, at in groups)
        return f"In the {percent} model confidence set, not told apart from the best: {listed}."

    def cost(self) -> str:
        """Seconds of the state-space models and of the baselines they are held against."""
        names = dict.fromkeys([c.ssm for c in self.claims] + [c.baseline for c in self.claims])
        parts = []
        for model in names:
            row = self.table.filter(pl.col("model") == model).row(0, named=True)
            if row["fit_seconds"] is not None and row["predict_seconds"] is not None:
                parts.append(f"{model} {_duration(row['fit_seconds'] + row['predict_seconds'])}")
        return f"Computing time: {', '.join(parts)}." if parts else ""

    def scope(self) -> str:
        days: list[str] = self.leaderboard.date_losses["ds"].unique().sort().cast(pl.String).to_list()
        first, last = (day.removesuffix(" 00:00:00.000000") for day in (days[0], days[-1]))
        ids = len(self.leaderboard.ids)
        series = "one series" if ids == 1 else f"{ids} series, losses averaged over the series of a date before testing"
        seeds = [f"{model} is the mean of {k} seeds" for model, k in self.leaderboard.seeds.items() if k > 1]
        text = f"Scored on {len(days):,} forecast dates, {first} to {last}, {series}; all models on the same rows"
        return "; ".join([text, *seeds]) + "."

    def details(self) -> list[str]:
        """One sentence for every claim, with the count of ids; none where the headline has said it all."""
        if len(self.leaderboard.ids) == 1 and len({claim.ssm for claim in self.claims}) == 1:
            return []
        sentences = []
        by_id = self.leaderboard.by_id.filter(pl.col("loss") == self.leaderboard.losses[0])
        for claim in self.claims:
            sentence = f"{self.at([claim.horizon])} ahead: {self.clause(claim)}"
            pair = by_id.filter(pl.col("horizon") == claim.horizon)
            mine, theirs = (
                pair.filter(pl.col("model") == m).select("unique_id", "value") for m in (claim.ssm, claim.baseline)
            )
            both = mine.join(theirs, on="unique_id", suffix="_baseline")
            if both.height > 1:
                lower = both.filter(pl.col("value") < pl.col("value_baseline")).height
                sentence += f"; lower in {lower} of {both.height} series"
            sentences.append(sentence + ".")
        return sentences

    def rules(self) -> str:
        if not self.claims:
            return ""
        many = (
            f" p-values allow for the {self.tested} comparisons made (Holm's correction), so that many tries do not "
            "add up to a lucky win."
            if self.tested > 1
            else ""
        )
        return (
            f"A win needs a lower {self.label} than the best baseline of that horizon (picked with hindsight, which "
            f"favours the baseline), a two-sided Diebold-Mariano test below {self.alpha:g}, a place in the model "
            f"confidence set and at least {FEW_PERIODS} non-overlapping forecast periods.{many}"
        )

    def others(self) -> str:
        """The lowest loss, where it belongs to neither a baseline nor a state-space model."""
        found = []
        for h in self.horizons:
            best = _best(self.table, h, self.families)
            if best is not None and self.families[best[0]] not in ("baseline", "ssm"):
                found.append((h, best[0]))
        return " ".join(
            f"The lowest {self.label} at {self.at(at)} is that of {model}, which is neither a baseline nor a "
            "state-space model."
            for model, at in _grouped(found)
        )


def _grouped(pairs: Iterable[tuple[int, str]]) -> list[tuple[str, list[int]]]:
    """Horizons that share a value, in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for horizon, value in pairs:
        groups.setdefault(value, []).append(horizon)
    return list(groups.items())


def _listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'"""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _duration(seconds: float) -> str:
    """'0.8 s', '42 s', '3 min 12 s', '2 h 5 min'"""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
