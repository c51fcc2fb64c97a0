"""Batched minimisation: reaches minima, independently of the batch, and says when it did not."""

import torch

from ssmfin.classical.optimize import STATUS, minimize


def rosenbrock(theta, index):
    x, y = theta[:, 0], theta[:, 1]
    a = 1.0 + 20.0 * (index % 7)
    value = (1 - x) ** 2 + a * (y - x * x) ** 2
    return value, torch.stack([-2 * (1 - x) - 4 * a * x * (y - x * x), 2 * a * (y - x * x)], 1)


def starts(count, several):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(count, several, 2, dtype=torch.float64, generator=generator)


def test_reaches_the_minimum_of_curved_valleys():
    found = minimize(rosenbrock, starts(60, 2))
    assert (found.status == STATUS.index("converged")).all()
    assert (found.theta - 1).abs().max() < 1e-5
    assert (found.grad_norm <= 1e-6).all()


def test_a_path_does_not_depend_on_the_batch():
    start = starts(40, 2)
    together = minimize(rosenbrock, start, follow=2)
    for b in range(40):
        alone = minimize(lambda theta, index, b=b: rosenbrock(theta, index + b), start[b : b + 1], follow=2)
        for mine, ours in zip(alone, together, strict=True):
            assert torch.equal(mine[0], ours[b])


def double_well(theta, index):
    x = theta[:, 0]
    return (x * x - 1) ** 2 + 0.3 * x, (4 * x * (x * x - 1) + 0.3)[:, None]


def test_the_best_of_several_starts_wins():
    start = torch.tensor([[[0.9], [-0.5]], [[1.2], [0.8]]], dtype=torch.float64)
    found = minimize(double_well, start, follow=2)
    assert found.theta[0, 0] < 0 < found.theta[1, 0]


def test_walls_of_infinite_value_are_stepped_back_from():
    def walled(theta, index):
        x = theta[:, 0]
        inside = x > 0
        return torch.where(inside, x - torch.log(x), torch.nan), torch.where(inside, 1 - 1 / x, torch.nan)[:, None]

    found = minimize(walled, torch.full((1, 1, 1), 8.0, dtype=torch.float64))
    assert abs(found.theta.item() - 1) < 1e-5


def test_what_did_not_converge_says_so():
    found = minimize(rosenbrock, starts(7, 1), max_iterations=2)
    assert STATUS[found.status[6]] == "max_iterations"
    linear = minimize(
        lambda theta, index: (theta[:, 0], torch.ones_like(theta)), torch.zeros(1, 1, 1), max_iterations=9
    )
    assert STATUS[linear.status.item()] == "max_iterations"

    def wrong(theta, index):  # a gradient that points uphill: no step along it descends
        return (theta**2).sum(1), -2 * theta

    assert STATUS[minimize(wrong, torch.ones(1, 1, 2, dtype=torch.float64)).status.item()] == "line_search"
    unusable = minimize(lambda theta, index: (theta[:, 0] / 0 * 0, theta), torch.ones(1, 1, 1))
    assert STATUS[unusable.status.item()] == "no_finite_start"
