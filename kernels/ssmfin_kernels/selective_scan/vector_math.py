"""Owns 2^x, softplus and its derivative for numba loops, in forms that LLVM turns into vector instructions.

A call of the C library's exp cannot be vectorised, and the exponential is most of the work of a selective scan. In
float32 these are polynomials; in float64 they are the C library's. Relative errors in float32
(`tests/kernels/selective_scan/test_vector_math.py` holds them): 2^x 8e-8, with 0 below x = -126 (no denormal numbers:
they would be slow and are of no use here) and inf from 127.5; softplus and sigmoid 3e-7 for x > -1, 1e-6 at -20 and
4e-6 at -80, because x log2(e) is rounded before the exponential.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

# contract: a * b + c in one instruction. Never reassoc: it would allow x - floor(x) to be reordered.
_OPTIONS = {"fastmath": {"contract"}}
_LOG2_E = np.float32(math.log2(math.e))


@intrinsic  # type: ignore[untyped-decorator]
def _from_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


def exp2(x: float) -> float:
    """2^x for a scalar inside a numba loop."""
    raise RuntimeError("exp2 is for numba loops.")


def softplus(x: float) -> float:
    """log(1 + e^x) for a scalar inside a numba loop."""
    raise RuntimeError("softplus is for numba loops.")


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), the derivative of softplus, for a scalar inside a numba loop."""
    raise RuntimeError("sigmoid is for numba loops.")


@overload(exp2, jit_options=_OPTIONS)
def _exp2(x: Any) -> Any:
    if x == types.float64:

        def double(x: Any) -> Any:
            return 2.0**x

        return double

    def single(x: Any) -> Any:
        x = min(x, np.float32(128.0))
        bounded = max(x, np.float32(-127.0))
        whole = np.floor(bounded + np.float32(0.5))
        f = bounded - whole  # [-0.5, 0.5]
        # least squares at Chebyshev points with p(0) = 1: relative error 2.2e-9 before rounding
        p = np.float32(0.0001537070482)
        p = p * f + np.float32(0.001339984829)
        p = p * f + np.float32(0.009618373251)
        p = p * f + np.float32(0.05550329035)
        p = p * f + np.float32(0.2402264846)
        p = p * f + np.float32(0.6931472056)
        p = p * f + np.float32(1.0)
        # 2^whole as a number of its own: adding to the exponent of p would spoil a NaN
        scale = _from_bits((np.int32(whole) + np.int32(127)) << np.int32(23))
        return p * scale if x >= np.float32(-126.0) or x != x else np.float32(0.0)

    return single


@overload(softplus, jit_options=_OPTIONS)
def _softplus(x: Any) -> Any:
    if x == types.float64:

        def double(x: Any) -> Any:
            return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

        return double

    def single(x: Any) -> Any:
        e = exp2(-abs(x) * _LOG2_E)
        # log(1 + e) = 2 artanh(e / (2 + e)): no digit is lost as e -> 0, and e <= 1 keeps s <= 1/3
        s = e / (np.float32(2.0) + e)
        q = s * s
        p = np.float32(2.0 / 15.0)
        p = p * q + np.float32(2.0 / 13.0)
        p = p * q + np.float32(2.0 / 11.0)
        p = p * q + np.float32(2.0 / 9.0)
        p = p * q + np.float32(2.0 / 7.0)
        p = p * q + np.float32(2.0 / 5.0)
        p = p * q + np.float32(2.0 / 3.0)
        p = p * q + np.float32(2.0)
        return max(x, np.float32(0.0)) + s * p

    return single


@overload(sigmoid, jit_options=_OPTIONS)
def _sigmoid(x: Any) -> Any:
    if x == types.float64:

        def double(x: Any) -> Any:
            return 1.0 / (1.0 + math.exp(-x)) if x >= -700.0 else 0.0

        return double

    def single(x: Any) -> Any:
        return np.float32(1.0) / (np.float32(1.0) + exp2(-x * _LOG2_E))

    return single
