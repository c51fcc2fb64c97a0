"""Owns what became of a model from one run to another: the same model, the same rows, other features or settings.

A change is better only if the loss is lower than in the first run, the two-sided Diebold-Mariano test between the two
rejects after Holm's correction for all models, horizons and runs tested, and the dates hold at least FEW_PERIODS
non-overlapping horizons; worse likewise. These are the verdict's rules for a win. Its place in the model confidence set
is not asked for: in a set of two the one of lower loss always is, and whether a model is among the best of all is
another question, which the stars of the table answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from ssmfin.evaluation.claims import FEW_PERIODS, Claim, Combinations, Duels, corrected, primary
from ssmfin.evaluation.common_rows import Origins
from ssmfin.evaluation.leaderboard import Leaderboard
from ssmfin.evaluation.verdict_words import VerdictWords, size_words
from ssmfin.evaluation.wording import listed

SCHEMA = {
    "model": pl.String(),
    "run": pl.String(),
    "against": pl.String(),
    "horizon": pl.Int32(),
    "ratio": pl.Float64(),
    "dm_statistic": pl.Float64(),
    "dm_p_value": pl.Float64(),
    "p_holm": pl.Float64(),
    "better": pl.Boolean(),
    "worse": pl.Boolean(),
    "reason": pl.String(),
}


@dataclass(frozen=True)
class Change:
    """A model in one run against the same model in the first run, at one horizon.

    Attributes:
        model: its name in the runs. run, against: labels; `against` is the first run.
        claim: ratio of losses (run / against) and its test, corrected for all changes; names as in the comparison.
    """

    model: str
    run: str
    against: str
    claim: Claim


def make_changes(
    leaderboard: Leaderboard, origins: Origins, labels: Sequence[str], models: Sequence[str], alpha: float
) -> tuple[Change, ...]:
    """Every model of a later run that is also in the first and forecasts otherwise there, at every horizon.

    Args:
        leaderboard: of all runs on their common rows; names as in `origins`. labels: of the runs, the base first.
        models: in the order wanted; those of the leaderboard by their names in the runs.
    """
    names = {origin: name for name, origin_of in origins.items() for origin in origin_of}
    table = primary(leaderboard)
    scored = set(table["model"])
    pairs: dict[tuple[int, str, str], list[tuple[str, str]]] = {}  # one test, though several runs may share a model
    for run in labels[1:]:
        held = set(shared(origins, labels[0], run))
        for model in [model for model in models if model in held]:
            mine, base = names[run, model], names[labels[0], model]
            for horizon in table["horizon"].unique().sort() if mine != base and {mine, base} <= scored else ():
                pairs.setdefault((int(horizon), mine, base), []).append((model, run))
    claims = corrected(
        [replace(Duels(leaderboard, table, h, alpha).claim(a, b, "change"), in_mcs=True) for h, a, b in pairs]
    )
    return tuple(
        Change(model, run, labels[0], claim)
        for claim, found in zip(claims, pairs.values(), strict=True)
        for model, run in found
    )


def shared(origins: Origins, first: str, run: str) -> list[str]:
    """Models that two runs have, in the order of the comparison."""
    has = {label: [m for found in origins.values() for held, m in found if held == label] for label in (first, run)}
    return [model for model in dict.fromkeys(has[first]) if model in has[run]]


def change_table(changes: Sequence[Change]) -> pl.DataFrame:
    """The columns of SCHEMA, a row for each change; null where there is no test, for `reason`."""
    rows = []
    for change in changes:
        claim = change.claim
        numbers = (claim.ratio, claim.statistic, claim.p_value, claim.p_adjusted)
        known = tuple(None if math.isnan(number) else number for number in numbers)
        judged = (claim.wins, claim.loses, claim.reason)
        rows.append((change.model, change.run, change.against, claim.horizon, *known, *judged))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@dataclass(frozen=True)
class ChangeWords:
    """Turns changes into sentences; all that a test may say is said by `VerdictWords`.

    Attributes:
        step: what one step of the horizon is, singular.
    """

    leaderboard: Leaderboard
    families: Mapping[str, str]
    origins: Origins
    labels: Sequence[str]
    changes: Sequence[Change]
    step: str
    alpha: float

    @property
    def words(self) -> VerdictWords:
        claims = tuple(dict.fromkeys(change.claim for change in self.changes))
        table = primary(self.leaderboard)
        return VerdictWords(self.leaderboard, table, self.families, Combinations(), claims, self.step, self.alpha)

    def headline(self) -> str:
        """Which models are better or worse in each later run than in the first, beyond chance."""
        return " ".join(self._of_run(run) for run in self.labels[1:])

    def _of_run(self, run: str) -> str:
        first = self.labels[0]
        own = [change for change in self.changes if change.run == run]
        better = self._named([change for change in own if change.claim.wins])
        worse = self._named([change for change in own if change.claim.loses])
        if better or worse:
            said = [f"Better in {run} than in {first}: {better}."] if better else []
            said += [f"Worse: {worse}." if better else f"Worse in {run} than in {first}: {worse}."] if worse else []
            return " ".join(said)
        if not shared(self.origins, first, run):
            return f"No model is in both {first} and {run}."
        if not own:
            changed = [model for model in shared(self.origins, first, run) if model not in self._same(run)]
            if changed:
                verb = "lacks" if len(changed) == 1 else "lack"
                return f"What changed from {first} to {run} cannot be compared: {listed(changed)} {verb} forecasts."
            return f"The models of {first} forecast the same in {run}."
        if all(math.isnan(change.claim.p_value) for change in own):
            return (
                f"Whether {run} differs from {first} cannot be tested: {own[0].claim.reason or 'losses are undefined'}."
            )
        return f"No model is better or worse in {run} than in {first} beyond chance."

    def _named(self, changes: Sequence[Change]) -> str:
        """'ridge at 1 day (1.2 %); s4d at 1 and 5 days (3.0 %, 2.1 times)'"""
        by_model: dict[str, list[Claim]] = {}
        for change in changes:
            by_model.setdefault(change.model, []).append(change.claim)
        parts = []
        for model, claims in by_model.items():
            sizes = ", ".join(_size(claim.ratio) for claim in claims)
            parts.append(f"{model} at {self.words.at(claim.horizon for claim in claims)} ({sizes})")
        return "; ".join(parts)

    def paragraphs(self) -> tuple[str, ...]:
        """The differences that are more than chance, if only on their own; what is alike; when better is said."""
        said = [text for run in self.labels[1:] for text in self._details(run)]
        alike = [self._alike(run) for run in self.labels[1:]]
        return tuple(text for text in (*said, *self._seeds(), self._rest(), *alike, self._rules()) if text)

    def _details(self, run: str) -> list[str]:
        by_model: dict[str, list[Claim]] = {}
        for change in self.changes:
            if change.run == run and change.claim.p_value < self.alpha:
                by_model.setdefault(change.model, []).append(change.claim)
        return [
            f"{model}'s {self.words.label} in {run} against {self.labels[0]}: {'; '.join(map(self._clause, claims))}."
            for model, claims in by_model.items()
        ]

    def _clause(self, claim: Claim) -> str:
        words = self.words
        count = words.series(claim)
        lower = f", lower in {count} series" if count else ""
        size = size_words(claim.ratio) + (" that" if claim.ratio >= 2 else "")
        return f"at {words.at([claim.horizon])} {size}{lower}{words.remark(claim)}"

    def _seeds(self) -> list[str]:
        """Of a network that is better or worse: that a test of its forecasts says nothing of other seeds."""
        seeds, said = self.leaderboard.seeds, {}
        for change in self.changes:
            claim = change.claim
            if (claim.wins or claim.loses) and self.families[claim.model] in ("ssm", "sequence"):
                counts = f"{seeds[claim.baseline]} in {change.against}, {seeds[claim.model]} in {change.run}"
                said[change.model, change.run] = (
                    f"{change.model} depends on its seeds ({counts}): the test is of these forecasts, other seeds give "
                    "others."
                )
        return list(said.values())

    def _rest(self) -> str:
        tested = [claim for claim in self.words.claims if not math.isnan(claim.p_value)]
        rest = sum(claim.p_value >= self.alpha for claim in tested)
        if not rest:
            return ""
        which = "All" if rest == len(tested) else "The other"
        differences = f"{rest} differences" if rest > 1 else "difference"
        return f"{which} {differences} could be chance even without a correction for many comparisons."

    def _alike(self, run: str) -> str:
        """What cannot be better or worse: the same forecasts, or a model that is in one run alone."""
        first = self.labels[0]
        both, same = shared(self.origins, first, run), self._same(run)
        said = [f"The same forecasts in {first} and {run}: {listed(same)}."] if same and len(same) < len(both) else []
        for here, other in ((first, run), (run, first)):
            alone = [m for found in self.origins.values() for label, m in found if label == here and m not in both]
            said += [f"In {here} but not in {other}: {listed(alone)}."] if alone else []
        return " ".join(said)

    def _same(self, run: str) -> list[str]:
        """Models that forecast the same in a run as in the first."""
        first = self.labels[0]
        return [m for found in self.origins.values() for label, m in found if label == run and (first, m) in found]

    def _rules(self) -> str:
        if not self.changes:
            return ""
        tested = self.words.tested
        holm = f" after Holm's correction for the {tested} comparisons made" if tested > 1 else ""
        return (
            f"Better or worse needs a two-sided Diebold-Mariano test below {self.alpha:g}{holm} and at least "
            f"{FEW_PERIODS} non-overlapping forecast periods."
        )


def _size(ratio: float) -> str:
    """The size alone, where the direction has been said.

    >>> _size(0.957), _size(1.0001), _size(2.34)
    ('4.3 %', '<0.1 %', '2.3 times')
    """
    return re.sub(" (lower|higher)$", "", size_words(ratio)).replace("less than ", "<")
