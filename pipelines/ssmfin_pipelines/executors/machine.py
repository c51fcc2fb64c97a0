"""Owns what the machine offers a run: usable cores, and the rule of one thread per worker."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may keep busy: affinity mask and container quota, at least one."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    return max(1, min(cores, int(quota))) if quota is not None else max(1, cores)


def strain(workers: int) -> float:
    """By how much a worker is slowed down by what else the machine does now: 1 on an idle one, about."""
    try:
        waiting = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return 1.0
    return max(1.0, (waiting + workers) / max(workers, os.cpu_count() or 1))


@contextlib.contextmanager
def one_thread_environment() -> Iterator[None]:
    """Processes started inside compute with one thread each; libraries read these variables only when they load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def one_thread_here() -> Iterator[None]:
    """This process computes with one thread: sums are then split as in a worker, so that the bits are the same."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch is not None else None
    with one_thread_environment(), threadpool_limits(limits=1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(torch_threads)


def _cgroup_quota(cgroup: Path) -> float | None:
    """Cores granted by the container's CPU quota (cgroup v2, then v1), None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii").strip()
        period = (cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return None if int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
