"""The names of the package: those it offers, and no others, as a person sees them on TAB."""

from __future__ import annotations

import ssmfin


def test_dir_shows_the_public_names_alone() -> None:
    assert ssmfin.HAR is not None  # a name that was used already is in the module, too
    assert dir(ssmfin) == sorted(ssmfin.__all__)
    assert not {"Any", "TYPE_CHECKING", "annotations", "import_module"} & set(dir(ssmfin))
