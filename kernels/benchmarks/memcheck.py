"""Runs every operation on the device, forward and backward, under compute-sanitizer's memcheck, on small odd shapes.

    PYTHONPATH=kernels python kernels/benchmarks/memcheck.py [operation ...]

Each case of `correctness.compare` is a process, sixteen at a time: first without the sanitizer, which compiles into
Triton's cache (`--compiled`: it has been), then under it. Every tensor is an allocation of its own (no caching
allocator), so that one element beyond its end is an error; the numbers are compared with naive float64 all the same.
Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import common
import correctness
import torch

BRAIN, SINGLE, DOUBLE, COMPLEX = torch.bfloat16, torch.float32, torch.float64, torch.complex64
CASES: list[tuple[str, tuple[int, ...], torch.dtype, bool]] = [
    ("chunk_scan", (1, 70, 2, 40, 17, 2), SINGLE, True),
    ("chunk_scan", (1, 130, 2, 70, 17, 2), BRAIN, False),
    ("selective_scan", (2, 65, 33, 7, 3, 1), SINGLE, True),
    ("selective_scan", (1, 101, 40, 16, 1, 1), BRAIN, False),
    ("selective_scan_aligned", (2, 101, 72, 16, 1, 1), SINGLE, True),
    ("selective_scan_aligned", (1, 130, 136, 40, 1, 0), BRAIN, False),
    ("linear_scan", (2, 65, 33, 1), SINGLE, True),
    ("linear_scan", (3, 129, 128, 0), BRAIN, False),
    ("linear_scan", (2, 257, 7, 0), COMPLEX, True),
    ("causal_convolution", (2, 257, 33, 4), SINGLE, True),
    ("causal_convolution", (3, 100, 128, 4), BRAIN, False),
    ("vandermonde_kernel", (4, 5, 257), COMPLEX, False),
    ("diagonal_scan", (2, 130, 5, 7), COMPLEX, True),
    ("diagonal_scan", (3, 128, 33, 32), COMPLEX, False),
    ("kalman", (67, 41, 1), SINGLE, False),
    ("kalman", (67, 44, 2), SINGLE, False),
    ("kalman", (3, 41, 2), DOUBLE, False),
    ("hidden_markov", (3, 37, 3), DOUBLE, False),
]
LIMIT = 240  # seconds for a process


def run(case: int, sanitize: bool) -> tuple[int, str, float]:
    """Exit status, last lines of output and seconds of one case in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--case", str(case)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if sanitize:
        sanitizer = ["compute-sanitizer", "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "1"]
        command = [*sanitizer, *command]
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
        code, text = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, text = 124, f"not done after {LIMIT} s"
    return code, text, time.perf_counter() - begin


def check(case: int, compiled: bool) -> tuple[Any, ...]:
    """A row of the table; what went wrong is printed."""
    name, sizes, dtype, packed = CASES[case]
    status, text, alone = (0, "", None) if compiled else run(case, False)
    after, checked = 0, None
    if status == 0:
        after, text, checked = run(case, True)
    summary = [line.split("ERROR SUMMARY:")[1].strip() for line in text.splitlines() if "ERROR SUMMARY:" in line]
    said = summary[-1] if summary else "not checked"
    right = status == 0 and after == 0 and said.startswith("0 errors")
    if not right:
        print(f"{name} {sizes}: status {status} alone, {after} checked\n{text[-3000:]}", file=sys.stderr, flush=True)
    print(name, sizes, str(dtype)[6:], said, file=sys.stderr, flush=True)
    return name, sizes, str(dtype)[6:], packed, alone, checked, said, "right" if right else "WRONG"


def one(case: int) -> int:
    name, sizes, dtype, packed = CASES[case]
    error, same = correctness.compare(("cuda", name, sizes, dtype, packed))
    return 0 if error <= correctness.TOLERANCE[dtype] and same else 1


def main() -> int:
    parser = common.arguments(__doc__)
    names = list(dict.fromkeys(name for name, *_ in CASES))
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(names)}; all unless told")
    parser.add_argument("--compiled", action="store_true", help="leave out the first run of each case")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        return one(options.case)
    unknown = sorted(set(options.operations) - set(names))
    if unknown:
        parser.error(f"{', '.join(unknown)} is no operation here; there are {', '.join(names)}")
    if options.device == "cpu":
        print("nothing to check on a CPU")
        return 0
    if not torch.cuda.is_available() or shutil.which("compute-sanitizer") is None:
        parser.error("needs a CUDA device and compute-sanitizer on the PATH")
    chosen = [i for i, case in enumerate(CASES) if not options.operations or case[0] in options.operations]
    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(lambda i: check(i, options.compiled), chosen))
    common.table(
        "compute-sanitizer memcheck, " + common.machine("cuda"),
        ["operation", "sizes", "type", "packed", "s alone", "s checked", "errors", ""],
        rows,
    )
    return 0 if all(row[-1] == "right" for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
