"""Intervals: what they cover, what they refuse to cover, and that they are the same every time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmpipe.interval import Estimate, bootstrap, bootstrap_correlation, clustered, paired_t, share, t_interval


def test_json_holds_null_where_something_is_not_known_and_never_nan():
    assert Estimate(1.0, 0.5, 1.5).json() == {"value": 1.0, "low": 0.5, "high": 1.5}
    assert Estimate(1.0).json() == {"value": 1.0, "low": None, "high": None}
    assert Estimate(math.nan, 0, 1).json() is None


def test_an_estimate_reads_as_value_and_brackets():
    assert str(Estimate(0.249, 0.2051, 0.2949)) == "0.25 [0.21, 0.29]"
    assert str(Estimate(0.249)) == "0.25"
    assert str(Estimate(-0.001, -0.5, 0)) == "0.00 [-0.50, 0.00]"


def test_student_s_interval_of_three_runs_is_wide():
    # mean 2, sample deviation 1, t(0.975, 2) = 4.302653
    found = t_interval([1, 2, 3])
    assert found.value == 2
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_a_single_run_has_no_interval():
    assert t_interval([0.3]).json() == {"value": 0.3, "low": None, "high": None}


def test_pairing_removes_what_a_seed_does_to_both():
    a, b = np.array([0.10, 5.11, 9.12]), np.array([0.0, 5.0, 9.0])
    assert paired_t(a, b).low > 0 > t_interval(a).low
    with pytest.raises(ValueError, match="same runs"):
        paired_t([1, 2], [1, 2, 3])


def test_the_bootstrap_of_a_mean_has_about_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(values, draws=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_the_bootstrap_is_the_same_for_the_same_seed_only():
    values = [1.0, 2.0, 5.0, 9.0]
    assert bootstrap(values, seed=1, draws=200) == bootstrap(values, seed=1, draws=200)
    assert bootstrap(values, seed=1, draws=200) != bootstrap(values, seed=2, draws=200)


def test_the_bootstrap_resamples_rows_whole():
    rows = np.stack([np.arange(30.0), np.arange(30.0) + 1], axis=1)
    found = bootstrap(rows, statistic=lambda pair: (pair[:, 1] - pair[:, 0]).max(), draws=50)
    assert found == Estimate(1, 1, 1)


def test_an_unknown_unit_makes_the_whole_unknown_and_one_unit_has_no_interval():
    assert bootstrap([1.0, math.nan]).json() is None
    assert bootstrap([1.0]).json() == {"value": 1.0, "low": None, "high": None}
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([])


def test_pearson_and_spearman_differ_where_a_curve_bends():
    # about the means: x -1.5 -.5 .5 1.5, y -27 -18 72 -27, ranks of y -1 .5 1.5 -1
    x, y = [1, 2, 3, 4], [1, 10, 100, 1]
    assert bootstrap_correlation(x, y, "pearson").value == pytest.approx(45 / math.sqrt(5 * 6966))
    assert bootstrap_correlation(x, y, "spearman").value == pytest.approx(0.5 / math.sqrt(5 * 4.5))


def test_resamples_without_a_correlation_are_left_out_and_counted():
    found = bootstrap_correlation([1, 2, 3], [1, 1, 2], "pearson", draws=20_000)
    # y is constant when only the first two units are drawn (8 of 27 resamples) or only the third (1 of 27)
    assert found.undefined == pytest.approx(9 / 27, abs=0.01)
    assert found.json()["n"] == 3


def test_two_units_a_constant_and_a_perfect_line_are_not_dressed_up():
    assert bootstrap_correlation([1, 2], [1, 2]).json() is None
    assert bootstrap_correlation([1, 2, 3], [5, 5, 5]).json() is None
    assert bootstrap_correlation([1, 2, 3], [1, 2, 9]).json() == {
        "value": 1.0, "low": None, "high": None, "n": 3, "undefined": 0.0,
    }  # fmt: skip


def test_an_unknown_kind_of_correlation_is_refused():
    with pytest.raises(ValueError, match="expected 'pearson' or 'spearman', got 'kendall'"):
        bootstrap_correlation([1, 2, 3], [1, 3, 2], "kendall")


def test_pairs_of_one_prompt_are_drawn_together():
    # ten prompts, each asked five times with one outcome: ten units, not fifty
    once = np.array([0.0, 1, 1, 0, 1, 0, 0, 1, 1, 1])
    names = [f"prompt {index}" for index in range(10)]
    five = clustered(np.repeat(once, 5), np.repeat(names, 5))
    assert five == bootstrap(once)
    assert clustered(once, names) == bootstrap(once)
    assert five.high - five.low > 1.5 * (bootstrap(np.repeat(once, 5)).high - bootstrap(np.repeat(once, 5)).low)


def test_a_share_of_all_or_none_has_the_exact_interval_of_its_units():
    # of 18 successes in 18 trials: 0.025 ** (1 / 18) = 0.8147
    assert share([1.0] * 18) == Estimate(1.0, pytest.approx(0.8147, abs=1e-4), 1.0)
    assert share([0.0] * 18) == Estimate(0.0, 0.0, pytest.approx(0.1853, abs=1e-4))
    from scipy.stats import binomtest

    exact = binomtest(7, 7).proportion_ci(0.95, method="exact")
    assert share([1] * 7).low == pytest.approx(exact.low)


def test_the_units_of_a_share_are_its_prompts():
    assert share([1.0] * 18, [n // 3 for n in range(18)]) == share([1.0] * 6)


def test_a_share_between_all_and_none_is_bootstrapped_as_ever():
    values, asked = [1.0, 0.0, 1.0, 1.0, 0.5, 1.0], ["a", "a", "b", "c", "c", "d"]
    assert share(values, asked, draws=300) == clustered(values, asked, draws=300)
    assert share(values, seed=3) == bootstrap(values, seed=3)
    assert share([0.5, 0.5]) == bootstrap([0.5, 0.5])  # all alike, but a share of neither
    with pytest.raises(ValueError, match="at least one"):
        share([])
    assert share([1.0, math.nan]).json() is None
