"""Owns the public scan operations of the ground floor, and the letters in which every shape is written.

Shapes, everywhere below and in the docstrings of the models that call this package:

    B  batch: sequences that do not see each other (ids, windows)
    T  time: steps of a sequence, the oldest first
    D  channel: width of a sequence
    N  state: size of the recurrent state of one channel (complex states: one of each conjugate pair)
    H  head, P width of a head, G group: for operations whose parameters are shared between channels
    L  taps of a convolution kernel; kernel[..., l] weighs the input of l steps ago
    K  classes or series, where a filter runs over many of them

Everything is channel-last, (B, T, D). This package knows torch and nothing else: no finance, no polars, no files.
"""

from ssmfin_kernels.long_convolution import fft_convolution, vandermonde_kernel

__all__ = ["fft_convolution", "vandermonde_kernel"]
