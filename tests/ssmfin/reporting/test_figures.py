"""What a plot of the report shows of its lines."""

from __future__ import annotations

import numpy as np

from ssmfin.reporting.figures import Line, visible_range
from ssmfin.reporting.style import model_styles


def test_only_models_out_of_proportion_leave_the_plot() -> None:
    styles = model_styles(["a", "b", "c", "d"], {}, "reference")
    x = np.arange(3.0)
    lines = [Line(styles[name], x, scale * x) for name, scale in (("a", -1.0), ("b", 0.5), ("c", 2.5), ("d", 40.0))]
    (low, high), outside = visible_range(lines, {"a", "b"})
    assert [line.style.name for line in outside] == ["d"]
    assert (low, high) == (-2.0, 5.0)
    assert visible_range(lines, {"a", "d"})[1] == []
