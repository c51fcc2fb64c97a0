"""Owns the tests of the hidden Markov log-likelihood: the filter's, with gradients, also where linear space fails."""

import math

import pytest
import torch

from ssmfin_kernels.hidden_markov_scan import (
    cpu,
    hidden_markov_filter,
    hidden_markov_log_likelihood,
    hidden_markov_smoother,
)

F64 = torch.float64
BACKENDS = ["naive", "cpu", "parallel"]


def case(seed, B, T, K, *, by_time=False, by_series=False, forbidden=False, reset=False, scale=2.0):
    g = torch.Generator().manual_seed(seed)
    said = scale * torch.randn(B, T, K, generator=g, dtype=F64)
    said[torch.rand(B, T, generator=g) < 0.15] = torch.nan
    b, t = B if by_series else 1, T if by_time else 1
    transition = torch.randn(b, t, K, K, generator=g, dtype=F64).log_softmax(-1)
    if forbidden and K > 1:
        transition[..., 0, -1] = -torch.inf
    given = {"log_transition": transition, "log_initial": torch.randn(B, K, generator=g, dtype=F64).log_softmax(-1)}
    if reset:
        given["reset"] = torch.rand(B, T, generator=g) < 0.15
    return said, given


CASES = [
    {},
    {"scale": 400.0},
    {"by_time": True},
    {"by_series": True, "forbidden": True},
    {"by_time": True, "by_series": True, "reset": True, "forbidden": True},
    {"reset": True, "scale": 100.0},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T, K", [(2, 2), (3, 1), (37, 3), (130, 2)])
@pytest.mark.parametrize("options", CASES)
def test_value_and_every_gradient_equal_those_of_the_naive_filter(backend, T, K, options):
    said, given = case(T, 5, T, K, **options)
    said = torch.nan_to_num(said)
    reset = given.pop("reset", None)
    leaves = [x.requires_grad_() for x in (said, *given.values())]
    weights = torch.arange(1.0, 6.0, dtype=F64)
    want = hidden_markov_filter(said, **given, reset=reset, backend="naive").log_likelihood
    got = hidden_markov_log_likelihood(said, **given, reset=reset, backend=backend)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-10)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), leaves),
        torch.autograd.grad((want * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_gradients_are_posterior_probabilities_and_expected_transitions():
    said, given = case(6, 3, 40, 3)
    said = torch.nan_to_num(said).requires_grad_()
    A = given["log_transition"].requires_grad_()
    by_density, by_transition = torch.autograd.grad(hidden_markov_log_likelihood(said, **given).sum(), [said, A])
    smoothed = hidden_markov_smoother(said.detach(), **{k: v.detach() for k, v in given.items()}).smoothed.exp()
    torch.testing.assert_close(by_density, smoothed, rtol=1e-10, atol=1e-12)
    assert float(by_transition.sum()) == pytest.approx(3 * 39)


def test_a_state_all_but_ruled_out_comes_back_and_leaves_others_alone():
    said = torch.tensor([[[0.0, -5000.0], [-1e5, 0.0]], [[0.0, -1.0], [-1.0, 0.0]]], dtype=F64)
    given = {
        "log_transition": torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=F64),
        "log_initial": torch.tensor([0.5, 0.5], dtype=F64).log(),
    }
    got = hidden_markov_log_likelihood(said, **given)
    assert float(got[0]) == pytest.approx(-5000 + math.log(0.5))
    assert float(got[1]) == pytest.approx(-1.0)


def test_impossible_observations_give_minus_infinity_and_no_gradient():
    said, given = case(0, 2, 6, 2)
    said = torch.nan_to_num(said)
    said[0, 3] = -torch.inf
    said.requires_grad_()
    got = hidden_markov_log_likelihood(said, **given)
    assert got[0].item() == -math.inf
    (grad,) = torch.autograd.grad(got[1], said)
    assert grad.isfinite().all()
    assert (grad[0] == 0).all()


def test_a_series_has_the_same_bits_whatever_its_companions():
    said, given = case(3, 6, 50, 2)
    said = torch.nan_to_num(said).requires_grad_()
    whole = hidden_markov_log_likelihood(said, **given)
    (grad,) = torch.autograd.grad(whole.sum(), said)
    for b in range(6):
        alone = said[b : b + 1].detach().clone().requires_grad_()
        own = hidden_markov_log_likelihood(
            alone, log_transition=given["log_transition"], log_initial=given["log_initial"][b]
        )
        assert torch.equal(own, whole[b : b + 1])
        assert torch.equal(torch.autograd.grad(own.sum(), alone)[0][0], grad[b])


def test_gradcheck():
    said, given = case(5, 2, 6, 2)
    leaves = [torch.nan_to_num(said).requires_grad_(), *(v.requires_grad_() for v in given.values())]

    def run(said, A, initial):
        return hidden_markov_log_likelihood(said, log_transition=A, log_initial=initial)

    assert torch.autograd.gradcheck(run, leaves)


def test_operator_is_registered_well():
    said, given = case(0, 2, 5, 2)
    inputs = [torch.nan_to_num(said), given["log_transition"], given["log_initial"]]
    torch.library.opcheck(
        cpu._log_likelihood,
        (*(x.detach().clone().requires_grad_() for x in inputs), None),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecated parts
def test_compiles_as_one_graph():
    said, given = case(0, 2, 5, 2)
    said = torch.nan_to_num(said).requires_grad_()
    compiled = torch.compile(lambda x: hidden_markov_log_likelihood(x, **given).sum(), fullgraph=True)
    (grad,) = torch.autograd.grad(compiled(said), said)
    (want,) = torch.autograd.grad(hidden_markov_log_likelihood(said, **given).sum(), said)
    torch.testing.assert_close(grad, want)


def test_second_derivative_is_refused_not_zero():
    said, given = case(0, 2, 5, 2)
    said = torch.nan_to_num(said).requires_grad_()
    (grad,) = torch.autograd.grad(hidden_markov_log_likelihood(said, **given).sum(), said, create_graph=True)
    with pytest.raises(RuntimeError, match="hidden_markov_log_likelihood_cpu has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"log_transition": torch.zeros(2, 3)}, r"log_transition has shape \(2, 3\), expected \(K, K\) with K = 2"),
        ({"log_initial": torch.zeros(3)}, r"log_initial has shape \(3,\), expected \(K,\) with K = 2"),
        ({"backend": "fast"}, "backend is 'fast', expected"),
    ],
)
def test_mistakes_are_named(change, message):
    said, given = case(0, 2, 5, 2)
    with pytest.raises(ValueError, match=message):
        hidden_markov_log_likelihood(said, **{**given, **change})
