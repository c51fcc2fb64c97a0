"""Owns the plots of the page on realized measures: coverage by day, signature, flagged days, pattern of the day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ssmfin.data.realized.result import Quality
from ssmfin.reporting.inline_images import PANEL, WIDE, Image, date_axis, inline_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPOILED = "#d1495b"
LOW, HIGH = "#f3d9a4", "#2f6f8f"  # of coverage, 0 to 1
RULE_COLOURS = ("#b8441a", "#e0a030", "#7a5195", "#2f6f8f", "#5a9367", "#8a8f98", "#a4516e", "#45506b")
OTHER_RULES = "other rules"


def calendar_map(days: pl.DataFrame) -> Image:
    """Coverage of every day of one asset: months across, days of the month down; unusable days are marked."""
    months = (days["ds"].dt.year().cast(pl.Int64) * 12 + days["ds"].dt.month().cast(pl.Int64) - 1).to_numpy()
    first, last = int(months.min()), int(months.max())
    cells = np.full((31, last - first + 1), np.nan)
    row, column = days["ds"].dt.day().cast(pl.Int64).to_numpy() - 1, months - first
    cells[row, column] = days["coverage"].to_numpy()
    bad = ~days["usable"].to_numpy()

    def draw(axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes.grid(False)
        colours = LinearSegmentedColormap.from_list("coverage", [LOW, HIGH])
        axes.imshow(cells, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest", zorder=2)
        size = float(np.clip(360 / cells.shape[1], 1.5, 5.0))
        axes.plot(column[bad], row[bad], "s", color=SPOILED, markersize=size, markeredgewidth=0.0, zorder=3)
        axes.set_ylim(30.6, -0.6)
        axes.set_yticks([0, 9, 19, 30], ["1", "10", "20", "31"])
        every = max(1, -(-cells.shape[1] // 14))
        ticks = np.arange(0, cells.shape[1], every)
        axes.set_xticks(ticks, [_month(first + int(tick)) for tick in ticks])
        axes.spines["bottom"].set_visible(False)

    alt = f"Coverage by day, {_month(first)} to {_month(last)}; {int(bad.sum())} of {len(bad)} days are unusable."
    return inline_image(draw, (WIDE, 260), alt, vertices=10**6)


def _month(number: int) -> str:
    return f"{number // 12}-{number % 12 + 1:02d}"


def signature_plot(quality: Quality, minutes: float) -> Image | None:
    """Mean variance by sampling interval over that at the chosen one: flat if there is no noise, rising to the left if
    there is. The line is the median of the assets, the band half of them."""
    table = quality.signature
    if table.is_empty():
        return None
    nearest = min(table["minutes"].unique().to_list(), key=lambda length: (abs(np.log(length / minutes)), length))
    base = table.filter(pl.col("minutes") == nearest).select("unique_id", pl.col("variance").alias("base"))
    ratio = table.join(base, on="unique_id").with_columns((pl.col("variance") / pl.col("base")).alias("ratio"))
    spread = ratio.group_by("minutes").agg(
        pl.col("ratio").median().alias("middle"),
        pl.col("ratio").quantile(0.25, "linear").alias("low"),
        pl.col("ratio").quantile(0.75, "linear").alias("high"),
    )
    if spread.height < 2:
        return None
    x, middle, low, high = (spread.sort("minutes")[name].to_numpy() for name in ("minutes", "middle", "low", "high"))

    def draw(axes: Axes) -> None:
        axes.axhline(1.0, color="#b9c0ca", linewidth=0.8, zorder=1)
        axes.axvline(minutes, color="#b9c0ca", linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        axes.fill_between(x, low, high, color=HIGH, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(x, middle, color=HIGH, linewidth=1.6, marker="o", markersize=3.5, zorder=3)
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        least, most = min(low.min(), 1.0), max(high.max(), 1.0)
        room = max(0.08 * (most - least), 0.02)
        axes.set_ylim(least - room, most + room)

    shown = ", ".join(f"{value:.2f} at {length:g} minutes" for length, value in zip(x, middle, strict=True))
    return inline_image(draw, PANEL, f"Mean variance relative to {nearest:g} minutes: {shown}.", vertices=200)


def pattern_plot(quality: Quality, minutes: float) -> Image | None:
    """Factor of volatility by time since the open, over the sessions of the usual length; median of the assets."""
    table = quality.periodicity
    if table.is_empty():
        return None
    usual = table.group_by("intervals").agg(pl.col("sessions").sum()).sort("sessions", "intervals")["intervals"][-1]
    spread = (
        table.filter(pl.col("intervals") == usual)
        .group_by("position")
        .agg(
            pl.col("factor").median().alias("middle"),
            pl.col("factor").quantile(0.25, "linear").alias("low"),
            pl.col("factor").quantile(0.75, "linear").alias("high"),
        )
        .sort("position")
    )
    hours = (spread["position"].to_numpy() + 0.5) * minutes / 60.0
    middle, low, high = (spread[name].to_numpy() for name in ("middle", "low", "high"))

    def draw(axes: Axes) -> None:
        axes.axhline(1.0, color="#b9c0ca", linewidth=0.8, zorder=1)
        axes.fill_between(hours, low, high, color=HIGH, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(hours, middle, color=HIGH, linewidth=1.3, zorder=3)
        axes.set_ylim(0.0, float(np.nanmax(high)) * 1.08)
        axes.set_xlim(0.0, float(hours[-1] + hours[0]))

    alt = f"Volatility by hour since the open, from {middle[0]:.2f} at first to {middle[-1]:.2f} at last."
    return inline_image(draw, PANEL, alt, vertices=4 * len(hours))


def flagged_plot(quality: Quality) -> tuple[Image | None, list[tuple[str, str]]]:
    """Share of days that are unusable, month by month, stacked by the first rule of each; and the legend."""
    bad = quality.unusable.with_columns(pl.col("rules").fill_null("").str.split(", ").list.first().alias("rule"))
    if bad.is_empty():
        return None, []
    counts = bad.group_by("rule").len().sort(["len", "rule"], descending=[True, False])
    named = counts["rule"].to_list()[: len(RULE_COLOURS) - 1]
    rest = counts.height > len(named)
    days = quality.days
    first, last = days["ds"].dt.month_start().min(), days["ds"].dt.month_start().max()
    months: pl.Series = pl.date_range(first, last, interval="1mo", eager=True)  # type: ignore
    all_days = days.group_by(pl.col("ds").dt.month_start().alias("month")).len("all")
    shares = []
    for rule in [*named, *([OTHER_RULES] if rest else [])]:
        own = bad.filter(~pl.col("rule").is_in(named) if rule == OTHER_RULES else pl.col("rule") == rule)
        by_month = own.group_by(pl.col("ds").dt.month_start().alias("month")).len("bad")
        table = (
            pl.DataFrame({"month": months})
            .join(all_days, on="month", how="left")
            .join(by_month, on="month", how="left", maintain_order="left")
        )
        share = table.sort("month").select(100.0 * pl.col("bad").fill_null(0) / pl.col("all").fill_null(1))
        shares.append(share.to_series().to_numpy())
    x = months.to_numpy()
    legend = [
        (rule, colour) for rule, colour in zip([*named, *([OTHER_RULES] if rest else [])], RULE_COLOURS, strict=False)
    ]

    def draw(axes: Axes) -> None:
        bottom = np.zeros(len(x))
        for share, (_, colour) in zip(shares, legend, strict=True):
            axes.bar(x, share, width=np.timedelta64(26, "D"), bottom=bottom, color=colour, align="edge", zorder=2)
            bottom = bottom + share
        axes.set_ylim(0.0, max(5.0, min(100.0, float(bottom.max()) * 1.08)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        date_axis(axes)

    alt = f"Share of unusable days by month; {bad.height} in all, most by {', '.join(named[:3])}."
    return inline_image(draw, (WIDE, 230), alt, vertices=5 * len(x) * len(shares)), legend
