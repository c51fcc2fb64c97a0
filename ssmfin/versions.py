"""Owns the versions of the packages that can change a number: read from their metadata, nothing is imported."""

from __future__ import annotations

import functools
import importlib.metadata

NUMERIC_PACKAGES = ("numpy", "polars", "torch", "lightgbm", "statsmodels", "scikit-learn", "arch", "scipy")
ABSENT = "absent"


def package_versions(names: tuple[str, ...] = NUMERIC_PACKAGES) -> dict[str, str]:
    """Installed versions, in the order of `names`; ABSENT where a package is missing."""
    return {name: _version(name) for name in names}


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
