"""Owns what all operations share: lazy import, the choice of implementation and its account, checks of arguments."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import ssmfin_kernels
from ssmfin_kernels import checks, dispatch, library


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_a_function() -> None:
    assert "linear_scan" in ssmfin_kernels.__all__
    for name in ssmfin_kernels.__all__:
        value = getattr(ssmfin_kernels, name)
        assert callable(value), name
        assert value.__name__ == name
    assert sorted(ssmfin_kernels.__all__) == dir(ssmfin_kernels)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_scan'"):
        ssmfin_kernels.no_such_scan  # noqa: B018


def test_the_function_is_not_hidden_by_the_folder_of_its_name() -> None:
    code = (
        "from ssmfin_kernels.linear_scan import naive\n"
        "import ssmfin_kernels, types\n"
        "assert isinstance(naive, types.ModuleType)\n"
        "assert isinstance(ssmfin_kernels.linear_scan, types.FunctionType), ssmfin_kernels.linear_scan\n"
    )
    run_python(code)


def test_import_takes_under_a_second_after_torch_and_leaves_numba_and_triton_out() -> None:
    code = (
        "import sys, time, torch\n"
        "before = set(sys.modules)\n"
        "start = time.perf_counter()\n"
        "import ssmfin_kernels\n"
        "[getattr(ssmfin_kernels, name) for name in ssmfin_kernels.__all__]\n"
        "print(time.perf_counter() - start, *(set(sys.modules) - before) & {'numba', 'triton', 'ssmfin'})\n"
    )
    seconds, *heavy = run_python(code).split()
    assert float(seconds) < 1.0
    assert heavy == []


def test_works_with_torch_alone() -> None:
    """Neither numba nor triton nor numpy can be found: the naive implementations answer, and backends() says why."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('numba', 'triton', 'numpy')))\n"
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('numba', 'triton', 'numpy') else find(name, *rest)\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch, ssmfin_kernels as k\n"
        "x = torch.ones(1, 5, 2, requires_grad=True)\n"
        "h, final = k.linear_scan(x, x)\n"
        "y, state = k.causal_convolution(x, torch.ones(2, 4), activation='silu')\n"
        "(h.sum() + y.sum() + final.sum()).backward()\n"
        "print(float(final[0, 0]), k.backends()['linear_scan']['cpu tensors'])\n"
    )
    assert run_python(code) == "5.0 naive (numba is not installed)"


def test_backends_names_every_operation_and_prints_as_a_table() -> None:
    table = ssmfin_kernels.backends()
    # StateSpace is a container, the log-likelihoods are forms of the filters
    forms = {"kalman_log_likelihood", "hidden_markov_log_likelihood"}
    assert set(ssmfin_kernels.__all__) - {"backends", "StateSpace", *forms} <= set(table)
    lines = repr(table).splitlines()
    assert lines[0].split("  ")[0] == "operation"
    assert len(lines) == len(table) + 1


def test_device_and_availability_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dispatch.Operation("some_scan", cpu="numba", gpu="triton")
    here, there = torch.zeros(1), torch.zeros(1, device="meta")
    monkeypatch.setattr(dispatch, "_installed", lambda package: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert known.choose(here) == "cpu"
    assert known.choose(there) == "naive"
    assert known.choose(here, "naive") == "naive"
    assert known.obstacle("gpu", "cuda") is None
    with pytest.raises(ValueError, match="which some_scan cannot use here: the tensors are on cpu"):
        known.choose(here, "gpu")
    with pytest.raises(ValueError, match="the tensors are on meta"):
        known.choose(there, "cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert known.choose(here, "gpu") == "gpu"
    monkeypatch.setattr(dispatch, "_installed", lambda package: False)
    assert known.choose(here) == "naive"
    with pytest.raises(ValueError, match="numba is not installed"):
        known.choose(here, "cpu")
    with pytest.raises(ValueError, match="there is no cpu implementation"):
        dispatch.Operation("other", cpu=None, gpu=None).choose(here, "cpu")


@pytest.mark.parametrize(
    "name, shape, letters, message",
    [
        ("u", (2, 3), "B T D", r"u has shape \(2, 3\), expected \(B, T, D\) with B = 2, D = 4."),
        ("A", (3, 5), "D N", r"A has shape \(3, 5\), expected \(D, N\) with D = 4."),
        ("s", (2, 9, 4), "B K-1 D", r"s has shape \(2, 9, 4\), expected \(B, K-1, D\) with B = 2, K-1 = 2, D = 4."),
        ("q", (2, 3), "N N", r"q has shape \(2, 3\), expected \(N, N\): both N alike."),
        ("one", (2,), "1", r"one has shape \(2,\), expected \(1,\)."),
    ],
)
def test_shapes_are_held_against_letters(name: str, shape: Any, letters: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.check_shape(name, torch.zeros(shape), letters, {"B": 2, "D": 4, "K": 3})


def test_what_is_no_tensor_is_named() -> None:
    with pytest.raises(ValueError, match=r"u is a list, expected a tensor \(B, T\)"):
        checks.check_shape("u", [1.0], "B T", {})  # type: ignore[arg-type]


def test_types_of_mixed_arguments() -> None:
    half, brain, double = (torch.zeros(1, dtype=d) for d in (torch.float16, torch.bfloat16, torch.complex128))
    assert library.common_dtype(half, None, brain) == torch.float32
    assert library.common_dtype(half, double) == torch.complex128
    assert library.state_dtype(torch.bfloat16) == torch.float32
    assert library.state_dtype(torch.float64) == torch.float64
