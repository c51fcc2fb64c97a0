"""Maximum likelihood of nonlinear models: known optima, bounds, and a status for every series."""

from functools import partial

import pytest
import torch

from ssmfin.classical.nonlinear import (
    NonlinearModel,
    SigmaPoints,
    extended_kalman_filter,
    fit_nonlinear,
    unscented_kalman_filter,
)
from ssmfin.errors import InputError

ONE = torch.ones(1, 1, dtype=torch.float64)


def nile_level():
    return NonlinearModel(
        lambda a, p, u: a,
        lambda a, p, u: a,
        lambda a, p, u: p["level"].reshape(1, 1),
        lambda a, p, u: p["noise"].reshape(1, 1),
        1e7 * ONE,
    )


@pytest.fixture(scope="module")
def nile():
    from statsmodels.datasets import nile

    return torch.tensor(nile.load_pandas().data["volume"].to_numpy())[None, :, None]


def test_the_nile_has_its_published_variances(nile):
    """Durbin & Koopman (2012), section 2.10: 15099 and 1469.1, whose start is also N(0, 10^7) in table 2.1."""
    found = fit_nonlinear(
        nile,
        nile_level(),
        {"noise": 1e4, "level": 1e3},
        bounds={"noise": (0.0, None), "level": (0.0, None)},
        filtered_by=extended_kalman_filter,
    )
    assert found.status == ("converged",)
    assert found.reason == ("",)
    torch.testing.assert_close(found.parameters["noise"], torch.tensor([15099.0]).double(), rtol=2e-3, atol=0)
    torch.testing.assert_close(found.parameters["level"], torch.tensor([1469.1]).double(), rtol=2e-3, atol=0)


def growth_panel(B=6, T=250):
    """A logistic map with noise, seen through an exponential; true speeds differ by series."""
    generator = torch.Generator().manual_seed(5)
    speed = torch.linspace(0.2, 0.7, B, dtype=torch.float64)
    a, rows = torch.zeros(B, dtype=torch.float64), []
    for _ in range(T):
        rows.append(torch.exp(a) + 0.1 * torch.randn(B, generator=generator, dtype=torch.float64))
        a = a + speed * (0.5 - a) + 0.3 * torch.randn(B, generator=generator, dtype=torch.float64)
    model = NonlinearModel(
        lambda a, p, u: a + p["speed"] * (0.5 - a), lambda a, p, u: torch.exp(a), 0.09 * ONE, 0.01 * ONE, 0.09 * ONE
    )
    return torch.stack(rows, 1)[..., None], model, speed


def test_speeds_of_mean_reversion_are_recovered_and_maximal():
    y, model, truth = growth_panel()
    found = fit_nonlinear(y, model, {"speed": 0.4}, bounds={"speed": (0.0, 2.0)})
    assert set(found.status) == {"converged"}
    assert (found.parameters["speed"] - truth).abs().max() < 0.2
    for factor in (0.97, 1.03):
        there = unscented_kalman_filter(y, model, parameters={"speed": factor * found.parameters["speed"]})
        assert (there.log_likelihood < found.log_likelihood).all()
    again = unscented_kalman_filter(y, model, parameters=found.parameters)
    torch.testing.assert_close(again.log_likelihood, found.log_likelihood, rtol=1e-12, atol=1e-12)


def test_options_of_the_filter_pass_through():
    y, model, _ = growth_panel(B=1, T=60)
    wide = partial(unscented_kalman_filter, points=SigmaPoints(1.5, 2.0, 0.0))
    found = fit_nonlinear(y, model, {"speed": 0.4}, bounds={"speed": (None, 3.0)}, filtered_by=wide)
    assert found.status == ("converged",)
    there = wide(y, model, parameters=found.parameters).log_likelihood
    torch.testing.assert_close(there, found.log_likelihood, rtol=1e-12, atol=1e-12)


def test_one_bad_series_is_flagged_and_the_rest_are_as_alone():
    y, model, _ = growth_panel(B=4, T=60)
    y[1] = torch.nan
    y[2] = 1e200  # squares overflow: no finite likelihood
    together = fit_nonlinear(y, model, {"speed": 0.4}, bounds={"speed": (0.0, 2.0)})
    assert together.status == ("converged", "failed", "failed", "converged")
    assert "series 1 has 0 observations" in together.reason[1]
    assert "series 2 has no finite likelihood" in together.reason[2]
    assert together.parameters["speed"][1:3].isnan().all()
    assert together.log_likelihood[1:3].isnan().all()
    alone = fit_nonlinear(y[3:], model, {"speed": 0.4}, bounds={"speed": (0.0, 2.0)})
    assert torch.equal(alone.parameters["speed"][0], together.parameters["speed"][3])


def test_too_few_iterations_are_said_so():
    y, model, _ = growth_panel(B=1, T=60)
    found = fit_nonlinear(y, model, {"speed": 1.9}, bounds={"speed": (0.0, 2.0)}, max_iterations=1)
    assert found.status == ("not_converged",)
    assert "raise max_iterations" in found.reason[0]


@pytest.mark.parametrize(
    "starts, bounds, words",
    [
        ({"speed": 3.0}, {"speed": (0.0, 2.0)}, "strictly between 0.0 and 2.0"),
        ({"speed": torch.zeros(7)}, None, "use a scalar or (2,)"),
        ({"speed": 0.4}, {"sped": (0.0, 1.0)}, "bounds has 'sped'"),
    ],
)
def test_mistakes_are_named(starts, bounds, words):
    y, model, _ = growth_panel(B=2, T=10)
    with pytest.raises(InputError) as caught:
        fit_nonlinear(y, model, starts, bounds=bounds)
    assert words in str(caught.value)
