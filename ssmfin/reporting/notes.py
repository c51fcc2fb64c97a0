"""Owns what models note about themselves, for a reader: which facts stand together, how they are said, what they mean.

A fact that has no words here (of a user's own model, say) is shown with its name as the label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssmfin.reporting.style import ModelStyle, fact_text, label_text, typeset
from ssmfin.reporting.tables import Cell, Table

# key -> (label, what it is and what a healthy value looks like)
MEANINGS: dict[str, tuple[str, str]] = {
    "insanity_filter": (
        "Insanity filter",
        "Forecasts outside the range of the training window's outcomes, which were replaced: by the mean of that "
        "window (HAR), or by the base without its correction (networks). Up to about 1 % is usual, most of it in "
        "crises; each one there is costly, because the mean lies far below.",
    ),
    "penalty_median": (
        "Penalty median",
        "Of the penalties chosen, one for each fit, id and horizon. Any value of the grid is healthy.",
    ),
    "penalty_at_smallest": (
        "Penalty at smallest",
        "How often the smallest of the grid was chosen: there ridge is nearly ordinary least squares. Harmless, unless "
        "features are many and rows are few.",
    ),
    "penalty_at_largest": (
        "Penalty at largest",
        "How often the largest of the grid was chosen. Healthy: a minority; if it is most, the features say little on "
        "the validation tail. The grid ends on purpose: a larger penalty pulls forecasts to the window's mean.",
    ),
    "trees_mean": (
        "Trees mean",
        "Trees kept by early stopping, mean over boosters. Healthy: well above 1 and below max_rounds (500 unless the "
        "study says otherwise); a handful means that the features helped little on the validation tail.",
    ),
    "boosters": ("Boosters", "Fitted: one for each fit and horizon; for each id too, where they are not pooled."),
    "not_converged": (
        "Not converged",
        "Fits whose likelihood was not maximised, of all ids and windows. Healthy: 0, or few; a substitute was used.",
    ),
    "not_converged_ids": ("Not converged ids", "The ids of the fits that did not converge."),
    "failed_ids": ("Failed ids", "Ids without usable parameters in some window; they took the median of the others'."),
    "dates_regressed": ("Dates regressed", "Cross-sections that the slopes were averaged over, mean over fits."),
    "parameters": (
        "Parameters",
        "Numbers that one network learns. Healthy: not far more than training rows (see the fold map).",
    ),
    "fits": ("Fits", "Models estimated: fits of the study, times seeds and ids where each has its own."),
    "fits_that_stayed_at_the_baseline": (
        "Fits that stayed at the base",
        "No epoch beat the base on the validation tail, so the forecast is the base's, unchanged. Healthy: a minority; "
        "all of them means that the network has added nothing.",
    ),
    "best_epoch": (
        "Best epoch",
        "The epoch whose weights are kept (0: the base itself) and the epochs run, means over fits. Healthy: the best "
        "well before the last; at the very end, training was cut short (epochs, patience).",
    ),
    "epochs": ("Epochs", "Passes over the training window."),
    "validation_loss": (
        "Validation loss",
        "On the validation tail, before training (that of the base) and at the best epoch, means over fits. Healthy: a "
        "fall that the leaderboard repeats; a large fall here alone is overfitting to the tail.",
    ),
    "memory": (
        "Memory",
        "Half-lives of the state's modes: so long until half is left of what a mode can hold. From fits that learned; "
        "shortest, median and longest, each a mean over fits. Healthy: around the horizons forecast; longer than the "
        "training window cannot have been learned.",
    ),
    "spectral_radius": (
        "Spectral radius",
        "Largest factor by which a mode of the state is kept from one row to the next, mean over fits. Healthy: below "
        "1, where every state forgets; close to 1 is long memory; 1 or more is unstable.",
    ),
    "period_shortest": (
        "Period shortest",
        "Rows of the fastest oscillation that a mode can follow; 2 is the fastest that rows can show. No value is bad.",
    ),
    "state_norm": (
        "State norm",
        "Root mean square of the numbers in the state after the last row, mean over fits. Its unit is the network's "
        "own: healthy is a size that stays much the same between runs; a leap of orders of magnitude is instability.",
    ),
    "slow_gradient_norm": (
        "Slow gradient norm",
        "Of the parameters that make the state (decay, step size, what enters and leaves), before clipping, mean over "
        "training. Healthy: above 0 and below gradient_clip (1 unless the study says otherwise). 0: they did not "
        "learn, or the model has none; above: steps were cut short, training was rough.",
    ),
    "step_size_gradient_norm": (
        "Step size gradient norm",
        "The same of the step sizes alone, which set how fast the state forgets: the first to rise if training fails.",
    ),
    "ensemble_spread": (
        "Ensemble spread",
        "Standard deviation between the members of one ensemble, as a part of the base's forecast (of the outcomes' "
        "scale without logs). Healthy: small beside 1; else the members disagree and more of them would help.",
    ),
}
# A model's notes go under the first title one of whose keys they have.
_GROUPS: tuple[tuple[str, str], ...] = (
    ("best_epoch", "Networks"),
    ("trees_mean", "Boosted trees"),
    ("not_converged", "Maximum likelihood"),
    ("dates_regressed", "Mean slopes across ids"),
    ("penalty_median", "Ridge regressions"),
    ("insanity_filter", "HAR"),
)
OTHER = "Other facts"


class Fact(NamedTuple):
    """One fact of one model."""

    label: str
    text: str
    meaning: str = ""


def note_tables(
    notes: Mapping[str, Mapping[str, Any]], styles: Mapping[str, ModelStyle], step: str
) -> tuple[Table, ...]:
    """The notes of all models, one table for models of a like kind: facts down, with their meaning, models across.

    Args:
        notes: model -> plain facts. step: what a row of the panel is, singular.
    """
    kinds: dict[str, dict[str, list[Fact]]] = {}
    for model in sorted(notes):
        if notes[model]:
            kinds.setdefault(_title(notes[model]), {})[model] = facts(notes[model], step)
    titles = dict.fromkeys([*(title for _, title in _GROUPS), OTHER])
    return tuple(_table(title, kinds[title], styles) for title in titles if title in kinds)


def _title(notes: Mapping[str, Any]) -> str:
    return next((title for key, title in _GROUPS if key in notes), OTHER)


def _table(title: str, by_model: Mapping[str, list[Fact]], styles: Mapping[str, ModelStyle]) -> Table:
    head = (Cell("Fact", "fact"), *(Cell(model=styles[model], css="num model-head") for model in by_model))
    texts = {(model, fact.label): fact.text for model, found in by_model.items() for fact in found}
    meanings = {fact.label: fact.meaning for found in by_model.values() for fact in found}
    body = tuple(
        (
            Cell(label, "fact", note=meaning),
            *(Cell(texts.get((model, label), "–"), "num said") for model in by_model),
        )
        for label, meaning in meanings.items()
    )
    return Table(title, (head,), body, css="notes")


def facts(notes: Mapping[str, Any], step: str = "row") -> list[Fact]:
    """A model's plain facts, those that belong together said together; counts are put in proportion.

    >>> scales = {"time_scale_shortest": 2.0, "time_scale_median": 12.5, "time_scale_longest": 250.0}
    >>> [(fact.label, fact.text) for fact in facts(scales, "day")]
    [('Memory', '1.39, 8.66 and 173 days')]
    >>> [(fact.label, fact.text) for fact in facts({"fits": 2, "fits_that_stayed_at_the_baseline": 2} | scales)]
    [('Fits', '2'), ('Fits that stayed at the base', '2 of 2 (100\\xa0%)')]
    """
    said = dict(notes)
    for tell in (_insanity, _penalties, _stayed, _epochs, _validation, _memory):
        tell(said, step)
    order = [*(key for key in MEANINGS if key in said), *(key for key in said if key not in MEANINGS)]
    lines = []
    for key in order:
        label, meaning = MEANINGS.get(key, (label_text(key), ""))
        if isinstance(said[key], Mapping):
            lines += [Fact(f"{label}: {name}", fact_text(item), meaning) for name, item in said[key].items()]
        else:
            lines.append(Fact(label, typeset(fact_text(said[key])), meaning))
    return lines


# Each says some facts in one text, in place, if all of them are there.


def _insanity(said: dict[str, Any], step: str) -> None:
    count, forecasts = said.get("insanity_filter"), said.get("forecasts")
    if isinstance(count, int) and isinstance(forecasts, int) and forecasts > 0:
        del said["forecasts"]
        share = _percent(100 * count / forecasts)
        said["insanity_filter"] = f"replaced {count:,} of {forecasts:,} forecasts ({share})"


def _penalties(said: dict[str, Any], step: str) -> None:
    if _are_numbers(said, "penalties", "penalty_at_smallest", "penalty_at_largest") and said["penalties"] > 0:
        total = said.pop("penalties")
        for key in ("penalty_at_smallest", "penalty_at_largest"):
            said[key] = _share(said[key], total)


def _stayed(said: dict[str, Any], step: str) -> None:
    fits, stayed = said.get("fits"), said.get("fits_that_stayed_at_the_baseline")
    if isinstance(fits, int) and isinstance(stayed, int) and fits > 0:
        said["fits_that_stayed_at_the_baseline"] = _share(stayed, fits)
        if stayed == fits:  # what it started with is no memory that was learned
            for which in ("shortest", "median", "longest"):
                said.pop(f"time_scale_{which}", None)


def _epochs(said: dict[str, Any], step: str) -> None:
    if _are_numbers(said, "best_epoch", "epochs"):
        said["best_epoch"] = f"{said['best_epoch']:.3g} of {said.pop('epochs'):.3g}"


def _validation(said: dict[str, Any], step: str) -> None:
    if _are_numbers(said, "validation_loss_at_start", "validation_loss"):
        before, after = said.pop("validation_loss_at_start"), said["validation_loss"]
        change = f" ({100 * (after / before - 1):+.1f} %)".replace("-", "−") if before > 0 else ""
        said["validation_loss"] = f"{before:.4g} to {after:.4g}{change}"


def _memory(said: dict[str, Any], step: str) -> None:
    keys = [f"time_scale_{which}" for which in ("shortest", "median", "longest")]
    if _are_numbers(said, *keys):
        low, middle, high = (f"{math.log(2) * said.pop(key):.3g}" for key in keys)
        said["memory"] = f"{low}, {middle} and {high} {step}s"
    if _are_numbers(said, "period_shortest"):
        said["period_shortest"] = f"{said['period_shortest']:.3g} {step}s"


def _are_numbers(said: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(said.get(key), int | float) and not isinstance(said[key], bool) for key in keys)


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({_percent(100 * count / total)})"


def _percent(share: float) -> str:
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"
