"""Axes of inline images, whatever the data."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np
import pytest
from PIL import Image as Pillow

from ssmfin.reporting.inline_images import (
    MAX_SVG_VERTICES,
    PANEL,
    WIDE,
    date_axis,
    drawing,
    inline_image,
    panel_size,
    width_of,
)


@pytest.mark.parametrize("hours", [1, 30, 65, 24 * 20, 24 * 200, 24 * 1000, 24 * 3000, 24 * 12000])
def test_every_span_of_dates_has_ticks_without_complaint(hours: int) -> None:
    from matplotlib.figure import Figure

    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = Figure().add_subplot()
        axes.plot(np.datetime64("2019-01-03T07", "h") + np.array([0, hours]), [0, 1])
        date_axis(axes)
        assert len(axes.xaxis.get_major_locator()()) > 0


def test_a_wide_image_has_a_narrow_form_and_its_own_letters() -> None:
    widths = []
    with drawing():
        image = inline_image(lambda axes: widths.append(width_of(axes)), panel_size(1), "one", vertices=0)
        assert image.narrow is not None
        assert image.narrow.narrow is None
        assert (image.width, image.narrow.width) == (WIDE, PANEL[0])
        assert sorted(widths) == [PANEL[0], WIDE]  # drawn anew, not scaled
        assert inline_image(lambda axes: None, panel_size(2), "two", vertices=0).narrow is None


def test_a_png_keeps_its_colours_on_pure_white() -> None:
    with drawing():
        image = inline_image(
            lambda axes: axes.axhspan(0.4, 0.6, color="#0059a3"), PANEL, "blue", vertices=MAX_SVG_VERTICES + 1
        )
    with Pillow.open(io.BytesIO(base64.b64decode(image.uri.partition(",")[2]))) as found:
        shown = found.convert("RGB")
        assert shown.getpixel((0, 0)) == (255, 255, 255)
        middle = shown.getpixel((shown.width // 2, shown.height // 2))
        assert np.abs(np.array(middle) - (0x00, 0x59, 0xA3)).max() <= 3
