"""The focal loss is least at the true probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from ssmfin.models.deep.focal_loss import focal_link, focal_loss


def test_focal_link_is_the_minimiser_of_the_focal_risk() -> None:
    for focal in (0.0, 1.0, 2.0):
        odds, v = focal_link(focal)
        assert (np.diff(odds) > 0).all()
        for p in (0.03, 0.4, 0.9):
            found = expit(np.interp(np.log(p / (1 - p)), odds, v))
            grid = np.linspace(1e-4, 1 - 1e-4, 200_001)
            risk = -p * (1 - grid) ** focal * np.log(grid) - (1 - p) * grid**focal * np.log(1 - grid)
            assert found == pytest.approx(grid[risk.argmin()], abs=2e-4)


def test_without_an_exponent_the_focal_loss_is_the_cross_entropy() -> None:
    log_odds = torch.linspace(-30, 30, 61, dtype=torch.float64)
    happened = torch.arange(61) % 2 == 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, happened.double(), reduction="none")
    torch.testing.assert_close(focal_loss(log_odds, happened, 0.0), expected, rtol=1e-6, atol=1e-12)
