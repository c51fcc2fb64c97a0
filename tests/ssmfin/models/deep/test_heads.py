"""Heads: untrained they are the base, their losses find the truth, their quantiles cannot cross."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import norm

from ssmfin.errors import InputError
from ssmfin.models.deep.focal_loss import focal_link
from ssmfin.models.deep.heads import HEADS, Head, HeadOptions, Targets

OPTIONS = HeadOptions("qlike", (0.05, 0.25, 0.5, 0.75, 0.95), 0.9, 0.0)
LEVELS = np.array([0.01, 0.05, 0.1, 0.5, 0.77, 0.95, 0.999])


def residuals(n: int, sigma: float = 0.4, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    """r whose exp has the mean exp(mean)."""
    return mean - 0.5 * sigma**2 + sigma * np.random.default_rng(seed).standard_normal(n)


def head_of(name: str, log: bool = True, **changes: object) -> Head:
    errors = [residuals(4000), residuals(4000, 0.6)]
    return HEADS[name].calibrated(errors, log, OPTIONS._replace(**changes))


def fitted(head: Head, r: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """(1, H, P): the constants that minimise the loss over the sample, one horizon after the other alike."""
    raw = torch.zeros(1, 2, 1 + head.extra, dtype=torch.float64, requires_grad=True)
    r2 = torch.from_numpy(np.stack([r, r], axis=-1))
    targets = Targets(r2, torch.full_like(r2, threshold))
    optimizer = torch.optim.LBFGS([raw], lr=0.5, max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = head.loss(raw.expand(len(r), -1, -1), targets).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return raw.detach().numpy()


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_untrained_every_head_forecasts_the_base_exactly(name: str, log: bool) -> None:
    if name == "lognormal" and not log:
        with pytest.raises(InputError, match=r"head is 'lognormal'.*'none'; use gaussian"):
            head_of(name, log)
        return
    head = head_of(name, log)
    assert (head.mean(np.zeros((5, 2, 1 + head.extra))) == 0).all()
    assert len(head.limits(1.0)) == 1 + head.extra


@pytest.mark.parametrize("name, loss", [*((name, "qlike") for name in HEADS), ("point", "squared_log")])
def test_each_head_finds_the_mean_on_the_original_scale(name: str, loss: str) -> None:
    """The truth is log-normal with the window's spread, its mean 20 % above the base."""
    head = head_of(name, loss=loss)
    r = residuals(20_000, 0.4, mean=np.log(1.2), seed=1)
    g = head.mean(fitted(head, r))[0, 0]
    assert abs(np.exp(g) - np.exp(r).mean()) < 0.012


def test_the_mean_of_a_target_without_a_log_is_additive() -> None:
    r = 0.3 + np.random.default_rng(2).standard_normal(5000)
    for name in ("point", "gaussian", "quantiles", "event"):
        head = HEADS[name].calibrated([r, r], False, OPTIONS)
        assert abs(head.mean(fitted(head, r))[0, 1] - r.mean()) < 1e-2


@pytest.mark.parametrize("name", ["lognormal", "gaussian", "quantiles"])
def test_quantiles_cover_what_they_say(name: str) -> None:
    head = head_of(name)
    r = residuals(20_000, 0.5, mean=0.1, seed=3)
    if name == "gaussian":
        r = np.log(np.maximum(1.1 + 0.2 * np.random.default_rng(4).standard_normal(20_000), 1e-3))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    found = head.quantiles(fitted(head, r), levels)
    assert found is not None
    share = (np.exp(r)[:, None] <= found[0, 0]).mean(axis=0)
    np.testing.assert_allclose(share, levels, atol=0.02)


