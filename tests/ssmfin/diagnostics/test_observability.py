"""Controllability and observability: ranks that are known, and states at fault by their names."""

import numpy as np
import pytest
import torch

from ssmfin.diagnostics import structure
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace


def space(F, H, Q, states=None):
    F, H, Q = (torch.tensor(part, dtype=torch.float64) for part in (F, H, Q))
    P = H.shape[-2]
    return structure(StateSpace(F, H, Q, torch.eye(P).double(), torch.eye(F.shape[-1]).double()), states=states)


def test_a_local_linear_trend_is_both():
    found = space([[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0], [0.0, 0.1]], ["level", "slope"])
    assert found.observable
    assert found.controllable
    assert (found.observability_rank, found.controllability_rank) == (2, 2)
    assert 1 <= found.observability_condition < 10


def test_noise_in_the_slope_alone_moves_the_level_too():
    found = space([[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]], [[0.0, 0.0], [0.0, 0.1]])
    assert found.controllable


def test_noise_in_the_level_alone_leaves_the_slope_fixed():
    found = space([[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]], ["level", "slope"])
    assert found.observable
    assert found.uncontrollable == ("slope",)
    assert found.controllability_rank == 1
    assert found.controllability_condition == np.inf
    assert "slope" in str(found)


def test_a_state_that_nothing_sees_is_named():
    found = space(np.diag([0.9, 0.5, 0.2]), [[1.0, 0.0, 1.0]], np.eye(3), ["fast", "hidden", "slow"])
    assert found.unobservable == ("hidden",)
    assert found.observability_rank == 2


def test_twins_are_seen_only_in_their_sum_and_different_decays_apart():
    twins = space(np.diag([0.9, 0.9, 0.5]), [[1.0, 1.0, 1.0]], np.eye(3), ["week", "month", "day"])
    assert twins.unobservable == ("week", "month")
    apart = space(np.diag([0.9, 0.8, 0.5]), [[1.0, 1.0, 1.0]], np.eye(3))
    assert apart.observable
    assert apart.states == ("state_0", "state_1", "state_2")


def test_near_twins_have_a_large_condition_number():
    near = space(np.diag([0.9, 0.9 + 1e-10]), [[1.0, 1.0]], np.eye(2))
    far = space(np.diag([0.9, 0.1]), [[1.0, 1.0]], np.eye(2))
    assert near.observability_condition > 1e8 > 100 > far.observability_condition
    assert "nearly deficient" in str(near)


def test_units_of_the_states_do_not_matter():
    scale = np.diag([1e6, 1e-6])
    F = np.array([[1.0, 1.0], [0.0, 1.0]])
    a = space(F, [[1.0, 0.0]], np.eye(2))
    b = space(scale @ F @ np.linalg.inv(scale), np.array([[1.0, 0.0]]) @ np.linalg.inv(scale), scale @ scale)
    np.testing.assert_allclose(a.observability_condition, b.observability_condition, rtol=1e-6)
    assert b.observable
    assert b.controllable


def test_collinear_regressors_are_named():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((60, 3))
    x[:, 2] = 2 * x[:, 0]
    found = space(np.eye(3), x[None, :, None, :], np.eye(3), ["market", "size", "market_again"])
    assert found.unobservable == ("market", "market_again")
    x[:, 2] = generator.standard_normal(60)
    assert space(np.eye(3), x[None, :, None, :], np.eye(3)).observable


def test_fits_bring_their_names_and_regressors():
    from ssmfin.classical.kalman import KalmanFit, specification

    spec = specification("dynamic_regression", n_regressors=2)
    x = np.random.default_rng(1).standard_normal((50, 2))
    fit = KalmanFit.at(spec, np.full((1, len(spec.parameter_names)), 0.3))
    assert structure(fit, x=x).observable
    x[:, 1] = x[:, 0]
    found = structure(fit, x=x)
    assert set(found.unobservable) <= set(spec.state_names)
    assert len(found.unobservable) == 2
    with pytest.raises(InputError, match="x is missing"):
        structure(fit)
    with pytest.raises(InputError, match="series is 3, of 1"):
        structure(fit, x=x, series=3)


@pytest.mark.parametrize("kind", ["local_level", "local_linear_trend", "seasonal", "ar1_plus_noise", "sum_of_ar1"])
def test_every_kind_of_the_house_is_observable(kind):
    from ssmfin.classical.kalman import KalmanFit, specification

    spec = specification(kind)
    parameters = np.linspace(0.3, 0.9, len(spec.parameter_names))[None]
    found = structure(KalmanFit.at(spec, parameters))
    assert found.observable
    assert found.states == spec.state_names


def test_names_must_fit():
    with pytest.raises(InputError, match="states has 1 names for 2 states"):
        space(np.eye(2), [[1.0, 0.0]], np.eye(2), ["level"])
