"""Accuracy under both tie rules, losses, calibration and controls, against the papers' own code and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmpipe import accuracy

# (chosen, rejected) under a reward model and under the ground truth, and what the published code says (2503.15477).
PAIRS = [
    [-0.132, -0.125], [0.344, -0.452], [-0.889, -0.353], [-1.337, 0.522], [-1.112, -0.717], [1.043, 1.043],
    [-0.511, -0.384], [-0.490, 0.531],
]  # fmt: skip
GOLD = [
    [0.437, 0.370], [1.582, -0.156], [0.151, -1.349], [-0.709, -0.709], [-0.039, 1.081], [0.909, 0.079],
    [-0.090, 0.171], [-0.157, 1.980],
]  # fmt: skip
CHOSEN = [0.361, -0.286, -0.394, 0.243, -1.383, -2.313, -0.317]
REJECTED = [-1.391, -0.815, -0.320, 0.738, -1.753, 0.603, -0.252]


def test_off_policy_accuracy_against_a_known_truth_is_the_published_one():
    assert accuracy.on_policy_accuracy(PAIRS, GOLD).tolist() == [0, 1, 0, 0, 1, 0, 1, 1]


def test_half_credit_goes_to_a_tie_of_either_side():
    assert accuracy.on_policy_accuracy(PAIRS, GOLD, ties="half").tolist() == [0, 1, 0, 0.5, 1, 0.5, 1, 1]


def test_on_policy_accuracy_is_over_all_pairs_of_samples():
    # truth 1 < 2 < 3, reward 1 < 3 > 2: pairs (0,1) and (0,2) right, (1,2) wrong
    assert accuracy.on_policy_accuracy([[1, 3, 2]], [[1, 2, 3]]) == pytest.approx([2 / 3])


def test_a_tie_is_right_only_if_both_tie_or_else_earns_a_half():
    rewards, truth = [[5, 5, 5]], [[1, 1, 2]]
    assert accuracy.on_policy_accuracy(rewards, truth, ties="both") == pytest.approx([1 / 3])
    assert accuracy.on_policy_accuracy(rewards, truth, ties="half") == pytest.approx([1 / 2])


def test_the_vectorised_accuracy_is_that_of_the_obvious_loop():
    random = np.random.default_rng(0)
    rewards, truth = random.integers(0, 4, (5, 7)), random.integers(0, 4, (5, 7))
    for prompt in range(5):
        right = [
            np.sign(rewards[prompt, i] - rewards[prompt, j]) == np.sign(truth[prompt, i] - truth[prompt, j])
            for i in range(7)
            for j in range(i)
        ]
        assert accuracy.on_policy_accuracy(rewards, truth)[prompt] == pytest.approx(np.mean(right))


def test_a_nan_reward_is_refused_because_it_would_count_as_wrong():
    with pytest.raises(ValueError, match="prompt 0, sample 1 is nan"):
        accuracy.on_policy_accuracy([[1, math.nan]], [[1, 2]])


def test_an_unknown_tie_rule_is_refused():
    with pytest.raises(ValueError, match="expected 'both' or 'half', got 'third'"):
        accuracy.ranking_accuracy([1.0], [0.0], ties="third")


def test_dataset_pairs_have_two_tie_rules():
    assert accuracy.ranking_accuracy([2, 1, 1], [1, 2, 1]).tolist() == [1, 0, 0.5]
    assert accuracy.ranking_accuracy([2, 1, 1], [1, 2, 1], ties="both").tolist() == [1, 0, 0]


def test_the_margin_is_absolute_and_in_deviations_of_all_rewards():
    # rewards 0, 3, 1, 0: mean 1, sum of squares 1 + 4 + 0 + 1 = 6, sample deviation sqrt(2)
    assert accuracy.normalised_margin([0, 3], [1, 0]) == pytest.approx([1 / math.sqrt(2), 3 / math.sqrt(2)], abs=1e-6)


def test_the_margin_of_a_constant_reward_is_nothing_and_not_nan():
    assert accuracy.normalised_margin([2, 2], [2, 2]).tolist() == [0, 0]


def test_bradley_terry_loss_with_and_without_centring_is_trl_s():
    assert accuracy.bradley_terry_loss(CHOSEN, REJECTED) == pytest.approx(0.9350038766860962, abs=1e-5)
    assert accuracy.bradley_terry_loss(CHOSEN, REJECTED, centring=0.01) == pytest.approx(0.9590433239936829, abs=1e-5)


@pytest.mark.parametrize(
    ("chosen", "rejected", "loss", "right"),
    [
        (0.019806601107120514, 0.003959657624363899, 0.6852551102638245, 1.0),
        (0.9922540187835693, 1.4253579378128052, 0.9329655170440674, 0.0),
    ],
    ids=["implicit", "explicit"],
)
def test_loss_and_accuracy_of_one_pair_are_those_of_2507_07981(chosen, rejected, loss, right):
    assert accuracy.bradley_terry_loss([chosen], [rejected]) == pytest.approx(loss, abs=1e-5)
    assert accuracy.ranking_accuracy([chosen], [rejected]).tolist() == [right]


def test_a_huge_margin_the_wrong_way_costs_its_size_and_does_not_overflow():
    assert accuracy.bradley_terry_loss([-1000.0], [1000.0]) == 2000


def test_a_reward_model_that_is_right_as_often_as_it_says_is_calibrated():
    margins = np.full(4, math.log(3))  # sigmoid(log 3) = 3/4
    assert accuracy.calibration(margins, [1, 1, 1, 0])["error"] == pytest.approx(0)
    assert accuracy.calibration(-margins, [1, 0, 0, 0])["error"] == pytest.approx(0.5)


def test_the_calibration_table_counts_every_pair_once_and_leaves_empty_bins_empty():
    found = accuracy.calibration([0.0, 100.0, 100.0], [0.5, 1, 0], bins=2)
    assert found["bins"] == [
        {"low": 0.5, "high": 0.75, "count": 1, "confidence": 0.5, "accuracy": 0.5},
        {"low": 0.75, "high": 1.0, "count": 2, "confidence": 1.0, "accuracy": 0.5},
    ]
    assert found["error"] == pytest.approx(2 / 3 * 0.5)
    assert accuracy.calibration([0.0], [1], bins=2)["bins"][1]["accuracy"] is None


def test_length_alone_explains_a_truth_that_is_length():
    lengths = np.array([[3, 9, 5], [1, 2, 4]])
    found = accuracy.controls(lengths, truth=lengths * 10)
    assert found["longer"].tolist() == [1, 1]
    assert found["shorter"].tolist() == [0, 0]
    assert found["constant"].tolist() == [0.5, 0.5]


def test_a_constant_gets_nothing_where_ties_are_wrong_and_a_coin_gets_half():
    lengths, truth = np.tile([[4, 7]], (2000, 1)), np.tile([[1, 0]], (2000, 1))
    found = accuracy.controls(lengths, truth, ties="both")
    assert found["constant"].mean() == 0
    assert 0.45 < found["random"].mean() < 0.55


def test_subsamples_are_those_of_the_published_seeds():
    assert accuracy.subsample(20, 6, seed=237).tolist() == [17, 14, 13, 18, 11, 19]
    assert accuracy.subsample(20, 6, seed=238).tolist() == [19, 16, 18, 15, 2, 17]


@pytest.mark.parametrize("size", [None, -1, 20, 99])
def test_asking_for_all_gives_all_in_order(size):
    assert accuracy.subsample(20, size, seed=237).tolist() == list(range(20))
