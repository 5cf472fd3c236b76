"""A gauge: which prompts are low, numbers by hand, and none where nothing is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import gauge
from rmpipe.gauge import FEW, Gauging, low, moments, numbers, related
from rmpipe.variance import flat, whiten


def table(std: list[float], **columns: Any) -> pd.DataFrame:
    """A row a prompt; what is not told was not taken."""
    told = {"std": std, "mean": 0.5, "flat": [value == 0 for value in std]} | columns
    return pd.DataFrame(dict.fromkeys(("squared", "bound", "tighter"), math.nan) | told)


# -- moments ----------------------------------------------------------------------------------------------------------


def test_mean_and_std_are_of_each_prompt_and_white_ones_of_all_together():
    rewards = [[0.0, 2.0], [3.0, 3.0], [1.0, 5.0]]
    told = moments(rewards, threshold=0.05)
    assert told["mean"] == pytest.approx([1, 3, 3])
    assert told["std"] == pytest.approx([2**0.5, 0, 8**0.5])  # n - 1
    assert told["white_std"] == pytest.approx(told["std"] / np.std(rewards, ddof=1))
    assert told["flat"].tolist() == [False, True, False]


def test_equal_rewards_have_a_std_of_0_whatever_rounding_says():
    told = moments([[0.1] * 3, [0.7] * 3, [0.0, 0.0, 1.0]], threshold=0.0)
    assert told["std"][:2].tolist() == told["white_std"][:2].tolist() == [0.0, 0.0]
    assert told["flat"].tolist() == [True, True, False]


def test_what_teaches_nothing_is_what_measuring_calls_flat():
    rewards = np.random.default_rng(0).normal(size=(100, 4)) * np.linspace(0, 1, 100)[:, None]
    assert moments(rewards, 0.3)["flat"].tolist() == flat(whiten(rewards), 0.3).tolist()


def test_rewards_that_are_all_one_are_flat_everywhere():
    told = moments(np.ones((3, 4)), threshold=0.0)
    assert told["flat"].all()
    assert not told["std"].any()
    assert not told["white_std"].any()


# -- low and high -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("std", "cut", "expected"),
    [
        ([4, 1, 3, 2], 0.25, [False, True, False, False]),
        ([4, 1, 3, 2, 5], 0.25, [False, True, False, True, False]),  # the quantile is one of them: 0.25 of 4 steps
        ([0, 0, 0, 1], 0.25, [True, True, True, False]),  # ties are low together
        ([0, 1, 1, 1], 0.25, [True, False, False, False]),
        ([2, 2, 2], 0.25, [True, True, True]),
        ([7], 0.25, [True]),
        ([1, 2, 3, 4], 0.5, [True, True, False, False]),
    ],
)
def test_low_are_those_up_to_the_quantile_with_their_ties(std, cut, expected):
    assert low(std, cut).tolist() == expected


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_are_means_over_prompts_and_of_either_part():
    told = numbers(table([0.0, 0.2, 0.4, 0.6], mean=[0.1, 0.2, 0.3, 0.8]), cut=0.5)
    expected = {"flat": 0.25, "zero": 0.25, "mean": 0.35, "mean_low": 0.15, "mean_high": 0.55, "std": 0.3,
                "std_low": 0.1, "std_high": 0.5, "cut": 0.2}  # fmt: skip
    assert {name: told[name].value for name in expected} == pytest.approx(expected)
    for name in set(expected) - {"cut"}:
        assert told[name].low < told[name].value < told[name].high, name
    assert math.isnan(told["cut"].low)


def test_flat_is_of_the_threshold_and_zero_of_equal_rewards_alone():
    told = numbers(table([0.0, 0.01, 0.4], flat=[True, True, False]))
    assert (told["flat"].value, told["zero"].value) == pytest.approx((2 / 3, 1 / 3))


def test_a_share_of_none_has_an_interval_nonetheless():
    told = numbers(table([0.1] * 9, flat=[False] * 9))
    assert told["zero"].low == told["zero"].value == 0
    assert told["zero"].high == pytest.approx(1 - 0.025 ** (1 / 9))


def test_norms_are_roots_of_mean_squares_which_noise_brings_to_0_and_not_below():
    told = numbers(table([0.0, 0.1, 0.4, 0.6], squared=[0.0, 8.0, 16.0, 20.0]), cut=0.5)
    assert told["norm_low"].value == pytest.approx(2.0)  # sqrt((0 + 8) / 2)
    assert told["norm_high"].value == pytest.approx(18**0.5)
    assert told["ratio"].value == pytest.approx(2 / 18**0.5)
    assert told["norm_gap"].value == pytest.approx(18**0.5 - 2)
    told = numbers(table([0.0, 0.1, 0.4, 0.6], squared=[0.0, -8.0, 16.0, 20.0]), cut=0.5)
    assert (told["norm_low"].value, told["ratio"].value) == (0.0, 0.0)


def test_how_far_norms_are_apart_has_an_interval_over_prompts_each_side_drawn_by_itself():
    std = [*[0.1] * FEW, *np.linspace(0.8, 0.9, FEW)]
    told = numbers(table(std, squared=[4.0] * FEW + [0.0, 16.0] * (FEW // 2)), cut=0.4)
    gap, ratio = told["norm_gap"], told["ratio"]  # of ten highs two to eight are 16 in 98 of 100 draws, else 0
    assert (gap.value, gap.low, gap.high) == pytest.approx((8**0.5 - 2, 3.2**0.5 - 2, 12.8**0.5 - 2))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2 / 8**0.5, 2 / 12.8**0.5, 2 / 3.2**0.5))


def test_a_small_side_is_drawn_as_large_as_it_is_however_many_there_are_of_the_other():
    squared = [0.0] * (FEW // 2) + [16.0] * (FEW // 2) + [25.0] * 990
    told = numbers(table(list(np.linspace(0.1, 1.0, 990 + FEW)), squared=squared), cut=(FEW - 1) / (989 + FEW))
    assert (told["norm_gap"].value, told["ratio"].value) == pytest.approx((5 - 8**0.5, 8**0.5 / 5))
    ends = (3.2**0.5, 12.8**0.5)  # two to eight of ten, as often as 98 times of 100
    assert (told["norm_gap"].low, told["norm_gap"].high) == pytest.approx((5 - ends[1], 5 - ends[0]))
    assert (told["ratio"].low, told["ratio"].high) == pytest.approx((ends[0] / 5, ends[1] / 5))


@pytest.mark.parametrize("count", [1, FEW - 1, FEW])
def test_of_few_prompts_on_either_side_norms_and_their_difference_have_no_interval(count):
    squared = [4.0, 16.0] * 10 + [25.0, 81.0] * 10
    low, high = squared[:count], squared[20:]
    for few, others in ((low, high), (high, low)):
        std = [*[0.1] * len(few), *np.linspace(0.8, 0.9, len(others))]
        told = numbers(table(std, squared=[*few, *others]), cut=(len(few) - 1) / (len(std) - 1))
        least, most = np.mean(few) ** 0.5, np.mean(others) ** 0.5
        assert (told["norm_gap"].value, told["ratio"].value) == pytest.approx((most - least, least / most))
        known = {name: told[name].json()["low"] is not None for name in ("norm_low", "norm_high", "norm_gap", "ratio")}
        both = {"norm_low": len(few) >= FEW, "norm_high": len(others) >= FEW}
        assert known == both | dict.fromkeys(("norm_gap", "ratio"), all(both.values()))


def test_where_norms_of_high_std_are_0_or_noise_there_is_no_ratio_and_a_difference_nonetheless():
    for high in ([0.0, 0.0], [-3.0, 1.0]):
        told = numbers(table([0.1, 0.1, 0.8, 0.9], squared=[4.0, 4.0, *high]), cut=0.5)
        assert told["ratio"].json() is None
        assert told["norm_gap"].value == pytest.approx(-2.0)
    told = numbers(table([0.1] * FEW + [0.8] * FEW, squared=[-4.0] * FEW + [9.0] * FEW), cut=0.25)
    assert (told["ratio"].value, told["ratio"].low, told["ratio"].high) == (0.0, 0.0, 0.0)
    assert told["norm_gap"].value == pytest.approx(3.0)


def test_correlations_are_of_the_std_with_the_squared_norm():
    std = np.linspace(0.1, 1, FEW)
    told = numbers(table(list(std), squared=std**4))
    assert told["spearman"].value == pytest.approx(1.0)
    assert told["pearson"].value == pytest.approx(np.corrcoef(std**2, std**4)[0, 1])
    assert told["pearson"].low < told["pearson"].value < told["pearson"].high
    assert told["exponent"].value == pytest.approx(2.0, abs=0.03)  # squared = std^(2 x 2)


def test_shares_of_a_bound_are_root_means_over_the_prompts_where_it_was_taken():
    bound = [math.nan, *[0.01, 0.09, 0.04] * 4, math.inf]  # squares over squares
    told = numbers(table(np.linspace(0.0, 0.4, 14).tolist(), squared=[1.0] * 14, bound=bound))
    assert told["bound"].value == pytest.approx((0.14 / 3) ** 0.5)
    assert told["bound"].low < told["bound"].value < told["bound"].high
    assert math.isnan(told["tighter"].value)


def test_a_share_of_a_bound_that_is_all_noise_is_0_and_not_below():
    told = numbers(table([0.0, 0.1, 0.2, 0.3], squared=[1.0] * 4, tighter=[math.nan, -0.09, 0.04, 0.01]))
    assert told["tighter"].value == 0.0
    told = numbers(table([0.0, 0.1, 0.2, 0.3], squared=[1.0] * 4, tighter=[math.nan, -0.04, 0.09, 0.04]))
    assert told["tighter"].value == pytest.approx(0.03**0.5)  # what noise took below 0 counts


def test_where_no_gradient_was_taken_none_is_told_and_the_rest_is():
    told = numbers(table([0.0, 0.2, 0.4, 0.6]))
    missing = {name for name, number in told.items() if number.json() is None}
    assert missing == {
        "norm_low",
        "norm_high",
        "norm_gap",
        "ratio",
        "spearman",
        "pearson",
        "exponent",
        "bound",
        "tighter",
    }


def test_gradients_of_some_prompts_are_told_of_those_and_low_is_among_all():
    some = table([0.0, 0.1, 0.2, 0.3], squared=[math.nan, math.nan, 4.0, 9.0])
    told = numbers(some, cut=0.5)
    assert math.isnan(told["norm_low"].value)
    assert told["norm_high"].value == pytest.approx(6.5**0.5)
    assert told["ratio"].json() is told["norm_gap"].json() is None


def test_prompts_that_are_all_alike_are_low_and_there_is_no_other_part():
    told = numbers(table([0.3] * 12, squared=[1.0] * 12))
    assert told["norm_low"].value == 1.0
    for name in ("mean_high", "std_high", "norm_high", "norm_gap", "ratio", "spearman", "pearson", "exponent"):
        assert told[name].json() is None, name


def test_where_no_reward_varies_all_gradients_are_0_and_nothing_is_related():
    told = numbers(table([0.0] * 12, squared=[0.0] * 12))
    assert (told["flat"].value, told["zero"].value, told["norm_low"].value) == (1.0, 1.0, 0.0)
    assert told["exponent"].json() is told["spearman"].json() is told["ratio"].json() is None


# -- correlations over prompts ----------------------------------------------------------------------------------------


def test_few_prompts_and_constant_sides_have_no_correlation():
    x = np.arange(FEW, dtype=float)
    assert math.isnan(related(x[1:], x[1:]).value)
    assert math.isnan(related(x, np.ones(FEW)).value)
    assert related(x, x).value == 1.0
    assert math.isnan(related(x, x).low)  # every resample is perfect too, which says nothing


def test_a_correlation_has_an_interval_over_prompts_unless_it_is_one_of_several():
    random = np.random.default_rng(1)
    x = random.normal(size=60)
    y = x + random.normal(size=60)
    alone, among = related(x, y, "pearson"), related(x, y, "pearson", alone=False)
    assert alone.value == among.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert 0 < alone.low < alone.value < alone.high
    assert math.isnan(among.low)


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_answers_are_all_that_can_be_answered_each_once():
    assert Gauging(answers=("a", "b")).answers == ("a", "b")
    for answers in (("a",), ("a", "a"), ("a", "b", "a")):
        with pytest.raises(ValueError, match="two at least, each once"):
            Gauging(answers=answers)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Gauging(responses=1)


def test_how_fast_a_gauge_is_taken_is_no_part_of_what_it_is():
    from rmpipe.config import digest

    assert digest(Gauging(batch_size=1)) == digest(Gauging())
    assert len({digest(one) for one in (Gauging(), Gauging(responses=8), Gauging(prompts=8))}) == 3
    assert set(gauge.LIMITS) == {"bound", "tighter"}
