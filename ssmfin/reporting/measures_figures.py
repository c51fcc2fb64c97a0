"""Owns the plots of the page on realized measures: coverage by day, signature, flagged days, pattern of the day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ssmfin.data.realized.result import Quality
from ssmfin.reporting.inline_images import MARGINS, PANEL, WIDE, Image, date_axis, height_of, inline_image, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPOILED = "#d1495b"
LOW, HIGH = "#f3d9a4", "#2f6f8f"  # of coverage, 0 to 1
CLOSED = "#ffffff"  # no session
MANY_MONTHS = 24  # up to so many are rows of a calendar; more are its columns
RULE_COLOURS = ("#b8441a", "#e0a030", "#7a5195", "#2f6f8f", "#5a9367", "#8a8f98", "#a4516e", "#45506b")
OTHER_RULES = "other rules"


def calendar_colours(days: pl.DataFrame) -> np.ndarray:
    """(months, 31, 3) colours of every day of one asset, 0 to 1: its coverage, SPOILED where it is unusable."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    months = _months(days)
    colours = np.tile(np.array(to_rgb(CLOSED)), (int(months.max() - months.min()) + 1, 31, 1))
    coverage = LinearSegmentedColormap.from_list("coverage", [LOW, HIGH])(days["coverage"].to_numpy())[:, :3]
    coverage[~days["usable"].to_numpy()] = to_rgb(SPOILED)
    colours[months - months.min(), days["ds"].dt.day().cast(pl.Int64).to_numpy() - 1] = coverage
    return colours


def calendar_map(days: pl.DataFrame) -> Image:
    """Coverage of every day of one asset, unusable days in red: months down as in a calendar, across if many."""
    colours = calendar_colours(days)
    count, first = len(colours), int(_months(days).min())
    down = count <= MANY_MONTHS

    def draw(axes: Axes) -> None:
        axes.grid(False)
        axes.imshow(colours if down else colours.swapaxes(0, 1), aspect="auto", interpolation="nearest", zorder=2)
        rows, columns = (count, 31) if down else (31, count)
        across = width_of(axes) - MARGINS["left"] - MARGINS["right"]
        for cells, pixels, line in ((rows, height_of(axes), axes.axhline), (columns, across, axes.axvline)):
            if pixels / cells >= 5:  # else the gaps would hide the days
                for edge in np.arange(0.5, cells - 1):
                    line(edge, color="white", linewidth=0.8, zorder=3)
        every = max(1, -(-count // max(1, int(height_of(axes) / 14 if down else across / 66))))
        ticks = np.arange(0, count, every)
        months, dates = (axes.set_yticks, axes.set_xticks) if down else (axes.set_xticks, axes.set_yticks)
        months(ticks, [_month(first + int(tick)) for tick in ticks])
        dates([0, 9, 19, 30], ["1", "10", "20", "31"])
        axes.spines["bottom"].set_visible(False)

    bad = int((~days["usable"]).sum())
    alt = f"Coverage by day, {_month(first)} to {_month(first + count - 1)}; {bad} of {len(days)} days are unusable."
    height = max(16 * count, 48) + MARGINS["top"] + MARGINS["bottom"] if down else 290
    return inline_image(draw, (WIDE, height), alt, vertices=10**6)


def _months(days: pl.DataFrame) -> np.ndarray:
    """(days,) number of the month of each day, counted from year 0."""
    return (days["ds"].dt.year().cast(pl.Int64) * 12 + days["ds"].dt.month().cast(pl.Int64) - 1).to_numpy()


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
