"""Owns the way from a source to a checked panel: the `data:` section of a study, and `load_panel` in Python.

Order of the steps: read and type every file; keep `ids`, `start`, `end` (what they exclude is not judged); sort and
check keys and values; check prices; leave out offending rows if `on_breach: drop`; measures; target; exogenous.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from ssmfin.data.breaches import ROW, Breaches, moment
from ssmfin.data.columns import Table, read_table
from ssmfin.data.contract import (
    check_dates,
    check_prices,
    check_target,
    check_values,
    find_gaps,
    sort_rows,
    to_dates,
)
from ssmfin.data.exogenous import Exogenous, keep_ids, require_ids
from ssmfin.data.moments import Closes
from ssmfin.data.panel import Panel
from ssmfin.data.range_variance import RangeMeasures
from ssmfin.data.realized.options import RealizedMeasures
from ssmfin.data.sources import AnySource, FrameSource, Source
from ssmfin.data.sources.frame import is_pandas
from ssmfin.data.wording import KEYS_OF_A_STUDY, KEYWORDS, Wording
from ssmfin.errors import InputError, nearest

_ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".txt": "csv"}


def _date(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date()
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("write a date of the calendar as YYYY-MM-DD") from None


def _ids(value: Any) -> Any:
    """One id or many; numbers are ids too (YAML reads 600519 as one)."""
    items = [value] if isinstance(value, str | int) else value
    if isinstance(items, list | tuple):
        return tuple(str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in items)
    return value


Day = Annotated[datetime.date, BeforeValidator(_date, json_schema_input_type=datetime.date)]
Ids = Annotated[
    tuple[str, ...], BeforeValidator(_ids, json_schema_input_type=str | list[str | int]), Field(min_length=1)
]


def _measures_kind(value: Any) -> str:
    """`range` where no kind is named."""
    kind = value.get("kind", "range") if isinstance(value, Mapping) else getattr(value, "kind", "range")
    return str(kind)


Measures = Annotated[
    Annotated[RangeMeasures, Tag("range")] | Annotated[RealizedMeasures, Tag("realized")],
    Discriminator(
        _measures_kind,
        custom_error_type="measures_kind",
        custom_error_message="use kind: range for daily prices, or kind: realized for prices within the day",
    ),
]


class PanelOptions(BaseModel):
    """What to do with the rows of a source, whichever it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    say: ClassVar[Wording] = KEYWORDS  # how messages name settings: here to callers of `load_panel`

    columns: dict[str, str] = Field(
        default_factory=dict, description="our names to yours: {unique_id: symbol, ds: date}"
    )
    ids: Ids | None = Field(None, description="the ids to use; default all")
    start: Day | None = Field(None, description="first date to use, included")
    end: Day | None = Field(None, description="last date to use, included")
    measures: Measures | None = Field(None, description="variances to compute, from daily or from intraday prices")
    exogenous: tuple[Exogenous, ...] = Field((), description="further sources, joined as of the moment they were known")
    closes: Closes | None = Field(None, description="when the panel's dates end; needed to compare hours of markets")
    on_breach: Literal["error", "drop"] = Field(
        "error", description="drop: leave out offending rows, counted in the report"
    )
    date_format: str | None = Field(None, description="strftime format of dates that are text and not ISO")


class DataSpec(PanelOptions):
    """The `data:` section of a study, whose messages name its keys."""

    say: ClassVar[Wording] = KEYS_OF_A_STUDY

    source: AnySource

    def load(
        self, *, target: str | None = None, positive: bool = False, used: Mapping[str, str] | None = None
    ) -> Panel:
        """Read, check and complete the panel.

        Args:
            target: the column that will be forecast; it must exist and be finite.
            positive: a log will be taken of it, so it must be above zero.
            used: further columns that must exist, and the setting that names each, for messages.
        Raises:
            InputError: the source cannot be read or breaks the panel contract; every breach is in the one message.
        """
        return build_panel(self.source, self, target=target, positive=positive, used=used)


