"""Forecasts in reward units: what one or two runs say of the others."""

from __future__ import annotations

import numpy as np
import pytest

from rmpipe.calibration import Calibrator, course, slope, slopes
from rmpipe.interval import of_draws, t_interval


def test_a_run_says_how_much_a_unit_of_forecast_is_worth():
    assert slope([0.6], [1.5]) == pytest.approx(0.4)


def test_of_two_runs_the_one_that_was_foretold_more_says_more():
    assert slope([1.0, 0.0], [2.0, 1.0]) == pytest.approx(2 / 5)
    assert slope([np.array([1.0, 2.0]), np.zeros(2)], [np.full(2, 2.0), np.ones(2)]) == pytest.approx([0.4, 0.8])


def test_of_one_seed_a_slope_varies_as_the_mean_of_its_prompts_does():
    gain = np.random.default_rng(0).normal(0.5, 1.0, size=400)
    draws = slopes([Calibrator([gain], [0, 1], [[0, 1]])], [2.0], [np.full(4000, 2.0)])
    assert draws.mean() == pytest.approx(gain.mean() / 2, abs=0.01)
    assert draws.std() == pytest.approx(0.5 / np.sqrt(400), rel=0.1)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("forecasts", [[0.5], [0.5, 0.5], [0.5, -0.5], [0.8, -0.2]])
def test_of_several_seeds_a_slope_has_students_interval_over_them(seeds: int, forecasts: list[float]):
    """Whatever calibrators there are: each seed is one slope."""
    random = np.random.default_rng(seeds)
    told = [Calibrator(list(each + random.normal(0, 0.2, size=(seeds, 1)) + np.zeros(50)), [0, 1], [[0, 1]] * seeds)
            for each in forecasts]  # fmt: skip
    each = [slope([one.gains[seed].mean() for one in told], forecasts) for seed in range(seeds)]
    expected = t_interval(each)
    drawn = of_draws(0.0, slopes(told, forecasts, [np.full(4000, value) for value in forecasts]))
    assert (drawn.low + drawn.high) / 2 == pytest.approx(expected.value)
    assert drawn.high - drawn.low == pytest.approx(expected.high - expected.low, rel=0.02)


def test_a_slope_holds_how_far_the_forecasts_are_known():
    told = [Calibrator([np.full(50, 0.5)] * 3, [0, 1], [[0, 1]] * 3)]
    drawn = slopes(told, [1.0], [np.random.default_rng(0).normal(1, 0.1, size=4000)])
    assert drawn.std() == pytest.approx(0.05, rel=0.1)


def test_a_course_is_the_share_of_the_last_gain_over_all_runs():
    runs = {
        "one": Calibrator([[1.0]], [0, 5, 10], [[0.0, 1.0, 2.0]]),
        "other": Calibrator([[1.0]], [0, 5, 10], [[1.0, 3.0, 3.0]]),
    }
    assert course(runs) == ([0, 5, 10], [0, 0.75, 1])


def test_runs_that_end_lower_have_no_course():
    assert course({"one": Calibrator([[1.0]], [0, 5], [[0.0, -1.0]])}) is None
