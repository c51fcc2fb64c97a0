"""The training loop: what is kept, when it stops, which parameters are slow, that nothing leaks out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ssmfin.errors import InputError
from ssmfin.models.deep.training import Recipe, choose_device, parameter_groups, repeatable, train

RECIPE = Recipe(
    epochs=30,
    patience=4,
    learning_rate=0.1,
    slow_learning_rate=0.01,
    weight_decay=0.3,
    warmup=3,
    gradient_clip=1.0,
)


@pytest.fixture
def network() -> nn.Linear:
    made = nn.Linear(1, 1)
    nn.init.constant_(made.weight, 1.0)
    nn.init.constant_(made.bias, 1.0)
    return made


def losses(network: nn.Linear, target: float):
    def epoch(number: int):
        yield lambda: torch.square(network(torch.ones(1, 1)) - target).sum()

    return epoch


def test_best_state_is_kept_and_the_rest_of_patience_undone(network: nn.Linear) -> None:
    seen: list[float] = []

    def validation() -> float:
        seen.append(network.weight.item())
        return [5.0, 4.0, 3.0, 3.5, 3.1, 3.0, 9.0, 1.0][len(seen) - 1]  # an equal loss is not a better one

    history = train(network, RECIPE, epoch_losses=losses(network, 100.0), validation_loss=validation)
    assert (history.best_epoch, history.epochs) == (2, 6)
    assert (history.initial_validation_loss, history.best_validation_loss) == (5.0, 3.0)
    assert network.weight.item() == seen[2]
    assert not network.training


def test_untrained_network_is_kept_when_validation_never_improves(network: nn.Linear) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counter = iter(range(100))
    history = train(network, RECIPE, epoch_losses=losses(network, 3.0), validation_loss=lambda: float(next(counter)))
    assert (history.best_epoch, history.epochs) == (0, RECIPE.patience)
    assert all((before[name] == value).all() for name, value in network.state_dict().items())


def test_loop_minimises(network: nn.Linear) -> None:
    target = losses(network, 0.5)
    history = train(network, RECIPE, epoch_losses=target, validation_loss=lambda: next(target(1))().item())
    assert history.best_validation_loss < 0.01 * history.initial_validation_loss


@pytest.mark.parametrize("where", ["training", "validation"])
def test_loss_that_is_not_finite_stops_with_the_epoch(where: str, network: nn.Linear) -> None:
    epoch = 0

    def training(number: int):
        nonlocal epoch
        epoch = number
        factor = float("nan") if where == "training" and epoch == 2 else 1.0
        yield lambda: network(torch.ones(1, 1)).sum() * factor

    with pytest.raises(RuntimeError, match=f"{where} loss is not finite in epoch 2, (nan|inf).*it began in"):
        train(
            network,
            RECIPE,
            epoch_losses=training,
            validation_loss=lambda: float("inf") if where == "validation" and epoch == 2 else -float(epoch),
        )


class Chain(nn.Module):
    """Two layers, whose second one can be made to fail in a named way."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.first, self.second, self.fails = nn.Linear(1, 1), nn.Identity(), fails

    def forward(self, x: torch.Tensor, now: bool) -> torch.Tensor:
        x = self.first(x)
        if now and self.fails == "activation":
            return self.second(x.detach() / 0)
        # sqrt has an infinite slope at zero
        return self.second((x - x.detach()).abs().sqrt() if now and self.fails == "gradient" else x)


@pytest.mark.parametrize(
    "fails, message",
    [
        (
            "activation",
            "training loss is not finite in epoch 3, inf, at step 2; it began in the activation of 'second'",
        ),
        ("gradient", "gradient is not finite in epoch 3, at step 2; it began in the gradient of 'first.bias'"),
        ("parameter", "training loss is not finite in epoch 3, nan, at step 2; it began in parameter 'first.weight'"),
    ],
)
def test_what_is_not_finite_is_traced_to_where_it_began(fails: str, message: str) -> None:
    network = Chain(fails)

    def losses_of(epoch: int):
        for step in (1, 2):
            now = (epoch, step) == (3, 2)

            def loss(now: bool = now) -> torch.Tensor:
                if now and fails == "parameter":
                    network.first.weight.data.fill_(float("nan"))
                return network(torch.ones(1, 1), now).abs().sum()

            yield loss

    with pytest.raises(RuntimeError, match=message):
        train(network, RECIPE, epoch_losses=losses_of, validation_loss=None)


