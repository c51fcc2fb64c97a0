"""Owns the choice of implementation for convolutions as long as the sequence, and for the kernels they apply.

`naive.py` states each operation in plain torch and is the oracle of every faster implementation, which stands beside
it in a module named for where it runs and is chosen here, by the device of the arguments.
"""

from ssmfin_kernels.long_convolution.naive import fft_convolution, vandermonde_kernel

__all__ = ["fft_convolution", "vandermonde_kernel"]
