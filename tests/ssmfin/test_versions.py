"""Versions are told without importing a package."""

from __future__ import annotations

import sys

from ssmfin.versions import package_versions


def test_a_package_that_is_not_installed_is_said_to_be_absent() -> None:
    assert package_versions(("numpy", "no-such-package-here"))["no-such-package-here"] == "absent"


def test_versions_are_read_without_importing() -> None:
    before = set(sys.modules)
    assert package_versions()["lightgbm"] != "absent"
    assert "lightgbm" not in set(sys.modules) - before