def test_the_average_of_the_weights_is_validated_and_kept(network: nn.Linear) -> None:
    seen: list[float] = []

    def validation() -> float:
        seen.append(network.weight.item())
        return -float(len(seen))

    raw: list[float] = []

    def epoch_losses(epoch: int):
        for _ in range(2):
            yield lambda: network(torch.ones(1, 1)).square().sum()
            raw.append(network.weight.item())

    recipe = Recipe(**{**RECIPE.__dict__, "epochs": 4, "averaging": 1.0})
    steps = list
    history = train(network, recipe, epoch_losses=epoch_losses, validation_loss=validation)
    assert steps(range(history.epochs)) == [0, 1, 2, 3]
    assert seen[0] > seen[1] > seen[2]
    assert network.weight.item() == seen[-1]  # the average of the last epoch, not its last weights


def test_averaged_weights_wander_less_than_the_weights_that_noise_throws_about() -> None:
    def wandering(averaging: float) -> float:
        torch.manual_seed(0)
        network = nn.Linear(1, 1)
        seen: list[float] = []

        def validation() -> float:
            seen.append(network.weight.item())
            return -float(len(seen))

        def epoch_losses(epoch: int):
            for _ in range(4):
                target = 3 * torch.randn(())
                yield lambda target=target: (network(torch.ones(1, 1)) - target).square().sum()

        recipe = Recipe(**{**RECIPE.__dict__, "weight_decay": 0.0, "averaging": averaging})
        train(network, recipe, epoch_losses=epoch_losses, validation_loss=validation)
        return float(np.abs(np.diff(seen[5:20])).mean())

    assert wandering(5.0) < 0.5 * wandering(0.0)


def test_slow_parameters_have_their_own_rate_and_vectors_no_decay() -> None:
    class Slow(nn.Module):
        slow_parameters = ("A",)

        def __init__(self) -> None:
            super().__init__()
            self.A = nn.Parameter(torch.ones(2, 2))
            self.inner = nn.Linear(2, 2)

    network = Slow()
    matrices, vectors, slow = parameter_groups(network, RECIPE)
    assert [id(p) for p in slow["params"]] == [id(network.A)]
    assert [id(p) for p in matrices["params"]] == [id(network.inner.weight)]
    assert [id(p) for p in vectors["params"]] == [id(network.inner.bias)]
    assert (slow["lr"], slow["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0, 0.0)
    assert (matrices["lr"], matrices["weight_decay"]) == (0.1, 0.3)


def test_gradient_clipping_and_warm_up_limit_the_first_step(network: nn.Linear) -> None:
    before = network.weight.item()
    one = Recipe(**{**RECIPE.__dict__, "epochs": 1, "weight_decay": 0.0})
    train(network, one, epoch_losses=losses(network, 1e6), validation_loss=iter([1.0, 0.0]).__next__)
    # Adam's first step is the learning rate, here a third of it
    assert abs(network.weight.item() - before) == pytest.approx(0.1 / 3, rel=1e-3)


def test_randomness_and_threads_stay_inside() -> None:
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    state = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with repeatable(seed, cpu):
            assert torch.get_num_threads() == 1
            draws.append(torch.rand(3))
    with pytest.raises(KeyError), repeatable(5, cpu):
        raise KeyError
    assert torch.get_num_threads() == threads
    assert (torch.get_rng_state() == state).all()
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).all()


def test_device_that_is_not_there_is_an_input_error() -> None:
    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        assert choose_device("auto").type == "cpu"
        with pytest.raises(InputError, match="device is 'cuda'"):
            choose_device("cuda")