def test_lognormal_loss_is_the_likelihood_and_its_quantiles_those_of_the_law() -> None:
    head = head_of("lognormal")
    raw = np.array([[[0.2, 0.3], [-0.1, -0.2]]])
    r = np.array([[0.5, -0.4]])
    sigma = head.scale * np.exp(raw[..., 1])  # type: ignore[attr-defined]
    law = norm(raw[..., 0] - sigma**2 / 2, sigma)
    loss = head.loss(torch.from_numpy(raw), Targets(torch.from_numpy(r), torch.from_numpy(r))).numpy()
    np.testing.assert_allclose(loss, -law.logpdf(r) - 0.5 * np.log(2 * np.pi), rtol=1e-12)
    found = head.quantiles(raw, LEVELS)
    np.testing.assert_allclose(found[..., 3], np.exp(law.ppf(0.5)), rtol=1e-12)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_quantiles_never_cross(data) -> None:
    head = head_of("quantiles")
    raw = np.array(data.draw(st.lists(st.floats(-30, 30), min_size=12, max_size=12))).reshape(1, 2, 6)
    found = head.quantiles(raw, LEVELS)
    assert (np.diff(found, axis=-1) >= 0).all()


def test_untrained_quantiles_are_those_of_the_base_errors() -> None:
    head = head_of("quantiles")
    found = head.quantiles(np.zeros((1, 2, 6)), np.array(OPTIONS.levels))
    np.testing.assert_allclose(found[0, 0], np.exp(np.quantile(residuals(4000), OPTIONS.levels)), rtol=1e-9)


def test_untrained_event_probability_is_what_the_law_of_the_base_errors_says() -> None:
    head = head_of("event")
    r = residuals(4000)
    begins = np.array([[-0.3, 0.0], [0.5, 2.0]])
    found = head.event_probability(np.zeros((2, 2, 2)), begins)
    np.testing.assert_allclose(found[:, 0], norm(r.mean(), r.std()).sf(begins[:, 0]), rtol=1e-12)
    assert 0 < head.event_probability(np.zeros((1, 2, 2)), np.full((1, 2), 10.0))[0, 0] < 1e-100


@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
def test_event_probability_is_the_share_of_events_whatever_the_focal_loss(focal: float, share: float) -> None:
    head = head_of("event", focal=focal)
    r = residuals(8000, 0.7, seed=5)
    threshold = float(np.quantile(r, 1 - share))
    targets = Targets(torch.from_numpy(np.stack([r, r], axis=-1)), torch.full((len(r), 2), threshold).double())

    def loss(x: float) -> float:
        raw = torch.tensor([0.0, x], dtype=torch.float64).expand(len(r), 2, 2)
        return float(head.loss(raw, targets)[:, 0].mean())

    best = minimize_scalar(loss, bounds=(-15, 15), method="bounded", options={"xatol": 1e-4}).x
    found = head.event_probability(np.array([[[0.0, best]] * 2]), np.full((1, 2), threshold))
    assert found[0, 0] == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_event_loss_is_the_focal_loss_of_the_linked_probability(focal: float) -> None:
    head = head_of("event", focal=focal)
    raw = np.array([[[0.0, 5.0], [0.0, -5.0]], [[0.0, 0.3], [0.0, -40.0]]])
    r, threshold = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([[0.0, 0.2], [-0.4, 0.5]])
    found = head.loss(torch.from_numpy(raw), Targets(torch.from_numpy(r), torch.from_numpy(threshold))).numpy()
    p = head.event_probability(raw, threshold)
    v = expit(np.interp(np.log(p) - np.log1p(-p), *focal_link(focal)))
    right = np.where(r > threshold, v, 1 - v)
    np.testing.assert_allclose(
        found - (np.exp(r) - r - 1), -((1 - right) ** focal) * np.log(right), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("name", HEADS)
def test_constants_restore_a_head(name: str) -> None:
    head = head_of(name)
    again = HEADS[name](**head.constants())
    raw = 0.3 * np.random.default_rng(1).standard_normal((4, 2, 1 + head.extra))
    assert (again.mean(raw) == head.mean(raw)).all()
    one, other = head.quantiles(raw, LEVELS), again.quantiles(raw, LEVELS)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert (one == other).all()
