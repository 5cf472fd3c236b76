"""A logarithmic axis: plain numbers at it, none upon another, and a place for what is 0."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from rmpipe.axis import MOST, logarithmic, ticks


@pytest.fixture
def axes() -> Any:
    return Figure().subplots()


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0.01, 1.0, [0.01, 0.1, 1.0]), (0.02, 2.0, [0.03, 0.1, 0.3, 1.0]), (0.2, 0.8, [0.2, 0.5]),
        (0.51, 0.52, [0.51, 0.52]), (3.0, 3.0, [3.0]),
    ],
)  # fmt: skip
def test_numbers_at_an_axis_are_round_where_there_is_room(least, most, expected):
    found = ticks(least, most)
    assert found == expected or (len(found) > 2 and least <= found[0] <= found[-1] <= most)


@pytest.mark.parametrize("decades", [1, 4, 9, 14])
def test_over_many_decades_there_are_no_more_numbers_than_can_be_read(decades):
    assert 2 < len(ticks(1e-6, 10.0 ** (decades - 6))) <= MOST


def test_what_is_0_has_a_place_at_the_edge_and_a_number_there(axes):
    edge = logarithmic(axes, "x", [0.0, 0.01, 1.0])
    low, high = axes.get_xlim()
    assert low < edge < 0.01 < 1.0 < high
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.01", "0.1", "1"]


def test_without_a_0_the_edge_has_no_number(axes):
    edge = logarithmic(axes, "y", [0.01, 1.0])
    assert edge < axes.get_ylim()[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.01", "0.1", "1"]


def test_numbers_that_are_asked_for_stand_where_they_do_not_touch(axes):
    logarithmic(axes, "x", [0, 3, 4, 60, 300], [0, 3, 4, 60, 300])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "3", "60", "300"]


def test_an_axis_of_nothing_but_0_is_an_axis_still(axes):
    edge = logarithmic(axes, "x", [0.0, 0.0])
    assert axes.get_xlim()[0] < edge < axes.get_xlim()[1]
