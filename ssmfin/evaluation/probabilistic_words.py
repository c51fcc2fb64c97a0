"""Owns what is said of quantiles and events in words: one sentence a model, its numbers from the table alone."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ssmfin.evaluation.probabilistic import Probabilistic
from ssmfin.evaluation.wording import horizons_named, listed, p_words


def probabilistic_sentences(found: Probabilistic, families: Mapping[str, str], step: str) -> tuple[str, ...]:
    """A sentence for each model that gives quantiles or events, and the table's notes.

    Args:
        families: model -> family. Baselines are passed over where another model gives quantiles or events.
        step: what one step of the horizon is called, singular.
    """
    models = sorted(set(found.pooled["model"]) - {found.reference})
    chosen = [model for model in models if families.get(model) != "baseline"] or models
    sentences = []
    for model in chosen:
        own = found.pooled.filter(pl.col("model") == model)
        clauses = [*_intervals(own, step)]
        clauses += _compared(own, "wis", "weighted interval score", found.reference, step, logs="wis_log")
        clauses += _events(own, step)
        clauses += _compared(own, "brier", "Brier score", found.reference, step)
        sentences.append(f"Beyond the mean, {model}: {'; '.join(clauses)}.")
    return (*sentences, *found.notes)


def _intervals(own: pl.DataFrame, step: str) -> list[str]:
    """How many outcomes the widest central interval holds, horizon by horizon."""
    rows = own.filter(pl.col("score") == "coverage")
    if rows.is_empty():
        return []
    mass = max(rows["level"])
    rows = rows.filter(pl.col("level") == mass).sort("horizon")
    shares = [_with_p(f"{100 * share:.1f} %", p) for share, p in rows.select("value", "coverage_p_value").iter_rows()]
    return [
        f"its {100 * mass:g} % intervals hold {listed(shares)} of outcomes at {horizons_named(rows['horizon'], step)} "
        "(p: of a HAC test that the share is right)"
    ]


def _events(own: pl.DataFrame, step: str) -> list[str]:
    rows = own.filter((pl.col("score") == "roc_auc") & pl.col("value").is_not_null()).sort("horizon")
    if rows.is_empty():
        return []
    values = listed(f"{value:.2f}" for value in rows["value"])
    return [f"its probability of the event has a ROC area of {values} at {horizons_named(rows['horizon'], step)}"]


def _compared(
    own: pl.DataFrame, score: str, label: str, reference: str, step: str, *, logs: str | None = None
) -> list[str]:
    """One score against the reference's, horizon by horizon; `logs`: the same score in logs, where there is one."""
    rows = _against(own, score)
    if rows.is_empty() or not reference:
        return []
    at = horizons_named(rows["horizon"], step)
    said = f"its {label} is {listed(_differences(rows))} than that of {reference} at {at}"
    also = _against(own, logs) if logs else rows.clear()
    return [f"{said} (in logs: {listed(_differences(also))})" if also.height else said]


def _against(own: pl.DataFrame, score: str) -> pl.DataFrame:
    return own.filter((pl.col("score") == score) & pl.col("ratio_to_reference").is_not_null()).sort("horizon")


def _differences(rows: pl.DataFrame) -> list[str]:
    return [
        _with_p(f"{100 * abs(ratio - 1):.1f} % {'lower' if ratio < 1 else 'higher'}", p)
        for ratio, p in rows.select("ratio_to_reference", "dm_p_value").iter_rows()
    ]


def _with_p(text: str, p: float | None) -> str:
    return text if p is None else f"{text} ({p_words(p)})"
