"""Forecasts in reward units: what one or two runs say of the others."""

from __future__ import annotations

import numpy as np
import pytest

from rmpipe.calibration import Calibrator, course, slope


def test_a_run_says_how_much_a_unit_of_forecast_is_worth():
    assert slope([0.6], [1.5]) == pytest.approx(0.4)


def test_of_two_runs_the_one_that_was_foretold_more_says_more():
    assert slope([1.0, 0.0], [2.0, 1.0]) == pytest.approx(2 / 5)
    assert slope([np.array([1.0, 2.0]), np.zeros(2)], [np.full(2, 2.0), np.ones(2)]) == pytest.approx([0.4, 0.8])


def test_draws_of_a_gain_spread_as_its_mean_does():
    gains = np.random.default_rng(0).normal(0.5, 1.0, size=(2, 400))
    paid = Calibrator(list(gains), [0, 1], [[0, 1], [0, 1]])
    draws = paid.draws(4000)
    assert paid.value() == pytest.approx(gains.mean())
    assert draws.mean() == pytest.approx(gains.mean(), abs=0.01)
    assert draws.std() == pytest.approx(1 / np.sqrt(800), rel=0.1)


def test_a_course_is_the_share_of_the_last_gain_over_all_runs():
    runs = {
        "one": Calibrator([[1.0]], [0, 5, 10], [[0.0, 1.0, 2.0]]),
        "other": Calibrator([[1.0]], [0, 5, 10], [[1.0, 3.0, 3.0]]),
    }
    assert course(runs) == ([0, 5, 10], [0, 0.75, 1])


def test_runs_that_end_lower_have_no_course():
    assert course({"one": Calibrator([[1.0]], [0, 5], [[0.0, -1.0]])}) is None
