"""Owns the verdict: what the leaderboard's numbers allow one to say about state-space models, in plain words.

A state-space model *wins* at a horizon only if all of this holds, by the study's primary loss, pooled over ids:

- its loss is below that of the best baseline of that horizon, which is picked after the fact by the same loss (the
  hardest baseline to beat, so the claim errs on the side of caution);
- the two-sided Diebold-Mariano test between the two rejects at `alpha` after Holm's correction for the number of
  comparisons made (all claims of the study, see `claims.py`);
- it belongs to the model confidence set;
- the dates hold at least FEW_PERIODS non-overlapping horizons, below which such tests reject too often.

It *loses* if its loss is higher, the corrected test rejects and the dates suffice. All else could be chance, and the
words say so. The words are made from `Verdict.claims` alone: nothing is said which no claim holds.

A combination is no state-space model, whatever its members: the first sentence is about state-space models alone, the
next says what a combination with one does against the same baseline, and against the same without it. A sentence for
each model of the user's own says how it stands against that baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.claims import FEW_PERIODS, Claim, Combinations, make_claims, primary
from ssmfin.evaluation.leaderboard import Leaderboard
from ssmfin.evaluation.verdict_words import VerdictWords
from ssmfin.evaluation.wording import listed, step_name

__all__ = ["FEW_PERIODS", "Claim", "Combinations", "Verdict", "make_verdict"]


@dataclass(frozen=True)
class Verdict:
    """Sentences, and the claims they are made of.

    Attributes:
        headline: the first lines of a report: `opening`, the model confidence set and the cost.
        paragraphs: what the headline leaves out: what was scored, the other claims, the rules, and notes.
        opening: what the tests say of the models that are judged.
    """

    headline: str
    paragraphs: tuple[str, ...]
    claims: tuple[Claim, ...]
    opening: str

    def __str__(self) -> str:
        return "\n\n".join((self.headline, *self.paragraphs))


def make_verdict(
    leaderboard: Leaderboard,
    *,
    families: Mapping[str, str],
    combined: Combinations | None = None,
    step: str | None = None,
    alpha: float = 0.05,
) -> Verdict:
    """Say whether a state-space model beats the best baseline, by how much, how surely and at what cost.

    Args:
        leaderboard: of the study; its first loss is the one that counts.
        families: model -> "baseline", "ssm", "sequence", "combination" or "custom"; all models of the study, those that
            failed too.
        combined: what the combinations are made of.
        step: what one step of the horizon is, singular: "day", "hour"; None: what the origins suggest, "day", "week",
            "month" or plain "step".
        alpha: level of the test after Holm's correction.
    Raises:
        InputError: alpha is not in (0, 1), or a model has no family.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha of the verdict is {alpha}; choose a level between 0 and 1, such as 0.05.")
    table, combined = primary(leaderboard), combined or Combinations()
    for model in table["model"].unique().sort():
        if model not in families:
            raise InputError(f"model {model!r} has no family; {nearest(model, families)}")
    scored = set(table["model"])
    ssms = sorted(m for m in scored if families[m] == "ssm")
    absent = sorted(m for m, family in families.items() if family == "ssm" and m not in scored)
    claims = make_claims(leaderboard, families, combined, alpha)
    words = VerdictWords(
        leaderboard, table, families, combined, claims, step or step_name(leaderboard.date_losses["ds"]), alpha
    )
    judged = any(claim.role == "ssm" for claim in claims)
    if judged:
        opening = words.opening("ssm", "state-space model")
    elif ssms:
        opening = "No state-space model can be judged: no baseline has a finite loss on the same rows."
    elif absent:
        opening = f"No state-space model can be judged: {listed(absent)} did not finish. {words.leaders()}"
    else:
        opening = f"There is no deep state-space model in this study. {words.leaders()}"
    if absent and judged:
        opening += f" {listed(absent)} did not finish and {'is' if len(absent) == 1 else 'are'} not judged."
    opening = " ".join((opening, *words.combinations(), *words.customs()))
    headline = " ".join(part for part in (opening, words.confidence_set(), words.cost()) if part)
    paragraphs = (words.scope(), *words.details(), words.rules(), words.others())
    return Verdict(headline, tuple(p for p in (*paragraphs, *leaderboard.notes) if p), claims, opening)
