"""The report as a file: whole, offline, escaped, repeatable, and there whatever the study went through."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.page import SECTIONS, render_report, write_report

MakeData = Callable[..., ReportData]
VOID = {"meta", "img", "line", "circle", "br", "link", "input", "hr", "source"}


class Page(HTMLParser):
    """What a browser would find: tags with attributes, visible text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def section(html: str, name: str) -> str:
    found = re.search(rf'<(section|header) id="{name}">.*?</\1>', html, flags=re.DOTALL)
    assert found is not None, name
    return found.group(0)


@pytest.fixture(scope="module")
def small() -> str:
    """One report that many tests read: four ids, two horizons."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("simulated_reports", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return render_report(module.report_data(4, dates=120, horizons=(1, 5), losses=("qlike", "mse", "mae")))


def test_every_section_is_there_in_order_and_linked(small: str) -> None:
    page = Page(small)
    ids = [attributes["id"] for name, attributes in page.tags if name in ("section", "header") and "id" in attributes]
    asked_for = {"ranking", "distributions", "memory", "failures"}  # there only where the study has them
    assert ids == [name for name, _ in SECTIONS if name not in asked_for]
    assert {a["href"] for a in page.named("a")} >= {f"#{name}" for name in ids if name != "verdict"}
    assert page.open == []


def test_the_verdict_comes_before_any_other_text(small: str) -> None:
    body = small[small.index("<body>") :]
    before = Page(body[: body.index("</h1>") + 5]).words
    assert before.endswith("s4d beats every baseline at all horizons: its loss is 2.1 % below ridge, the best of them.")
    assert len(before) < 160


def test_nothing_is_loaded_from_anywhere(small: str) -> None:
    page = Page(small)
    assert not page.named("script")
    assert not page.named("link")
    assert not page.named("iframe")
    for _, attributes in page.tags:
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in small
    assert "@import" not in small
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_images_are_complete_and_described(small: str) -> None:
    images = Page(small).named("img")
    assert len(images) >= 4 * 2 + 3 * 2 + 2 + 1
    for image in images:
        kind, data = image["src"].removeprefix("data:image/").split(";base64,")
        content = base64.b64decode(data, validate=True)
        assert content.startswith(b"\x89PNG") if kind == "png" else b"</svg>" in content
        assert b"dc:date" not in content
        assert b"tIME" not in content
        assert len(image["alt"]) > 30
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_svg_images_hold_no_address_but_namespaces(small: str) -> None:
    for image in Page(small).named("img"):
        kind, data = image["src"].removeprefix("data:image/").split(";base64,")
        if kind == "svg+xml":
            text = re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", base64.b64decode(data).decode())
            assert not re.search(r'(href|src)="(?!#)', text)
            assert not re.search(r"url\((?!#)", text)


def test_leaderboard_numbers_are_the_given_ones(make_data: MakeData) -> None:
    data = make_data(2, dates=80)
    html = section(render_report(data), "leaderboard")
    words = Page(html).words
    for row in data.leaderboard.iter_rows(named=True):
        assert row["model"] in words
        assert f"{row['ratio_to_reference']:.3f}" in words
    best = data.leaderboard.filter(pl.col("loss") == "qlike").sort("value").row(0, named=True)
    assert re.search(rf'class="num glance [^"]*best"[^>]*>(?:(?!</td>).)*{best["ratio_to_reference"]:.3f}', html)


def test_significance_and_confidence_set_are_marked(make_data: MakeData) -> None:
    data = make_data(1, dates=80)
    marks = pl.DataFrame(
        {
            "model": ["s4d", "ridge", "har"],
            "dm_p_value": [0.2, 0.01, 0.04],
            "ratio_to_reference": [0.8, 0.9, 1.1],
            "in_mcs": [True, False, False],
        }
    )
    board = data.leaderboard.update(marks, on="model").filter(pl.col("model").is_in(["s4d", "ridge", "har", "log_har"]))
    html = render_report(dataclasses.replace(data, leaderboard=board))
    glance = html[html.index("glance-table") : html.index("All losses and tests")]
    rows = dict(re.findall(r'<b title="(\w+)">(.*?)</tr>', glance, flags=re.DOTALL))
    assert "better" not in rows["s4d"]
    assert "●" in rows["s4d"]
    assert 'class="num glance better"' in rows["ridge"]
    assert "●" not in rows["ridge"]
    assert 'class="num glance worse"' in rows["har"]


def test_untrusted_names_are_escaped_everywhere(make_data: MakeData) -> None:
    bad_id, bad_model = "<script>alert(1)</script>", "s4d\"'><img src=x onerror=alert(2)>$\\frac{"
    models = {"log_har": ("baseline", 0.15), "ridge": ("baseline", 0.14), bad_model: ("ssm", 0.1)}
    attack = "</pre></style><script>alert(3)</script>{{ 7 * 7 }}"
    data = make_data(
        (bad_id, "日経\u202e225"),
        dates=60,
        models=models,
        name=attack,
        headline=attack,
        paragraphs=(attack,),
        study_yaml=attack,
        reproduce=attack,
        environment={attack: attack},
        notes={bad_model: {attack: attack}},
        data_notes={"source": attack, attack: {attack: attack}, "gaps": [{attack: attack}]},
        failures=[{"model": bad_model, "seed": 0, "folds": [1], "error": attack, "traceback": attack}],
    )
    html = render_report(data)
    page = Page(html)
    assert page.open == []
    assert not page.named("script")
    assert all(image["src"].startswith("data:image/") for image in page.named("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert bad_id in page.words
    assert bad_model in page.words
    assert attack in page.words
    assert any(bad_id in image["alt"] for image in page.named("img"))


def test_the_same_data_gives_the_same_bytes_in_another_process(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(2, dates=90)
    first = write_report(data, tmp_path / "a.html").read_bytes()
    assert write_report(data, tmp_path / "b.html").read_bytes() == first
    program = (
        "import sys; from pathlib import Path; from importlib.util import module_from_spec, spec_from_file_location\n"
        f"spec = spec_from_file_location('c', {str(Path(__file__).with_name('conftest.py'))!r})\n"
        "c = module_from_spec(spec); spec.loader.exec_module(c)\n"
        "from ssmfin.reporting import write_report\n"
        "write_report(c.report_data(2, dates=90), sys.argv[1])\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "c.html")], check=True, env=environment)
    assert (tmp_path / "c.html").read_bytes() == first


def test_drawing_leaves_matplotlib_as_it_was_and_ignores_its_settings(make_data: MakeData) -> None:
    import matplotlib

    data = make_data(1, dates=50, losses=("qlike",))
    plain = render_report(data)
    with matplotlib.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert render_report(data) == plain
        assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_one_id_one_horizon_one_loss(make_data: MakeData) -> None:
    html = render_report(make_data(1, dates=40, losses=("mae",)))
    assert "1 day ahead" in Page(html).words
    for name in ("leaderboard", "cumulative", "definitions"):
        assert "QLIKE" not in section(html, name)
        assert "MAE" in section(html, name)


def test_a_plot_alone_fills_the_page_and_has_a_form_for_phones(make_data: MakeData) -> None:
    for ids, widths in ((1, {"1124"}), (2, {"430"})):
        part = section(render_report(make_data(ids, dates=60, losses=("qlike",))), "forecasts")
        page = Page(part)
        assert {image["width"] for image in page.named("img")} == widths
        assert {source["width"] for source in page.named("source")} == ({"430"} if ids == 1 else set())
        assert all(source["srcset"].startswith("data:image/") for source in page.named("source"))


def test_a_section_that_has_nothing_of_its_own_to_say_is_not_there(make_data: MakeData) -> None:
    html = render_report(make_data(1, dates=60, losses=("qlike",)))
    for name in ("by-id", "failures"):
        assert f'id="{name}"' not in html
        assert f'href="#{name}"' not in html
    assert 'id="by-id"' in render_report(make_data(2, dates=60, losses=("qlike",)))


def test_only_a_positive_target_has_calm_and_turbulent_times(make_data: MakeData) -> None:
    for transform, there, absent in (("log", "turbulent", "middle"), ("none", "middle", "turbulent")):
        html = render_report(make_data(1, dates=60, transform=transform, losses=("mse",)))
        words = Page(section(html, "regimes")).words
        assert there in words
        assert absent not in words
        assert ("By regime" in html) == (transform == "log")


def test_the_mark_of_the_confidence_set_is_explained_beside_it(small: str) -> None:
    words = Page(section(small, "leaderboard")).words
    assert "The mark asks how surely a model is behind, not how far" in words
    assert "Not ruled out is not the same as good." in words
    glance = small[small.index("glance-table") : small.index("All losses and tests")]
    assert re.search(
        r'title="confidence set: (in|out) \(p [<.\d]+\); against log_har: DM p [<.\d]+; \d+ dates"', glance
    )


def test_without_a_state_space_model_baselines_are_drawn(make_data: MakeData) -> None:
    models = {"log_har": ("baseline", 0.2), "ridge": ("baseline", 0.1), "har": ("baseline", 0.3)}
    html = render_report(make_data(2, dates=60, models=models, notes={}))
    words = Page(section(html, "forecasts")).words
    assert "ridge" in words
    assert "SSM" not in words
    assert "state-space" not in words


def test_failures_are_shown_and_lead_the_eye(make_data: MakeData) -> None:
    failures = [
        {
            "model": "mamba",
            "seed": 1,
            "folds": [4, 5, 6, 7],
            "error": "loss is nan & more",
            "traceback": "File <x>\nboom",
        },
        {"model": "mamba", "seed": 2, "folds": [9], "error": "out of memory", "traceback": None},
    ]
    data = make_data(1, dates=60)
    data = dataclasses.replace(data, failures=failures, families=data.families | {"mamba": "ssm"})
    html = render_report(data)
    words = Page(section(html, "failures")).words
    assert "mamba, seed 1, folds 4 to 7" in words
    assert "mamba, seed 2, fold 9" in words
    assert "File <x> boom" in words
    assert "2 tasks failed" in words
    assert "Without results: mamba" in Page(section(html, "leaderboard")).words
    assert 'class="alarm">Failures (2)' in html


def test_everything_failed_and_a_report_is_still_written(make_data: MakeData) -> None:
    empty = make_data(1, dates=30).predictions.clear()
    failures = [{"model": "har", "seed": 0, "folds": [0], "error": "no", "traceback": "no"}]
    data = make_data(1, predictions=empty, failures=failures, headline="No model could be compared.")
    data = dataclasses.replace(data, folds=data.folds.clear(), costs=data.costs.clear(), notes={}, data_notes={})
    page = Page(render_report(data))
    assert "No model has results" in page.words
    assert page.open == []


def test_the_reference_failed(make_data: MakeData) -> None:
    whole = make_data(2, dates=50)
    predictions = whole.predictions.filter(pl.col("model") != "log_har")
    html = render_report(make_data(2, predictions=predictions, costs=whole.costs))
    assert "log_har, the reference, has no complete forecasts" in Page(section(html, "cumulative")).words
    assert "s4d" in Page(section(html, "leaderboard")).words


def test_a_model_with_missing_rows_does_not_take_rows_from_others(make_data: MakeData) -> None:
    whole = make_data(2, dates=60)
    partial = whole.predictions.filter((pl.col("model") != "har") | (pl.col("fold") > 2))
    board = whole.leaderboard.filter(pl.col("model") != "har")
    html = render_report(dataclasses.replace(whole, predictions=partial, leaderboard=board))
    assert "har" not in re.findall(r'<b title="(\w+)">', section(html, "cumulative"))
    assert "ridge" in re.findall(r'<b title="(\w+)">', section(html, "cumulative"))


def test_several_seeds_count_as_one_model(make_data: MakeData) -> None:
    data = make_data(1, dates=60, seeds=3)
    assert data.predictions["seed"].n_unique() == 3
    html = render_report(data)
    assert re.findall(r'<b title="(\w+)">', section(html, "forecasts")).count("s4d") == 1


def test_missing_p_values_and_infinite_losses_are_dashes_not_words(make_data: MakeData) -> None:
    data = make_data(2, dates=60)
    board = data.leaderboard.with_columns(
        pl.lit(None, dtype=pl.Float64).alias("dm_p_value"),
        pl.lit(float("nan")).alias("mcs_p_value"),
        pl.when(pl.col("model") == "har").then(float("inf")).otherwise(pl.col("value")).alias("value"),
        pl.when(pl.col("model") == "har")
        .then(None)
        .otherwise(pl.col("ratio_to_reference"))
        .alias("ratio_to_reference"),
    )
    words = Page(section(render_report(dataclasses.replace(data, leaderboard=board)), "leaderboard")).words
    assert not re.search(r"\b(nan|None|inf)\b", words)
    assert "–" in words


def test_a_forecast_that_is_not_positive_costs_infinity_and_breaks_nothing(make_data: MakeData) -> None:
    whole = make_data(1, dates=60)
    first = (pl.col("model") == "har") & (pl.col("ds") == whole.predictions["ds"].min())
    predictions = whole.predictions.with_columns(pl.when(first).then(-1e-6).otherwise(pl.col("y_hat")).alias("y_hat"))
    html = render_report(dataclasses.replace(whole, predictions=predictions))
    assert "har has infinite losses" in Page(section(html, "cumulative")).words
    assert "har ∞ in 2004" in Page(section(html, "years")).words


def test_negative_values_without_a_transform(make_data: MakeData) -> None:
    data = make_data(1, dates=60, transform="none", losses=("mse", "mae"))
    assert data.predictions["y"].min() < 0
    page = Page(render_report(data))
    assert "modelled as is" in page.words


def test_no_outcome_is_known_yet(make_data: MakeData) -> None:
    whole = make_data(1, dates=40)
    predictions = whole.predictions.with_columns(pl.lit(None, dtype=pl.Float64).alias("y"))
    data = dataclasses.replace(
        whole,
        predictions=predictions,
        leaderboard=whole.leaderboard.clear(),
        leaderboard_by_id=whole.leaderboard_by_id.clear(),
    )
    words = Page(render_report(data)).words
    assert "0 with a known outcome" in words


def test_origins_within_a_day(make_data: MakeData) -> None:
    whole = make_data(1, dates=60)
    hours = {
        name: pl.datetime(2024, 3, 1) + (pl.col(name) - dt.date(2004, 1, 2)).dt.total_days() * pl.duration(minutes=30)
        for name in ("ds", "cutoff")
    }
    predictions = whole.predictions.with_columns(
        **{name: value.cast(pl.Datetime("us")) for name, value in hours.items()}
    )
    words = Page(render_report(make_data(1, predictions=predictions))).words
    assert "1 step ahead" in words
    assert "2024-03-02 17:" in words


@pytest.mark.parametrize("refit,validation", [(1, 125), (4, None)])
def test_fold_map_thins_out_and_says_so(make_data: MakeData, refit: int, validation: int | None) -> None:
    day = dt.date(2004, 1, 2)
    n = 4000
    starts = [day + dt.timedelta(days=k) for k in range(n)]
    folds = pl.DataFrame(
        {
            "fold": range(n),
            "fit": [k // refit for k in range(n)],
            "train_start": [start - dt.timedelta(days=1400) for start in starts],
            "train_end": starts,
            "cutoff": starts,
            "validation_start": [None if validation is None else start - dt.timedelta(days=175) for start in starts],
            "test_start": starts,
            "test_end": starts,
            "n_train_rows": [1000 + k % 3 for k in range(n)],
            "n_test_rows": [1] * n,
        },
        schema_overrides={"validation_start": pl.Date},
    )
    html = section(render_report(_with(make_data, folds)), "folds")
    words = Page(html).words
    assert "4,000 folds" in words
    assert "64 of them are drawn" in words
    assert "1,000 to 1,002" in words
    assert ("Pale rows" in words) == (refit > 1)
    assert len(html) < 120_000


def _with(make_data: MakeData, folds: pl.DataFrame) -> ReportData:
    return dataclasses.replace(make_data(1, dates=40, losses=("qlike",)), folds=folds)


def test_many_ids_stay_readable(make_data: MakeData) -> None:
    data = make_data(31, dates=40)
    html = section(render_report(data), "by-id")
    assert len(re.findall(r'<th class="name id"', html)) == 31
    assert "<details>" in html
    assert "ids better than the reference" in html


def test_records_and_empty_facts_of_the_data_are_shown(make_data: MakeData) -> None:
    notes = {"dropped": {}, "gaps": [{"unique_id": ".STI", "dates": 2812}], "ids never forecast": {".STI": "too short"}}
    words = Page(section(render_report(make_data(1, dates=40, data_notes=notes)), "data")).words
    assert "Dropped none" in words
    assert "2,812" in words
    assert "too short" in words


def test_insanity_filter_is_put_in_proportion(make_data: MakeData) -> None:
    data = make_data(1, dates=40, notes={"har": {"insanity_filter": 30, "forecasts": 12000}})
    assert "replaced 30 of 12,000 forecasts (0.25 %)" in Page(section(render_report(data), "models")).words


def test_a_large_study_stays_small_and_quick(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(21, dates=500, horizons=(1, 5, 22), losses=("qlike", "mse", "mae"), folds=64)
    started = time.process_time()
    path = write_report(data, tmp_path / "report.html")
    # 21 ids x 4,000 dates take about 5 s of processor time; the bound leaves room for a slow machine
    assert time.process_time() - started < 20
    assert path.stat().st_size < 2_500_000


def test_the_file_replaces_an_old_one_whole_and_is_readable_by_others(make_data: MakeData, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_report(make_data(1, dates=30, losses=("mse",)), str(target)) == target
    assert target.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert stat.S_IMODE(target.stat().st_mode) & 0o044
    assert list(tmp_path.iterdir()) == [target]


def test_an_old_report_survives_a_failed_write(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"cannot be written .* No space left on device; choose another path\."):
        write_report(make_data(1, dates=30, losses=("mse",)), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_and_a_directory_are_refused_before_any_work(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(1, dates=30, losses=("mse",))
    with pytest.raises(InputError, match=r"folder of the report does not exist, .*; create it"):
        write_report(data, tmp_path / "no" / "report.html")
    with pytest.raises(InputError, match=r"report path is a directory, .*; name a file"):
        write_report(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_not_unicode_can_be_written(make_data: MakeData, tmp_path: Path) -> None:
    failures = [{"model": "har", "seed": 0, "folds": [0], "error": "bad", "traceback": "file \udcff.csv \x00 \x1b[31m"}]
    path = write_report(make_data(1, dates=30, losses=("mse",), failures=failures), tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "\\udcff.csv" in text
    assert "\x00" not in text
    assert "\x1b" not in text
