"""Figures show what they say: bands hold their line, bounds their level, shading its regime; smoothed is labelled."""

import io

import matplotlib as mpl
import numpy as np
import pytest

from ssmfin.classical.kalman import KalmanFit, filter_series, smooth, specification
from ssmfin.classical.smoothed import Smoothed
from ssmfin.diagnostics import (
    plot_correlogram,
    plot_cusum,
    plot_cusum_of_squares,
    plot_diagnostics,
    plot_histogram,
    plot_qq,
    plot_regimes,
    plot_residuals,
    plot_states,
)
from ssmfin.errors import InputError

SINGLE = [plot_residuals, plot_histogram, plot_qq, plot_correlogram, plot_cusum, plot_cusum_of_squares]
DATES = np.datetime64("2001-01-01") + np.arange(120)


@pytest.fixture(scope="module")
def level():
    """A random walk with a hole, its filtered and its smoothed level at known parameters."""
    generator = np.random.default_rng(0)
    y = np.cumsum(generator.standard_normal((2, 120)), axis=1) + generator.standard_normal((2, 120))
    y[0, 30:35] = np.nan
    fit = KalmanFit.at(specification("local_level"), np.ones((2, 2)))
    return y, filter_series(fit, y), smooth(fit, y)


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def probabilities(T=120, K=2, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(K, 0.3), size=T)


def test_the_page_has_its_six_views_and_is_drawn_without_a_display(level):
    _, past, _ = level
    figure = plot_diagnostics(past, dates=DATES, title="Walk")
    assert titles(figure) == [
        "Innovations",
        "Distribution",
        "QQ plot",
        "Autocorrelation",
        "CUSUM: is the mean stable?",
        "CUSUM of squares: is the variance stable?",
    ]
    assert figure.get_suptitle() == "Walk"
    assert len(png(figure)) > 20_000


@pytest.mark.parametrize("plot", SINGLE)
def test_each_view_stands_alone(level, plot):
    _, past, _ = level
    assert len(plot(past, series=1).axes) == 1
    assert len(png(plot(past.standardised_innovation[1, :, 0]))) > 4_000


@pytest.mark.parametrize("plot", SINGLE)
def test_the_user_s_settings_neither_enter_nor_change(level, plot):
    _, past, _ = level
    plain = png(plot(past))
    with mpl.rc_context({"axes.facecolor": "black", "lines.linewidth": 9.0, "xtick.labelsize": 20.0}):
        before = dict(mpl.rcParams)
        coloured = plot(past)
        assert dict(mpl.rcParams) == before
        assert png(coloured) == plain  # and the same bytes each time


def test_residuals_beyond_the_band_are_marked():
    z = np.r_[np.zeros(50), 3.0, -4.0, np.nan]
    axes = plot_residuals(z, level=0.05).axes[0]
    marked = next(line for line in axes.lines if line.get_label().startswith("beyond"))
    seen = marked.get_ydata()
    np.testing.assert_array_equal(seen[~np.isnan(seen)], [3.0, -4.0])
    assert "3.8% beyond ±1.96" in axes.get_title(loc="right")


def test_the_histogram_is_a_density_and_says_what_it_leaves_out():
    z = np.r_[np.random.default_rng(0).standard_normal(999), 50.0]
    axes = plot_histogram(z).axes[0]
    area = sum(bar.get_width() * bar.get_height() for bar in axes.patches)
    np.testing.assert_allclose(area, 1.0, rtol=1e-9)
    assert "1 off the axis" in axes.get_title(loc="right")
    assert labels(axes) == ["N(0, 1)", "innovations"] or labels(axes) == ["innovations", "N(0, 1)"]


def test_the_qq_plot_of_normal_quantiles_is_the_line():
    from ssmfin.diagnostics.residual_tests import normal_quantiles

    axes = plot_qq(np.random.default_rng(0).permutation(normal_quantiles(200))).axes[0]
    dots = axes.lines[1]
    np.testing.assert_allclose(dots.get_xdata(), dots.get_ydata(), atol=1e-12)


def test_correlations_beyond_their_band_are_drawn_in_another_colour():
    z = np.random.default_rng(0).standard_normal(300)
    z[1:] += 0.8 * z[:-1]
    inside, beyond = plot_correlogram(z, lags=12).axes[0].collections
    assert beyond.get_segments()[0][0, 0] == 1.0  # the first lag
    assert len(inside.get_segments()) + len(beyond.get_segments()) == 12
    assert inside.get_color().tolist() != beyond.get_color().tolist()


