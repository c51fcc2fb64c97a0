"""Every block is causal, can be cut anywhere and streamed. A new block joins by a line in deep_support/blocks.py."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from deep_support.blocks import BLOCKS, RESETS, WIDTH, moved, resets, streamed
from torch import Tensor

from ssmfin.models.deep.block import SequenceBlock, State

FP64, FP32 = 1e-10, 1e-5  # relative to the largest output
LENGTH = 151  # odd, more than two chunks of every block


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest) -> SequenceBlock:
    """In float64, its parameters moved away from where they start."""
    return moved(request.param)


def inputs(batch: int = 3, steps: int = LENGTH, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, steps, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(dtype)


def near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    actual, expected = actual.detach(), expected.detach()
    assert float((actual - expected).abs().max()) <= tolerance * max(1e-30, float(expected.abs().max()))


def states_near(actual: State, expected: State, tolerance: float) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        if one.numel():
            near(one, other, tolerance)


@pytest.mark.parametrize("cut", [1, 64, 100, LENGTH - 1])
def test_two_parts_with_the_carried_state_are_the_whole(block: SequenceBlock, cut: int) -> None:
    x = inputs()
    whole, final = block(x)
    first, state = block(x[:, :cut])
    second, carried = block(x[:, cut:], state)
    near(torch.cat((first, second), dim=1), whole, FP64)
    states_near(carried, final, FP64)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, FP64), (torch.float32, FP32)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("frozen", [False, True])
def test_steps_are_the_whole(block: SequenceBlock, dtype: torch.dtype, tolerance: float, frozen: bool) -> None:
    block, x = block.to(dtype), inputs(dtype=dtype)
    if frozen:
        block.freeze()
    with torch.no_grad():
        whole, final = block(x)
        steps, state = streamed(block, x)
    near(steps, whole, tolerance)
    states_near(state, final, 10 * tolerance)


def test_a_step_changes_no_argument_and_states_are_finite_and_of_the_stated_shapes(block: SequenceBlock) -> None:
    x = inputs(2, 9)
    start = block.initial_state(2, dtype=x.dtype)
    kept = copy.deepcopy(start)
    with torch.no_grad():
        block.step(x[:, 0], start)
        y, state = block(x, start)
    assert all(torch.equal(one, other) for one, other in zip(start, kept, strict=True))
    assert [tuple(part.shape) for part in state] == [(2, *shape) for shape in block.state_shapes()]
    assert all(part.dtype == torch.float64 and part.isfinite().all() for part in state)
    assert y.shape == x.shape
    assert all(part.dtype == torch.float32 for part in block.initial_state(1, dtype=torch.bfloat16))


def test_no_state_is_the_zero_state(block: SequenceBlock) -> None:
    x = inputs(2, 20)
    near(block(x, block.initial_state(2, dtype=x.dtype))[0], block(x)[0], FP64)


def test_frozen_blocks_thaw_when_parameters_may_change(block: SequenceBlock) -> None:
    x = inputs(2, 1)[:, 0]
    state = block.initial_state(2, dtype=x.dtype)
    block.freeze()
    changed = {name: 0.5 * value for name, value in block.state_dict().items()}
    block.load_state_dict(changed)
    after, _ = block.step(x, state)
    near(after, block.eval().step(x, state)[0], FP64)


@pytest.mark.parametrize("carried", [False, True])
def test_a_reset_starts_a_run_of_its_own(block: SequenceBlock, carried: bool) -> None:
    x = inputs()
    state = block(inputs(3, 40).flip(1))[1] if carried else None
    packed, final = block(x, state, resets(LENGTH))
    for row, steps in RESETS.items():
        edges = sorted({0, *steps, LENGTH})
        for begin, end in itertools.pairwise(edges):
            fresh = state is None or begin in steps
            one = None if fresh or state is None else tuple(part[row : row + 1] for part in state)
            alone, last = block(x[row : row + 1, begin:end], one)
            near(packed[row : row + 1, begin:end], alone, FP64)
        states_near(tuple(part[row : row + 1] for part in final), last, FP64)


def test_no_gradient_crosses_a_reset(block: SequenceBlock) -> None:
    x = inputs().requires_grad_()
    state = tuple(part.detach().requires_grad_() for part in block(inputs(3, 40).flip(1))[1])
    y, final = block(x, state, resets(LENGTH))
    loss = y[0, 70:].square().sum() + y[1, 64:150].square().sum() + sum(part[1].square().sum() for part in final)
    grads = torch.autograd.grad(loss, (x, *state), allow_unused=True)
    reached = grads[0]
    assert reached is not None
    assert (reached[0, :70] == 0).all()
    assert (reached[1, :64] == 0).all()
    assert (reached[0, 70:] != 0).any(dim=-1).all()
    assert all(grad is None or (grad[:2] == 0).all() for grad in grads[1:])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_later_inputs_do_not_change_one_bit_of_earlier_outputs(
    block: SequenceBlock, dtype: torch.dtype, packed: bool
) -> None:
    block, x = block.to(dtype), inputs(dtype=dtype)
    mask = resets(LENGTH) if packed else None
    with torch.no_grad():
        before, _ = block(x, None, mask)
        for t in (0, 1, 37, 63, 64, 65, 149):
            other = x.clone()
            other[:, t + 1 :] = 1e3 * torch.flip(x, dims=(0,))[:, t + 1 :]
            later = mask
            if mask is not None:
                later = mask.clone()
                later[:, t + 1 :] = mask[:, t + 1 :].flip(0)
            assert torch.equal(block(other, None, later)[0][:, : t + 1], before[:, : t + 1])


def test_sequences_of_a_batch_do_not_see_each_other(block: SequenceBlock) -> None:
    x = inputs(3, 70)
    together, state = block(x)
    alone, last = block(x[1:2])
    near(together[1:2], alone, FP64)
    states_near(tuple(part[1:2] for part in state), last, FP64)
    others = 1e3 * x.flip(1)
    others[1] = x[1]
    assert torch.equal(block(others)[0][1], together[1])


@pytest.mark.parametrize("steps", [1, 2, 5, 17, 63, 64, 65, 129])
def test_any_length_is_a_prefix_of_a_longer_one(block: SequenceBlock, steps: int) -> None:
    x = inputs(1)
    near(block(x[:, :steps])[0], block(x)[0][:, :steps], FP64)


def test_the_receptive_field_is_exact(block: SequenceBlock) -> None:
    x = inputs(1, 40).requires_grad_()
    (grad,) = torch.autograd.grad(block(x)[0][0, -1].sum(), x)
    reached = (grad[0] != 0).any(dim=-1)
    if block.receptive_field is None:
        assert reached.all()
    else:
        # the oldest step that is reached; a dilated convolution skips some after it
        assert int(reached.nonzero()[0]) == max(0, 40 - block.receptive_field)


def test_gradients_equal_finite_differences(block: SequenceBlock) -> None:
    x, mask = inputs(2, 7), torch.zeros(2, 7, dtype=torch.bool)
    mask[0, 4] = True
    parameters = tuple(block.parameters())
    directions = [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)) for p in parameters]
    weight = inputs(2, 7).flip(0)
    for reset in (None, mask):

        def loss(reset: Tensor | None = reset) -> Tensor:
            y, final = block(x, None, reset)
            return (y * weight).sum() + sum(part.sum() for part in final)

        grads = torch.autograd.grad(loss(), parameters)
        slope = sum(float((grad * way).sum()) for grad, way in zip(grads, directions, strict=True))
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for parameter, way in zip(parameters, directions, strict=True):
                    parameter += step * way
                ends.append(float(loss()))
                for parameter, way in zip(parameters, directions, strict=True):
                    parameter -= step * way
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-6)


def test_gradients_stay_finite_over_ten_thousand_steps(block: SequenceBlock) -> None:
    block, x = block.float(), inputs(1, 10_000, dtype=torch.float32).requires_grad_()
    y, _ = block(x)
    y[:, -1].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[:, -1] != 0).any()
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("packed", [False, True])
def test_autocast_keeps_states_in_float32(block: SequenceBlock, packed: bool) -> None:
    block, x = block.float(), inputs(dtype=torch.float32)
    mask = resets(LENGTH) if packed else None
    exact, _ = block(x, None, mask)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = block(x, None, mask)
        _, after = block.step(x[:, 0], state)
    assert all(part.dtype == torch.float32 for part in (*state, *after))
    assert float((y - exact).detach().abs().max()) < 0.05 * float(exact.detach().abs().max())
    y.float().sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in block.parameters())


def test_slow_parameters_are_parameters_of_the_block(block: SequenceBlock) -> None:
    own = dict(block.named_parameters(recurse=False))
    assert {name for name in block.slow_parameters if getattr(block, name) is not None} <= set(own)


def test_time_scales_are_positive(block: SequenceBlock) -> None:
    scales = block.time_scales()
    if scales is not None:
        assert scales.ndim == 2
        assert (scales > 0).all()
        assert not scales.requires_grad


def test_the_same_seed_gives_the_same_block() -> None:
    for make in BLOCKS.values():
        made = []
        for _ in range(2):
            with torch.random.fork_rng():
                torch.manual_seed(4)
                made.append(make().state_dict())
        assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
