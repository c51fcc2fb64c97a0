"""Owns the tests of hidden Markov filtering, smoothing and decoding: brute force over paths, and every form against
the naive one."""

import itertools
import math

import numpy as np
import pytest
import torch

from ssmfin_kernels.hidden_markov_scan import (
    cpu,
    hidden_markov_filter,
    hidden_markov_smoother,
    hidden_markov_viterbi,
    naive,
    parallel,
)

F64 = torch.float64
BACKENDS = ["naive", "cpu", "parallel"]


def case(seed, B, T, K, *, by_time=False, by_series=False, forbidden=False, reset=False):
    g = torch.Generator().manual_seed(seed)
    said = 2 * torch.randn(B, T, K, generator=g, dtype=F64)
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
    {"by_time": True},
    {"by_series": True, "forbidden": True},
    {"by_time": True, "by_series": True, "reset": True, "forbidden": True},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("by_time", [False, True])
def test_all_equal_brute_force_over_paths(backend, by_time):
    B, T, K = 2, 5, 3
    said, given = case(3, B, T, K, by_time=by_time, forbidden=True)
    A = given["log_transition"].expand(1, T, K, K)[0]
    filtered = hidden_markov_filter(said, **given, backend=backend)
    smoothed = hidden_markov_smoother(said, **given, backend=backend)
    decoded = hidden_markov_viterbi(said, **given, backend=backend)
    clean = torch.nan_to_num(said)
    for b in range(B):
        score = {}
        for path in itertools.product(range(K), repeat=T):
            log_p = given["log_initial"][b, path[0]] + sum(clean[b, t, s] for t, s in enumerate(path))
            score[path] = float(log_p + sum(A[t, path[t], path[t + 1]] for t in range(T - 1)))
        total = np.logaddexp.reduce(list(score.values()))
        assert float(filtered.log_likelihood[b]) == pytest.approx(total, abs=1e-10)
        assert float(smoothed.log_likelihood[b]) == pytest.approx(total, abs=1e-10)
        for t, k in itertools.product(range(T), range(K)):
            want = np.logaddexp.reduce([v for path, v in score.items() if path[t] == k]) - total
            assert float(smoothed.smoothed[b, t, k]) == pytest.approx(want, abs=1e-10)
        best = max(score, key=score.__getitem__)
        assert tuple(decoded.path[b].tolist()) == best
        assert float(decoded.log_probability[b]) == pytest.approx(score[best], abs=1e-10)
    torch.testing.assert_close(smoothed.smoothed[:, -1], filtered.filtered[:, -1])