def test_cusum_says_whether_it_leaves_its_bounds():
    z = np.random.default_rng(0).standard_normal(200)
    calm = plot_cusum(z).axes[0]
    assert calm.get_title(loc="right") == "stays within"
    shifted = plot_cusum(z + np.where(np.arange(200) > 100, 1.0, 0.0)).axes[0]
    assert shifted.get_title(loc="right") == "leaves its bounds"
    assert "out of bounds" in labels(shifted)
    assert "5% bounds" in labels(calm)


def test_bands_hold_the_filtered_line_and_have_the_stated_width(level):
    y, past, _ = level
    axes = plot_states(past, observed=y[0], dates=DATES, coverage=0.9).axes[0]
    mean, variance = past.output("level")
    line = next(line for line in axes.lines if line.get_label() == "filtered")
    np.testing.assert_array_equal(line.get_ydata(), mean[0])
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    np.testing.assert_allclose(corners[:, 1].max(), np.nanmax(mean[0] + 1.6448536 * np.sqrt(variance[0])), rtol=1e-6)
    np.testing.assert_allclose(corners[:, 1].min(), np.nanmin(mean[0] - 1.6448536 * np.sqrt(variance[0])), rtol=1e-6)
    low, high = axes.get_ylim()
    assert low < np.nanmin(y[0])
    assert np.nanmax(y[0]) < high
    assert set(labels(axes)) == {"observed", "90% band", "filtered"}


def test_predicted_states_are_labelled_so(level):
    _, past, _ = level
    axes = plot_states(past, predicted=True, series=1).axes[0]
    assert "predicted from data before t" in labels(axes)
    line = next(line for line in axes.lines if line.get_label().startswith("predicted"))
    np.testing.assert_array_equal(line.get_ydata(), past.output("level", predicted=True)[0][1])


def test_smoothed_states_are_drawn_only_when_asked_for_and_labelled(level):
    _, _, smoothed = level
    with pytest.raises(InputError, match="values at t use data after t"):
        plot_states(smoothed)
    axes = plot_states(smoothed, two_sided=True).axes[0]
    assert any("two-sided" in label for label in labels(axes))
    line = next(line for line in axes.lines if "two-sided" in line.get_label())
    np.testing.assert_array_equal(line.get_ydata(), smoothed.outputs["level"][0][0])


def test_one_panel_an_output_and_plain_arrays_too(level):
    generator = np.random.default_rng(0)
    mean, variance = generator.standard_normal((2, 50)), np.ones((2, 50))
    figure = plot_states({"level": (mean, variance), "market_beta": (mean, variance)}, series=1)
    assert titles(figure) == ["level", "market beta"]
    assert titles(plot_states((mean[0], variance[0]))) == ["state"]
    assert titles(plot_states({"a": (mean, variance), "b": (mean, variance)}, outputs=["b"])) == ["b"]


def test_a_burst_of_the_band_at_the_start_does_not_press_the_rest_flat():
    variance = np.r_[1e8, np.ones(99)]
    axes = plot_states((np.sin(np.arange(100.0)), variance)).axes[0]
    low, high = axes.get_ylim()
    assert high - low < 20
    empty = plot_states((np.full(10, np.nan), np.full(10, np.nan)))
    assert len(png(empty)) > 1000


def test_shading_is_that_of_the_most_probable_regime():
    weights = np.zeros((120, 2))
    weights[:, 0] = 1.0
    weights[40:60] = [0.1, 0.9]
    weights[100:] = [0.4, 0.6]
    figure = plot_regimes(np.full(120, 7.0), weights)
    above, below = figure.axes
    calm, wild = above.collections
    stretches = [path.get_extents().intervalx.tolist() for path in wild.get_paths()]
    np.testing.assert_allclose(stretches, [[40.5, 60.5], [100.5, 120.0]])
    covered = sum(path.get_extents().width for path in [*calm.get_paths(), *wild.get_paths()])
    np.testing.assert_allclose(covered, 119.0)
    assert labels(above) == ["regime 0 (calm)", "regime 1 (wild)"]
    assert below.get_ylim() == (0.0, 1.0)
    assert below.get_title(loc="right") == "filtered"


def test_steps_without_probabilities_are_not_shaded():
    weights = probabilities()
    weights[:20] = np.nan
    calm, wild = plot_regimes(np.ones(120), weights).axes[0].collections
    left = min(path.get_extents().x0 for path in [*calm.get_paths(), *wild.get_paths()])
    np.testing.assert_allclose(left, 20.5)


def test_a_price_that_tripled_stands_on_a_log_axis_and_a_negative_one_does_not():
    weights = probabilities(K=3)
    assert plot_regimes(np.geomspace(1, 9, 120), weights, dates=DATES).axes[0].get_yscale() == "log"
    assert plot_regimes(np.linspace(1, 2, 120), weights).axes[0].get_yscale() == "linear"
    assert plot_regimes(np.linspace(-9, 9, 120), weights).axes[0].get_yscale() == "linear"