def load_panel(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    ids: Iterable[str] | str | None = None,
    start: datetime.date | str | None = None,
    end: datetime.date | str | None = None,
    measures: RangeMeasures | RealizedMeasures | Mapping[str, Any] | None = None,
    exogenous: Iterable[Exogenous | Mapping[str, Any]] = (),
    closes: Closes | Mapping[str, Any] | None = None,
    on_breach: Literal["error", "drop"] = "error",
    date_format: str | None = None,
    target: str | None = None,
    positive: bool = False,
) -> Panel:
    """Load and check a panel; the same as the `data:` section of a study.

    Args:
        source: a path or glob (parquet, csv), a polars or pandas frame, a Source, or a dict like the study's `source:`.
        columns: our names to yours, {"unique_id": "symbol", "ds": "date"}.
        ids, start, end: the part to use; both dates are included.
        measures: {"kind": "range", "estimators": ["parkinson"]}, or, for a source of trades, quotes or bars within the
            day, {"kind": "realized", "calendar": "XNYS", "sampling": "5min", "estimators": ["rv", "bv"]}.
        exogenous: further sources, joined as of the moment at which they were known.
        closes: {"time": "16:00", "zone": "America/New_York"}, when the panel's dates end.
        on_breach: "drop" leaves out offending rows and counts them in `panel.notes["dropped"]`.
        target, positive: a column that must be finite, and above zero.
    Returns:
        A panel sorted by (unique_id, ds). One single series may come without an id: it gets its file's name, and a
        frame's rows get "series".
    Raises:
        InputError: the source cannot be read or breaks the panel contract; every breach is in the one message.
    Example:
        >>> panel = load_panel({"kind": "arch", "series": ["sp500"]}, measures={"kind": "range"}, end="1999-01-06")
        >>> panel.frame.select("unique_id", "ds", "parkinson").rows()[0]
        ('sp500', datetime.date(1999, 1, 4), 0.00020910556189996708)
    """
    keywords = {
        "columns": dict(columns or {}),
        "ids": ids if ids is None or isinstance(ids, str) else tuple(ids),
        "start": start,
        "end": end,
        "measures": measures,
        "exogenous": tuple(exogenous),
        "closes": closes,
        "on_breach": on_breach,
        "date_format": date_format,
    }
    try:
        options = PanelOptions(**keywords)  # type: ignore[arg-type]
        resolved = as_source(source)
    except ValidationError as error:
        raise InputError(_complaints(error)) from None
    return build_panel(resolved, options, target=target, positive=positive)


def as_source(source: Any) -> Source:
    """A path, a frame or a dict as a source.

    Raises:
        InputError: a path whose ending says neither parquet nor csv. ValidationError: a dict that is no source.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Mapping):
        adapter: TypeAdapter[Source] = TypeAdapter(AnySource)
        return adapter.validate_python(dict(source))
    if isinstance(source, pl.DataFrame | pl.LazyFrame) or is_pandas(source):
        return FrameSource(frame=source)
    if isinstance(source, str | Path):
        kind = _ENDINGS.get(Path(str(source).removesuffix(".gz")).suffix)
        if kind is None:
            raise InputError(
                f"the ending of {str(source)!r} says neither parquet nor csv; "
                f"give a dict, {{'kind': 'csv', 'path': {str(source)!r}}} for example."
            )
        return as_source({"kind": kind, "path": source})
    raise InputError(
        f"the data are of type {type(source).__name__}; give a path, a polars or pandas frame, or a source."
    )


def build_panel(
    source: Source,
    options: PanelOptions,
    *,
    target: str | None = None,
    positive: bool = False,
    label: str | None = None,
    used: Mapping[str, str] | None = None,
) -> Panel:
    """The one road to a panel; see `DataSpec.load`. `label` is the source's name in messages."""
    if isinstance(options.measures, RealizedMeasures):
        return _build_realized(source, options, options.measures, target, positive)
    computed = _computed(options.measures, target)
    required = set(options.measures.prices) if options.measures else set()
    if target is not None and target not in computed:
        required.add(target)
        used = {**(used or {}), target: options.say("target")}
    table = read_table(
        source,
        columns=options.columns,
        required=required,
        used={name: setting for name, setting in (used or {}).items() if "__" not in name},  # of exogenous sources
        computed=computed,
        date_format=options.date_format,
        label=label,
        say=options.say,
    )
    breaches = table.breaches
    frame, newest_first = sort_rows(_subset(table, options), table.part_starts, breaches)
    check_values(frame, breaches)
    if options.measures:
        # the close is read in any case, for the log return
        prices = dict.fromkeys([*options.measures.prices, *(["close"] if "close" in frame.columns else [])])
        check_prices(frame, list(prices), breaches)
    frame = frame.filter(~breaches.bad(frame)) if breaches.rows else frame
    others: list[Breaches] = []
    warm_up = 0
    if frame.height:
        frame = to_dates(frame, options.closes, breaches.label, options.say)
        frame = options.measures.add(frame) if options.measures else frame
        for exogenous in options.exogenous:
            other, wrong, zone = exogenous.read(options.say)
            others.append(wrong)
            frame = exogenous.join(frame, other, options.closes, zone, options.say)
        if target is not None:
            frame, warm_up = _without_warm_up(frame, target) if target in computed else (frame, 0)
            check_target(frame, target, positive, breaches)
            frame = frame.filter(~breaches.bad(frame)) if breaches.rows else frame
        if frame.height:
            check_dates(frame, breaches)
    _raise(breaches, others, options.on_breach, frame)
    frame = frame.drop(ROW)
    notes: dict[str, Any] = {
        "source": label or source.describe(),
        "rows": frame.height,
        "ids": frame["unique_id"].n_unique(),
        "first": moment(frame["ds"].min()),
        "last": moment(frame["ds"].max()),
        "dropped": breaches.counts(),
        "gaps": find_gaps(frame),
        "left_out_columns": table.left_out,
    }
    optional = {
        # rows at which nothing was known yet
        "exogenous_missing": {item.name: frame[f"{item.name}__age"].null_count() for item in options.exogenous},
        "exogenous_dropped": {other.label: other.counts() for other in others if other.kinds},
        "warm_up_rows": warm_up,
        "time_zone": table.zone,
        "newest_first": newest_first,
    }
    return Panel(frame, notes | {key: value for key, value in optional.items() if value})


