"""Owns the public scan operations of the ground floor, and the letters in which every shape is written.

Shapes, everywhere below and in the docstrings of the models that call this package:

    B  batch: sequences that do not see each other (ids, windows)
    T  time: steps of a sequence, the oldest first
    D  channel: width of a sequence
    N  state: size of the recurrent state of one channel (complex states: one of each conjugate pair)
    H  head, P width of a head, G group: for operations whose parameters are shared between channels
    L  taps of a long convolution kernel; kernel[..., l] weighs the input of l steps ago
    K  classes or series, where a filter runs over many of them; taps of a causal convolution

Everything is channel-last, (B, T, D). This package knows torch and nothing else: no finance, no polars, no files.
`backends()` says which implementation each operation would use here, and why.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssmfin_kernels.associative_scan import associative_scan
    from ssmfin_kernels.causal_convolution import causal_convolution
    from ssmfin_kernels.chunk_scan import chunk_scan
    from ssmfin_kernels.diagonal_scan import diagonal_scan
    from ssmfin_kernels.dispatch import backends
    from ssmfin_kernels.hidden_markov_scan import (
        hidden_markov_filter,
        hidden_markov_log_likelihood,
        hidden_markov_smoother,
        hidden_markov_viterbi,
    )
    from ssmfin_kernels.kalman_scan import StateSpace, kalman_filter, kalman_log_likelihood, kalman_smoother
    from ssmfin_kernels.linear_scan import linear_scan
    from ssmfin_kernels.long_convolution import dplr_kernel, fft_convolution, vandermonde_kernel
    from ssmfin_kernels.selective_scan import selective_scan, selective_state_update

__all__ = [
    "StateSpace",
    "associative_scan",
    "backends",
    "causal_convolution",
    "chunk_scan",
    "diagonal_scan",
    "dplr_kernel",
    "fft_convolution",
    "hidden_markov_filter",
    "hidden_markov_log_likelihood",
    "hidden_markov_smoother",
    "hidden_markov_viterbi",
    "kalman_filter",
    "kalman_log_likelihood",
    "kalman_smoother",
    "linear_scan",
    "selective_scan",
    "selective_state_update",
    "vandermonde_kernel",
]

# an operation is imported when it is first asked for: registering all of them takes longer than most programs need
_HOME = {
    "associative_scan": "associative_scan",
    "backends": "dispatch",
    "causal_convolution": "causal_convolution",
    "chunk_scan": "chunk_scan",
    "diagonal_scan": "diagonal_scan",
    "dplr_kernel": "long_convolution",
    "fft_convolution": "long_convolution",
    "hidden_markov_filter": "hidden_markov_scan",
    "hidden_markov_log_likelihood": "hidden_markov_scan",
    "hidden_markov_smoother": "hidden_markov_scan",
    "hidden_markov_viterbi": "hidden_markov_scan",
    "StateSpace": "kalman_scan",
    "kalman_filter": "kalman_scan",
    "kalman_log_likelihood": "kalman_scan",
    "kalman_smoother": "kalman_scan",
    "linear_scan": "linear_scan",
    "selective_scan": "selective_scan",
    "selective_state_update": "selective_scan",
    "vandermonde_kernel": "long_convolution",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """The folder linear_scan and its function share a name: the package has to show the function, whoever comes first.

    Importing a submodule sets it on its parent, which would hide the function behind `ssmfin_kernels.linear_scan`.
    Modules are reached by `from ssmfin_kernels.linear_scan import naive`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
