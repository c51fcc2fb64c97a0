"""What a transformer learned passes through JSON without losing a bit, or is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ssmfin.errors import InputError
from ssmfin.features.state import from_plain, to_plain


@given(value=arrays(np.float64, array_shapes(min_dims=0, max_dims=3, min_side=0)) | arrays(np.int64, array_shapes()))
def test_arrays_come_back_to_the_last_bit(value):
    again = from_plain(json.loads(json.dumps(to_plain(value))))
    assert again.dtype == value.dtype
    assert again.shape == value.shape
    np.testing.assert_array_equal(again, value)
    if value.dtype == np.float64:  # a negative zero too
        np.testing.assert_array_equal(np.signbit(again[~np.isnan(value)]), np.signbit(value[~np.isnan(value)]))


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_plain_values_come_back_as_they_were(value):
    assert from_plain(json.loads(json.dumps(to_plain(value)))) == value


def test_dates_texts_and_scalars_are_kept_and_anything_else_is_refused():
    dates = np.array(["2020-01-02", "NaT"], dtype="M8[D]")
    np.testing.assert_array_equal(from_plain(to_plain({"a": dates}))["a"], dates)
    assert from_plain(to_plain(np.array(["x", "yz"]))).tolist() == ["x", "yz"]
    assert from_plain(to_plain(np.float64(0.1))) == 0.1
    for wrong in (object(), {1: 2}, {"numpy": "f8"}, np.array([object()])):
        with pytest.raises(InputError, match=r"state\.here.* is a .*, which JSON cannot hold"):
            to_plain({"here": wrong})