def path_probability(path, problem):
    B, T, _ = problem.emission.shape
    rows = torch.arange(B)
    total = torch.zeros(B, dtype=F64)
    for t in range(T):
        total += problem.emission[:, t].gather(1, path[:, t, None])[:, 0]
        A = problem.transition.expand(B, T, -1, -1)[:, t - 1]
        start = torch.full((B,), t == 0) if problem.reset is None or t == 0 else problem.reset[:, t]
        total += torch.where(start, problem.initial[rows, path[:, t]], A[rows, path[:, t - 1], path[:, t]])
    return total


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127])
@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("form", [cpu, parallel])
def test_fast_forms_equal_naive_with_every_gradient(T, K, form):
    for options in CASES:
        said, given = case(T, 5, T, K, **options)
        problem = naive.Problem(
            torch.where(said.isnan().any(2, keepdim=True), 0.0, said),
            given["log_transition"],
            given["log_initial"],
            given.get("reset"),
        )
        leaves = [x.detach().clone().requires_grad_() for x in problem[:3]]
        problem = naive.Problem(*leaves, problem.reset)
        got, want = form.hidden_markov_filter(problem), naive.hidden_markov_filter(problem)
        g = torch.Generator().manual_seed(0)
        weights = [torch.randn(x.shape, generator=g, dtype=F64) for x in want]
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)

        def total(out, weights=weights):
            return sum((torch.where(torch.isinf(x), 0.0, x) * w).sum() for x, w in zip(out, weights, strict=True))

        for a, b in zip(torch.autograd.grad(total(got), leaves), torch.autograd.grad(total(want), leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            for a, b in zip(form.hidden_markov_smoother(problem), naive.hidden_markov_smoother(problem), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
            path, best = form.hidden_markov_viterbi(problem)
            torch.testing.assert_close(best, naive.hidden_markov_viterbi(problem)[1], rtol=1e-9, atol=1e-9)
            # missing rows make ties, which rounding breaks: not the path is unique but its probability
            torch.testing.assert_close(path_probability(path, problem), best, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("T", [1000, 2049])
def test_cpu_equals_naive_on_long_series(T):
    said, given = case(1, 3, T, 2)
    got, want = (hidden_markov_filter(said, **given, backend=b) for b in ("cpu", "naive"))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_combination_is_associative():
    g = torch.Generator().manual_seed(0)
    starts = torch.tensor([[False, False, True]]).expand(4, 3)
    x, y, z = ((torch.randn(4, 3, 3, 3, generator=g, dtype=F64) * 50, starts.roll(i, 1)) for i in range(3))

    def centred(e):
        return e[0] - e[0].amax((-2, -1), keepdim=True)

    left = parallel.combine_filtered(parallel.combine_filtered(x, y), z)
    right = parallel.combine_filtered(x, parallel.combine_filtered(y, z))
    torch.testing.assert_close(centred(left), centred(right), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_all_but_ruled_out_comes_back(backend):
    # state 1 is 5,000 nats behind after the first step, and then the only one that explains the second
    said = torch.tensor([[[0.0, -5000.0], [-1e5, 0.0]]], dtype=F64)
    given = {
        "log_transition": torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=F64),
        "log_initial": torch.tensor([0.5, 0.5], dtype=F64).log(),
    }
    got = hidden_markov_filter(said, **given, backend=backend)
    assert float(got.log_likelihood) == pytest.approx(-5000 + math.log(0.5))
    assert float(got.filtered[0, 1, 1]) == pytest.approx(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_impossible_observations_give_minus_infinity_not_nan(backend):
    said, given = case(0, 2, 6, 2)
    said[0, 3] = -torch.inf
    got = hidden_markov_filter(said, **given, backend=backend)
    assert float(got.log_likelihood[0]) == -math.inf
    assert math.isfinite(float(got.log_likelihood[1]))
    assert not got.filtered.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_rows_say_nothing(backend):
    said, given = case(0, 2, 6, 3)
    said[:, 2] = torch.nan
    said[:, 4] = 0.0
    got = hidden_markov_filter(said, **given, backend=backend)
    for t in (2, 4):
        torch.testing.assert_close(got.filtered[:, t], got.predicted[:, t])
        torch.testing.assert_close(got.log_likelihood_steps[:, t], torch.zeros(2, dtype=F64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 7, 19])
def test_run_in_two_parts_equals_one_and_reset_equals_separate_runs(backend, cut):
    said, given = case(4, 3, 20, 3)
    whole = hidden_markov_filter(said, **given, backend=backend)
    first = hidden_markov_filter(said[:, :cut], **given, backend=backend)
    second = hidden_markov_filter(said[:, cut:], **{**given, "log_initial": first.final}, backend=backend)
    torch.testing.assert_close(torch.cat([first.filtered, second.filtered], 1), whole.filtered)
    torch.testing.assert_close(first.log_likelihood + second.log_likelihood, whole.log_likelihood)

    reset = torch.zeros(3, 20, dtype=torch.bool)
    reset[:, cut] = True
    parts = [hidden_markov_smoother(said[:, s], **given, backend=backend) for s in (slice(0, cut), slice(cut, 20))]
    both = hidden_markov_smoother(said, **given, reset=reset, backend=backend)
    torch.testing.assert_close(torch.cat([p.smoothed for p in parts], 1), both.smoothed)
    paths = [hidden_markov_viterbi(said[:, s], **given, backend=backend) for s in (slice(0, cut), slice(cut, 20))]
    path = hidden_markov_viterbi(said, **given, reset=reset, backend=backend)
    assert torch.equal(torch.cat([p.path for p in paths], 1), path.path)
    torch.testing.assert_close(paths[0].log_probability + paths[1].log_probability, path.log_probability)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck_and_nothing_flows_across_a_reset(backend):
    said, given = case(5, 2, 6, 2)
    said = torch.nan_to_num(said).requires_grad_()

    def both(said, A, initial):
        got = hidden_markov_filter(said, log_transition=A, log_initial=initial, backend=backend)
        return got.log_likelihood, got.filtered, got.final

    leaves = [given["log_transition"].requires_grad_(), given["log_initial"].requires_grad_()]
    assert torch.autograd.gradcheck(both, (said, *leaves))
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 3] = True
    got = hidden_markov_filter(said, **given, reset=reset, backend=backend)
    (grad,) = torch.autograd.grad(got.filtered[:, 3:, 0].sum() + got.log_likelihood_steps[:, 3:].sum(), said)
    assert (grad[:, :3] == 0).all()
    assert (grad[:, 3:] != 0).any()


def test_gradient_for_transitions_is_the_expected_number_of_each():
    said, given = case(6, 1, 30, 2)
    A = given["log_transition"].requires_grad_()
    (count,) = torch.autograd.grad(hidden_markov_filter(said, **given).log_likelihood.sum(), A)
    assert float(count.sum()) == pytest.approx(29)


def test_same_bits_every_time_and_strides_do_not_matter():
    said, given = case(7, 50, 40, 3)
    strided = said.transpose(0, 1).contiguous().transpose(0, 1)
    results = []
    for x in (said, said, strided):
        A = given["log_transition"].detach().clone().requires_grad_()
        got = hidden_markov_filter(x, log_transition=A, log_initial=given["log_initial"])
        results.append((*got, *torch.autograd.grad(got.log_likelihood.sum(), A)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_half_precision_is_taken_as_float32():
    said, given = case(8, 2, 20, 2)
    exact = hidden_markov_filter(said, **given)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
        got = hidden_markov_filter(said.to(dtype), **{k: v.to(dtype) for k, v in given.items()})
        assert got.filtered.dtype == torch.float32
        torch.testing.assert_close(got.filtered.exp().double(), exact.filtered.exp(), rtol=0, atol=tolerance)


def test_operator_is_registered_well():
    said, given = case(0, 2, 5, 2)
    inputs = [torch.nan_to_num(said), given["log_transition"], given["log_initial"]]
    torch.library.opcheck(
        cpu._filter,
        (*(x.detach().clone().requires_grad_() for x in inputs), None),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecated parts
def test_compiles_as_one_graph():
    said, given = case(0, 2, 5, 2)
    said = torch.nan_to_num(said).requires_grad_()
    compiled = torch.compile(lambda x: hidden_markov_filter(x, **given).log_likelihood.sum(), fullgraph=True)
    (grad,) = torch.autograd.grad(compiled(said), said)
    (want,) = torch.autograd.grad(hidden_markov_filter(said, **given).log_likelihood.sum(), said)
    torch.testing.assert_close(grad, want)


def test_second_derivative_is_refused_not_zero():
    said, given = case(0, 2, 5, 2)
    said = torch.nan_to_num(said).requires_grad_()
    (grad,) = torch.autograd.grad(hidden_markov_filter(said, **given).log_likelihood.sum(), said, create_graph=True)
    with pytest.raises(RuntimeError, match="hidden_markov_filter_cpu has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"log_transition": torch.zeros(2, 3)}, r"log_transition has shape \(2, 3\), expected \(K, K\) with K = 2"),
        ({"log_transition": torch.zeros(3, 2, 2)}, r"expected \(K, K\) or \(B or 1, T or 1, K, K\)"),
        ({"log_initial": torch.zeros(3)}, r"log_initial has shape \(3,\), expected \(K,\) with K = 2"),
        ({"reset": torch.zeros(2, 4)}, r"reset has shape \(2, 4\), expected \(B, T\)"),
        ({"backend": "fast"}, "backend is 'fast', expected"),
    ],
)
def test_mistakes_are_named(change, message):
    said, given = case(0, 2, 5, 2)
    for call in (hidden_markov_filter, hidden_markov_smoother, hidden_markov_viterbi):
        with pytest.raises(ValueError, match=message):
            call(said, **{**given, **change})