def test_results_of_a_filter_bring_their_probabilities():
    class Past:
        filtered = np.stack([probabilities(), probabilities(seed=1)])
        predicted = np.stack([probabilities(seed=2), probabilities(seed=3)])

    def calm_share(figure):
        return figure.axes[1].collections[0].get_paths()[0]

    prices = np.ones((2, 120))
    a = plot_regimes(prices, Past(), series=1)
    b = plot_regimes(prices[1], Past.filtered[1])
    np.testing.assert_array_equal(calm_share(a).vertices, calm_share(b).vertices)
    c = plot_regimes(prices, Past(), series=1, predicted=True)
    assert c.axes[1].get_title(loc="right") == "predicted before t"
    assert not np.array_equal(calm_share(a).vertices, calm_share(c).vertices)


def test_smoothed_regimes_are_drawn_only_when_asked_for_and_labelled():
    smoothed = Smoothed(("calm", "wild"), probabilities()[None], None, np.zeros(1))
    with pytest.raises(InputError, match="Smoothed, whose values at t use data after t"):
        plot_regimes(np.ones(120), smoothed)
    figure = plot_regimes(np.ones(120), smoothed, two_sided=True)
    assert "two-sided" in figure.axes[1].get_title(loc="right")
    assert titles(figure)[0] == "price, shaded with hindsight"


def test_many_regimes_have_a_colour_each():
    figure = plot_regimes(np.ones(120), probabilities(K=6), labels=list("abcdef"))
    assert labels(figure.axes[0]) == list("abcdef")
    assert len({tuple(part.get_facecolor()[0]) for part in figure.axes[0].collections}) == 6


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plot_diagnostics(np.zeros(5)), "has 5 standardised innovations"),
        (lambda: plot_residuals(np.zeros(20), series=1), "series is 1, of 1"),
        (lambda: plot_residuals(np.zeros((1, 20, 2)), component=2), "component is 2, of 2"),
        (lambda: plot_residuals(np.zeros(20), dates=np.arange(3)), "dates has shape (3,)"),
        (lambda: plot_residuals(Smoothed(("a",), np.zeros((1, 9, 1)), None, np.zeros(1))), "Smoothed"),
        (lambda: plot_states(3), "states is int"),
        (lambda: plot_states((np.zeros(5), np.zeros(6))), "shapes (1, 5) and (1, 6)"),
        (lambda: plot_states((np.zeros(5), np.zeros(5)), coverage=1.0), "coverage is 1.0"),
        (lambda: plot_states((np.zeros(5), np.zeros(5)), outputs=["stat"]), "did you mean 'state'?"),
        (lambda: plot_states((np.zeros(5), np.zeros(5)), observed=np.zeros(4)), "observed has shape (4,)"),
        (lambda: plot_states((np.zeros(5), np.zeros(5)), series=1), "series is 1, of 1"),
        (lambda: plot_regimes(np.ones(9), probabilities()), "prices has shape (9,) for 120 steps"),
        (lambda: plot_regimes(np.ones(120), np.full((120, 2), 0.7)), "a sum of 1.4 at a step"),
        (lambda: plot_regimes(np.ones(120), np.full((120, 2), np.nan)), "has no probabilities"),
        (lambda: plot_regimes(np.ones(120), np.ones((1, 2, 3, 4))), "probabilities has shape (1, 2, 3, 4)"),
        (lambda: plot_regimes(np.ones(120), probabilities()[None], series=4), "series is 4, of 1"),
        (lambda: plot_regimes(np.ones(120), probabilities(), labels=["a"]), "labels has 1 names for 2 regimes"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)


def test_probabilities_without_regime_0_are_completed_by_the_rest():
    weights = np.random.default_rng(0).dirichlet([2.0, 1.0, 1.0], size=120)
    prices = np.exp(np.linspace(0.0, 1.0, 120))
    whole, rest = (plot_regimes(prices, given) for given in (weights, weights[:, 1:]))
    areas = [
        [collection.get_paths()[0].vertices for collection in figure.axes[1].collections] for figure in (whole, rest)
    ]
    assert len(areas[0]) == len(areas[1]) == 3
    for a, b in zip(*areas, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    two = np.column_stack([1 - weights[:, 1], weights[:, 1]])
    assert (
        len(plot_regimes(prices, weights[:, 1]).axes[1].collections)
        == len(plot_regimes(prices, two).axes[1].collections)
        == 2
    )