def _build_realized(
    source: Source, options: PanelOptions, measures: RealizedMeasures, target: str | None, positive: bool
) -> Panel:
    """A panel of the usable sessions of intraday data; the others are counted in the notes."""
    from ssmfin.data.realized.measures import measure_source

    result = measure_source(source, measures, columns=options.columns, ids=options.ids, date_format=options.date_format)
    daily = options.model_copy(update={"columns": {}, "measures": None, "date_format": None})
    usable = result.usable_rows()
    if target is not None and target not in usable.columns and "__" not in target:
        raise InputError(
            f"{options.say('target')} {target!r} is not in {source.describe()}, whose days have {usable.columns[3:]}; "
            f"name it in {options.say('measures.estimators')}, or {nearest(target, usable.columns[3:])}"
        )
    rows = FrameSource(frame=usable)
    panel = build_panel(rows, daily, target=target, positive=positive, label=source.describe())
    return Panel(panel.frame, panel.notes | result.panel_notes())


def _computed(measures: RangeMeasures | None, target: str | None) -> set[str]:
    """The columns that loading adds; the target may be one of an exogenous source, `<name>__<column>`."""
    added = {*measures.estimators, "log_return"} if measures else set()
    return added | ({target} if target is not None and "__" in target else set())


def _without_warm_up(frame: pl.DataFrame, target: str) -> tuple[pl.DataFrame, int]:
    """Leave out the first rows of each id on which a computed target does not exist yet, and count them.

    A window of 22 days has no value on the first 22, and an id of fewer days has none at all: no defect of the data.
    """
    if target not in frame.columns:
        return frame, 0
    started = frame.select((pl.col(target).is_not_null().cum_sum() > 0).over("unique_id")).to_series()
    if not started.any():  # for the check of the target to report
        return frame, 0
    return frame.filter(started), int((~started).sum())


def _subset(table: Table, options: PanelOptions) -> pl.DataFrame:
    """ids, then start and end; both dates included."""
    frame = table.frame
    if options.closes is not None:
        # an id spelled wrong would get the clock of the others, and with it perhaps a value from the future
        require_ids(frame, tuple(options.closes.by_id), table.breaches.label, options.say("closes.by_id"))
    if options.ids is not None:
        frame = keep_ids(frame, options.ids, table.breaches.label, options.say("ids"))
    if frame.height == 0:
        _raise(table.breaches, [], "error", frame)
    first, last = frame["ds"].min(), frame["ds"].max()
    if options.start is not None:
        frame = frame.filter(pl.col("ds") >= options.start)
    if options.end is not None:
        frame = frame.filter(pl.col("ds") < options.end + datetime.timedelta(days=1))
    if frame.height == 0:
        raise InputError(
            f"{table.breaches.label} has no rows from {options.start or 'its start'} to {options.end or 'its end'}, "
            f"it runs from {moment(first)} to {moment(last)}; correct {options.say('start')} and {options.say('end')}."
        )
    return frame


def _raise(breaches: Breaches, others: list[Breaches], on_breach: str, frame: pl.DataFrame) -> None:
    """All breaches of all sources in one InputError; rows may be dropped only where that mends the breach."""
    found = [item for item in (breaches, *others) if item.kinds]
    if on_breach == "drop":
        found = [item for item in found if item.fatal]
    if found:
        raise InputError("\n".join(item.message(dropping=on_breach == "drop") for item in found))
    if frame.height == 0:
        raise InputError(
            f"{breaches.label} has no row left, all breach the contract; correct the data.\n"
            f"{breaches.message(dropping=True)}"
        )


def _complaints(error: ValidationError) -> str:
    """Pydantic's complaints in our words, one line each, with the nearest valid names."""
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(step) for step in item["loc"]) or "source"
        if item["type"] == "extra_forbidden":
            lines.append(f"{place} is no setting of load_panel; {nearest(place.split('.')[-1], _keys())}.")
        else:
            lines.append(f"{place} is wrong, {item['input']!r:.80}; {item['msg'].removeprefix('Value error, ')}.")
    return "\n".join(dict.fromkeys(lines))


def _keys() -> list[str]:
    parts = (DataSpec, RangeMeasures, RealizedMeasures, Exogenous, Closes)
    keys = [key for part in parts for key in part.model_fields]
    return sorted({*keys, "kind", "path", "series", "delimiter", "decimal", "id_from_filename"})
