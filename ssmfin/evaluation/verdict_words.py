"""Owns the sentences of a verdict: each says what a claim and its test allow, its numbers from the claims alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from ssmfin.evaluation.claims import FEW_PERIODS, Claim, Combinations, best_of
from ssmfin.evaluation.leaderboard import Leaderboard
from ssmfin.evaluation.losses import loss_named
from ssmfin.evaluation.wording import duration_words, horizons_named, listed, p_words


@dataclass(frozen=True)
class VerdictWords:
    """Turns claims into sentences.

    Attributes:
        table: pooled rows of the loss that counts. families, combined, alpha: as in `make_verdict`.
        step: what one step of the horizon is, singular.
    """

    leaderboard: Leaderboard
    table: pl.DataFrame
    families: Mapping[str, str]
    combined: Combinations
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
        return horizons_named(horizons, self.step)

    def leading(self, role: str) -> list[Claim]:
        """Of each horizon the claim that says most for the models of a role."""
        found = []
        for h in dict.fromkeys(claim.horizon for claim in self.claims):
            at_h = [claim for claim in self.claims if claim.horizon == h and claim.role == role]
            found += sorted(at_h, key=lambda c: (not c.wins, math.isnan(c.ratio), c.ratio, c.model))[:1]
        return found

    def opening(self, role: str, noun: str) -> str:
        """Whether the models of a role beat the best baseline: one clause for the leading claim of each horizon."""
        leading = self.leading(role)
        winners = {claim.model for claim in leading if claim.wins}
        won = [claim.horizon for claim in leading if claim.wins]
        rest = [claim.horizon for claim in leading if not claim.wins]
        if not won:
            start = f"No {noun} beats the best baseline"
        else:
            who = self.called(next(iter(winners))) if len(winners) == 1 else f"A {noun}"
            start = f"{who} beats the best baseline at {self.at(won)} ahead"
            if rest:
                start += f", but not at {self.at(rest)}"
        clauses = [f"at {self.at([claim.horizon])}, {self.clause(claim)}" for claim in leading]
        if len(leading) == 1 and won:  # the horizon has been said
            clauses = [self.clause(leading[0])]
        return f"{start}: {'; '.join(clauses)}."

    def called(self, model: str) -> str:
        """A combination with its members, any other model by its name."""
        members = self.combined.members.get(model)
        return f"{model}, the combination of {listed(members)}," if members else model

    def combinations(self) -> list[str]:
        """What combinations with a state-space member do, and what that member adds to the others."""
        leading = self.leading("combination")
        if not leading:
            return []
        said = [self.opening("combination", "combination with a state-space model")]
        for model in dict.fromkeys(claim.model for claim in leading):
            ssms = listed(self.combined.state_space(model, self.families))
            others = [m for m in self.combined.members[model] if self.families.get(m) != "ssm"]
            other = self.combined.without.get(model)
            if other is None:
                if others:
                    said.append(f"Without {ssms} {model} is not in the study: what is added is not told apart.")
                continue
            same = [claim.horizon for claim in leading if claim.model == model and claim.baseline == other]
            if same:
                said.append(
                    f"At {self.at(same)} that baseline is {model} without {ssms}: the difference is what is added."
                )
            if added := self.added(model):
                clauses = [f"at {self.at([claim.horizon])}, {self.clause(claim)}" for claim in added]
                said.append(f"Held against {other}, which is {model} without {ssms}: {'; '.join(clauses)}.")
        return said

    def added(self, model: str) -> list[Claim]:
        """What state-space members add to a combination, at the horizons at which it leads."""
        at = [claim.horizon for claim in self.leading("combination") if claim.model == model]
        return [c for c in self.claims if c.role == "added" and c.model == model and c.horizon in at]

    def customs(self) -> list[str]:
        """How each model of the user's own stands against the best baseline, a sentence each."""
        said = []
        for model in dict.fromkeys(claim.model for claim in self.claims if claim.role == "custom"):
            own = [claim for claim in self.claims if claim.model == model]
            clauses = [f"at {self.at([claim.horizon])}, {self.clause(claim)}" for claim in own]
            said.append(f"{model} against the best baseline: {'; '.join(clauses)}.")
        return said

    def clause(self, claim: Claim) -> str:
        """One claim: the difference, then what the test makes of it."""
        if math.isnan(claim.ratio) or math.isinf(claim.ratio):
            return f"{claim.model} cannot be compared with {claim.baseline}, {claim.reason or 'its loss is undefined'}"
        if claim.ratio == 1:
            return f"{claim.model} and {claim.baseline} have the same {self.label}"
        return self.difference(claim) + self.remark(claim)

    def difference(self, claim: Claim) -> str:
        """'s4d's QLIKE is 4.3 % lower than log_har's'"""
        mine, theirs = f"{claim.model}'s {self.label}", f"{claim.baseline}'s"
        than = "" if claim.ratio >= 2 else "than "
        return f"{mine} is {size_words(claim.ratio)} {than}{theirs}"

    def remark(self, claim: Claim) -> str:
        """What the test makes of a difference, to follow it: ' (p < 0.001)', ', which could be chance (p = 0.35)'."""
        if math.isnan(claim.p_value):
            return f", untested because {claim.reason}"
        p = p_words(claim.p_adjusted)
        if claim.wins:
            return f" ({p})"
        if claim.loses:
            return f", significantly worse ({p})"
        if claim.significant and not claim.enough:
            stretches = f"{claim.periods} separate stretches of {self.at([claim.horizon])}"
            return f", on too few dates to rely on ({p}, but only {stretches})"
        if claim.significant:  # lower loss, but outside the confidence set
            return f" ({p}), yet it is not in the model confidence set"
        if claim.p_value < self.alpha:
            return (
                f", which could be chance once all {self.tested} comparisons are counted "
                f"({p}; {p_words(claim.p_value)} on its own)"
            )
        return f", which could be chance ({p})"

    def leaders(self) -> str:
        """Which model has the lowest loss, per horizon, without any claim about significance."""
        best = {h: best_of(self.table, h, self.families) for h in self.horizons}
        groups = _grouped((h, found[0]) for h, found in best.items() if found is not None)
        if not groups:
            return f"No model has a finite {self.label}."
        return (
            f"The lowest {self.label} is that of "
            + listed(model if len(groups) == 1 else f"{model} at {self.at(at)}" for model, at in groups)
            + "."
        )

    def confidence_set(self) -> str:
        members = []
        for h in self.horizons:
            rows = self.table.filter((pl.col("horizon") == h) & pl.col("in_mcs")).sort("value", "model")
            if rows["mcs_p_value"].null_count() < rows.height:
                members.append((h, listed(rows["model"])))
        groups = _grouped(members)
        if not groups:
            return ""
        percent = f"{(1 - self.leaderboard.mcs_size) * 100:g} %"
        text = "; ".join(names if at == self.horizons else f"{names} at {self.at(at)}" for names, at in groups)
        return f"In the {percent} model confidence set, not told apart from the best: {text}."

    def cost(self) -> str:
        """Seconds of the models that are judged and of those they are held against."""
        names = dict.fromkeys([c.model for c in self.claims] + [c.baseline for c in self.claims])
        parts = []
        for model in names:
            row = self.table.filter(pl.col("model") == model).row(0, named=True)
            if row["fit_seconds"] is not None and row["predict_seconds"] is not None:
                parts.append(f"{model} {duration_words(row['fit_seconds'] + row['predict_seconds'])}")
        return f"Computing time: {', '.join(parts)}." if parts else ""

    def scope(self) -> str:
        days: list[str] = self.leaderboard.date_losses["ds"].unique().sort().cast(pl.String).to_list()
        first, last = (day.removesuffix(" 00:00:00.000000") for day in (days[0], days[-1]))
        ids = len(self.leaderboard.ids)
        series = "one series" if ids == 1 else f"{ids} series, losses averaged over the series of a date before testing"
        seeds = [f"{model} is the mean of {k} seeds" for model, k in self.leaderboard.seeds.items() if k > 1]
        text = f"Scored on {len(days):,} forecast dates, {first} to {last}, {series}; all models on the same rows"
        return "; ".join([text, *seeds]) + "."

    def headlined(self) -> list[Claim]:
        """The claims whose clauses are in the headline."""
        leading = self.leading("combination")
        added = [claim for model in dict.fromkeys(claim.model for claim in leading) for claim in self.added(model)]
        return [*self.leading("ssm"), *leading, *added, *(claim for claim in self.claims if claim.role == "custom")]

    def details(self) -> list[str]:
        """What the headline leaves out: a sentence for every other claim, and in how many series a loss is lower."""
        headlined = self.headlined()
        sentences = []
        for claim in self.claims:
            if claim not in headlined:
                count = self.series(claim)
                lower = f"; lower in {count} series" if count else ""
                sentences.append(f"{self.at([claim.horizon])} ahead: {self.clause(claim)}{lower}.")
        return [*self.by_series(headlined), *sentences]

    def by_series(self, claims: Iterable[Claim]) -> list[str]:
        """In how many series the loss is lower, a clause for every pair of models; none where there is one series."""
        counts: dict[tuple[str, str], list[str]] = {}
        for claim in claims:
            if count := self.series(claim):
                at = f"{count} series at {self.at([claim.horizon])}"
                counts.setdefault((claim.model, claim.baseline), []).append(at)
        pairs = [f"{model}'s than {other}'s in {listed(found)}" for (model, other), found in counts.items()]
        return [f"Series by series, {self.label} is lower: {'; '.join(pairs)}."] if pairs else []

    def series(self, claim: Claim) -> str:
        """'14 of 21', how often the model's loss is lower; "" where there is one series."""
        by_id = self.leaderboard.by_id.filter(
            (pl.col("loss") == self.leaderboard.losses[0]) & (pl.col("horizon") == claim.horizon)
        )
        mine, theirs = (
            by_id.filter(pl.col("model") == m).select("unique_id", "value") for m in (claim.model, claim.baseline)
        )
        both = mine.join(theirs, on="unique_id", suffix="_baseline")
        lower = both.filter(pl.col("value") < pl.col("value_baseline")).height
        return f"{lower} of {both.height}" if both.height > 1 else ""

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
            best = best_of(self.table, h, self.families)
            if best is not None and self.families[best[0]] not in ("baseline", "ssm"):
                found.append((h, best[0]))
        return " ".join(
            f"The lowest {self.label} at {self.at(at)} is that of {model}, which is "
            + (
                "a combination."
                if self.families[model] == "combination"
                else "neither a baseline nor a state-space model."
            )
            for model, at in _grouped(found)
        )


def size_words(ratio: float) -> str:
    """How far apart two losses are.

    >>> size_words(0.957), size_words(1.0001), size_words(2.34)
    ('4.3 % lower', 'less than 0.1 % higher', '2.3 times')
    """
    if ratio >= 2:
        return f"{ratio:.{1 if ratio < 100 else 0}f} times"
    percent = abs(ratio - 1) * 100
    size = f"{percent:.1f} %" if percent >= 0.05 else "less than 0.1 %"
    return f"{size} {'lower' if ratio < 1 else 'higher'}"


def _grouped(pairs: Iterable[tuple[int, str]]) -> list[tuple[str, list[int]]]:
    """Horizons that share a value, in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for horizon, value in pairs:
        groups.setdefault(value, []).append(horizon)
    return list(groups.items())
