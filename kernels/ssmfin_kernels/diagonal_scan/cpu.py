"""Owns the diagonal scan on the CPU: plain torch."""

from __future__ import annotations

from ssmfin_kernels.diagonal_scan import chunked

scan = chunked.register("diagonal_scan_cpu", chunked.Products())
