"""Runs every operation against its naive twin in float64, at sizes that fit no tile, gradients included, and twice.

    PYTHONPATH=kernels python kernels/benchmarks/correctness.py [operation ...] [--device cpu|cuda]

What the tests do in Triton's interpreter, on the real device: an interpreter knows neither registers nor the assembler.
Odd widths, tails, resets, states in and out, each type; storage begins at no multiple of 16 bytes, but where rows are
whole words of 16 bytes, which have tiles of their own. Relative errors are those of whole tensors in norm; a NaN or a
second run that differs in one bit fails. Exits with 1 if anything does.
Compiling takes nearly all of the time: each case says on standard error when it is done, and after how long.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor

from ssmfin_kernels import (
    StateSpace,
    causal_convolution,
    chunk_scan,
    diagonal_scan,
    hidden_markov_filter,
    kalman_filter,
    kalman_log_likelihood,
    linear_scan,
    selective_scan,
    vandermonde_kernel,
)

HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64
COMPLEX = torch.complex64
TOLERANCE = {HALF: 4e-3, BRAIN: 2e-2, SINGLE: 2e-5, DOUBLE: 1e-11, COMPLEX: 2e-5, torch.complex128: 1e-11}

Case = tuple[str, str, tuple[int, ...], torch.dtype, bool]  # device, operation, sizes, type, packed
Made = tuple[Callable[..., tuple[Tensor, ...]], dict[str, Tensor], dict[str, Any]]  # function, tensors, options


def normal(*size: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*size, dtype=dtype)


def _resets(batch: int, steps: int, packed: bool) -> Tensor | None:
    return torch.rand(batch, steps) < 0.04 if packed else None


def _linear(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, D, reverse = sizes
    a = 0.5 + torch.rand(B, T, D, dtype=DOUBLE) / 2
    if complex_:
        a = torch.polar(a, 6.28 * torch.rand(B, T, D, dtype=DOUBLE))
    wide = a.dtype
    tensors = {"a": a, "b": normal(B, T, D, dtype=wide), "initial_state": normal(B, D, dtype=wide)}
    return linear_scan, tensors, {"reset": _resets(B, T, packed), "reverse": bool(reverse)}


def _selective(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, D, N, G, every = sizes
    tensors = {
        "u": normal(B, T, D),
        "delta": 0.5 * normal(B, T, D) if every else 0.1 * torch.rand(B, T, D, dtype=DOUBLE),
        "A": -1 - torch.rand(D, N, dtype=DOUBLE),
        "B": normal(B, T, G, N),
        "C": normal(B, T, G, N),
        "initial_state": normal(B, D, N),
    }
    if every:
        tensors |= {"D": normal(D), "z": normal(B, T, D), "delta_bias": normal(D) - 2}
    return selective_scan, tensors, {"reset": _resets(B, T, packed), "delta_softplus": bool(every)}


def _chunk(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, H, P, N, G = sizes
    tensors = {
        "x": normal(B, T, H, P),
        "dt": normal(B, T, H),
        "A": -0.1 - torch.rand(H, dtype=DOUBLE),
        "B": normal(B, T, G, N),
        "C": normal(B, T, G, N),
        "D": normal(H),
        "dt_bias": normal(H) - 3,
        "initial_state": normal(B, H, P, N),
    }
    return chunk_scan, tensors, {"reset": _resets(B, T, packed), "dt_softplus": True}


def _convolution(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, D, K = sizes
    tensors = {"x": normal(B, T, D), "weight": normal(D, K), "bias": normal(D), "initial_state": normal(B, K - 1, D)}
    return causal_convolution, tensors, {"reset": _resets(B, T, packed), "activation": "silu"}


def _vandermonde(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    D, N, L = sizes
    rate = torch.complex(-0.05 * torch.rand(D, N, dtype=DOUBLE), 0.3 * torch.arange(N, dtype=DOUBLE).expand(D, N))
    tensors = {"C": normal(D, N, dtype=torch.complex128), "dtA": rate}
    return (lambda C, dtA, backend=None: (vandermonde_kernel(C, dtA, L, backend=backend),)), tensors, {}


def _diagonal(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, D, N = sizes
    rate = torch.complex(-0.05 * torch.rand(D, N, dtype=DOUBLE), 0.3 * torch.arange(N, dtype=DOUBLE).expand(D, N))
    tensors = {
        "u": normal(B, T, D, dtype=torch.complex128),
        "C": normal(D, N, dtype=torch.complex128),
        "dtA": rate,
        "initial_state": normal(B, D, N, dtype=torch.complex128),
    }
    return (lambda u, **others: diagonal_scan(u.real, **others)), tensors, {"reset": _resets(B, T, packed)}


def _kalman(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, N = sizes
    y = normal(B, T, 1).cumsum(1)
    y[torch.rand(B, T, 1) < 0.1] = torch.nan
    scale = torch.linspace(0.5, 2, B, dtype=DOUBLE)[:, None, None, None]
    tensors = {
        "Q": torch.diag(torch.tensor([0.25, 0.01][:N], dtype=DOUBLE)) * scale,
        "R": torch.ones(1, 1, dtype=DOUBLE) * scale,
    }

    def run(Q: Tensor, R: Tensor, backend: str | None = None) -> tuple[Tensor, ...]:
        like: dict[str, Any] = {"dtype": Q.dtype, "device": Q.device}
        model = StateSpace(
            torch.ones(N, N, **like).triu(),
            torch.eye(1, N, **like),
            Q,
            R,
            torch.full((N, N), 0.0, **like) + 2 * torch.eye(N, **like),
        )
        seen = y.to(**like)
        with torch.no_grad():
            moments = kalman_filter(seen, model, backend=backend)[:4]
        return (kalman_log_likelihood(seen, model, backend=backend), *moments)

    return run, tensors, {}


def _hidden_markov(sizes: tuple[int, ...], complex_: bool, packed: bool) -> Made:
    B, T, K = sizes
    transition = torch.softmax(normal(K, K) + 3 * torch.eye(K, dtype=DOUBLE), -1).log()
    tensors = {"log_likelihood": normal(B, T, K)}

    def run(log_likelihood: Tensor, backend: str | None = None) -> tuple[Tensor, ...]:
        chain = transition.to(log_likelihood)
        start = torch.full((K,), 1 / K).log().to(log_likelihood)
        found = hidden_markov_filter(log_likelihood, log_transition=chain, log_initial=start, backend=backend)
        return found.filtered, found.log_likelihood

    return run, tensors, {}


OPERATIONS: dict[str, tuple[Callable[..., Made], list[tuple[int, ...]], list[torch.dtype]]] = {
    # the slowest to compile first
    "chunk_scan": (
        _chunk,
        [(2, 200, 4, 64, 128, 1), (1, 130, 2, 70, 17, 2), (2, 1, 2, 16, 16, 1)],
        [SINGLE, BRAIN, HALF],
    ),
    "linear_scan": (
        _linear,
        [(1, 1, 1, 0), (2, 65, 33, 1), (16, 300, 530, 0), (16, 300, 640, 1), (2, 9000, 64, 0), (2, 2049, 7, 1)],
        [SINGLE, BRAIN, HALF, DOUBLE, COMPLEX],
    ),
    "selective_scan": (
        _selective,
        [
            (1, 1, 3, 5, 1, 1),
            (2, 127, 33, 7, 3, 0),
            (2, 101, 72, 16, 1, 1),
            (1, 2049, 40, 16, 2, 1),
            (2, 65, 24, 67, 1, 1),
        ],
        [SINGLE, BRAIN, HALF],
    ),
    # from storage that begins at a multiple of 16 bytes, with rows of whole 16 bytes: the form of four warps
    "selective_scan_aligned": (
        _selective,
        [(2, 101, 72, 16, 1, 1), (1, 777, 256, 16, 1, 1), (1, 130, 136, 40, 1, 0), (2, 65, 24, 64, 1, 1)],
        [SINGLE, BRAIN, HALF],
    ),
    "causal_convolution": (
        _convolution,
        [(2, 1, 5, 4), (2, 257, 33, 4), (3, 1000, 128, 4), (2, 64, 48, 2)],
        [SINGLE, BRAIN, HALF],
    ),
    "vandermonde_kernel": (_vandermonde, [(3, 5, 1), (4, 32, 2049), (2, 70, 127)], [COMPLEX]),
    "diagonal_scan": (_diagonal, [(2, 1, 3, 5), (3, 200, 5, 32), (2, 128, 7, 33)], [COMPLEX, torch.complex128]),
    "kalman": (_kalman, [(70, 203, 1), (70, 204, 2)], [SINGLE, DOUBLE]),
    "hidden_markov": (_hidden_markov, [(3, 301, 3)], [DOUBLE]),
}
PACKED = {
    "linear_scan",
    "selective_scan",
    "selective_scan_aligned",
    "chunk_scan",
    "causal_convolution",
    "diagonal_scan",
}


def shifted(value: Tensor) -> Tensor:
    """The same numbers in storage that begins at one element past a multiple of 16 bytes."""
    place = torch.empty(value.numel() + 1, dtype=value.dtype, device=value.device)[1:].view(value.shape)
    return place.copy_(value)


def compare(case: Case) -> tuple[float, bool]:
    """Largest relative error over results and gradients, and whether a second run gave the same bits."""
    begin = time.perf_counter()
    device, name, sizes, dtype, packed = case
    torch.manual_seed(7)
    function, wide, options = OPERATIONS[name][0](sizes, dtype.is_complex, packed)
    reset = options.get("reset")
    there = options | ({} if reset is None else {"reset": reset.to(device)})
    # rows of whole words of 16 bytes take other forms
    aligned = name.endswith("_aligned") or (len(sizes) > 2 and sizes[2] % 32 == 0)
    place = torch.clone if aligned else shifted
    given = {key: place(value.to(device, dtype)).requires_grad_() for key, value in wide.items()}
    exact_given = {
        key: value.detach().to("cpu", torch.complex128 if dtype.is_complex else DOUBLE).requires_grad_()
        for key, value in given.items()
    }
    exact = function(**exact_given, **options, backend="naive")
    # numbers that the type holds exactly: the gradients that flow in are the same for both
    weights = [
        torch.randn_like(value).to(dtype if value.is_complex() == dtype.is_complex else SINGLE).to(value.dtype)
        for value in exact
    ]

    def gradients(found: tuple[Tensor, ...], tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        total = sum(
            (value.to(weight.dtype) * weight.to(value.device)).real.sum()
            for value, weight in zip(found, weights, strict=True)
            if value.requires_grad
        )
        if not isinstance(total, Tensor):
            return ()
        return torch.autograd.grad(total, list(tensors.values()))

    def run() -> list[Tensor]:
        found = function(**given, **there)
        return [value.detach() for value in (*found, *gradients(found, given))]

    first, second = run(), run()
    want = [*exact, *gradients(exact, exact_given)]
    error = max(common.relative_error(one.cpu(), other) for one, other in zip(first, want, strict=True))
    same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    line = (name, sizes, str(dtype)[6:], "packed" if packed else "one", f"{error:.1e}", "same" if same else "DIFFERS")
    print(*line, f"{time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return error, same


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(OPERATIONS)}; all unless told")
    options = parser.parse_args()
    unknown = sorted(set(options.operations) - OPERATIONS.keys())
    if unknown:
        parser.error(f"{', '.join(unknown)} is no operation here; there are {', '.join(OPERATIONS)}")
    cases: list[Case] = []
    for name, (_, shapes, types) in OPERATIONS.items():
        if options.operations and name not in options.operations:
            continue
        packings = (False, True) if name in PACKED else (False,)
        cases += [(options.device, name, *rest) for rest in itertools.product(shapes, types, packings)]
    bad: list[tuple[Any, ...]] = []
    rows: dict[tuple[str, torch.dtype], tuple[float, int]] = {}
    for case, (error, same) in zip(cases, common.spread(compare, cases, options.device), strict=True):
        _, name, sizes, dtype, packed = case
        worst, number = rows.get((name, dtype), (0.0, 0))
        rows[name, dtype] = (max(worst, error) if error == error else error, number + 1)
        if not error <= TOLERANCE[dtype] or not same:
            bad.append((name, sizes, str(dtype)[6:], packed, error, same))
    common.table(
        f"against naive in float64, {common.machine(options.device)}",
        ["operation", "type", "cases", "largest relative error", "allowed"],
        [(name, str(dtype)[6:], number, f"{error:.1e}", f"{TOLERANCE[dtype]:.0e}")
         for (name, dtype), (error, number) in rows.items()],
    )  # fmt: skip
    if bad:
        common.table("WRONG", ["operation", "sizes", "type", "packed", "error", "repeatable"], bad)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
