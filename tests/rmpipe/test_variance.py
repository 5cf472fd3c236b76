"""Reward variance and its kin, against numbers that the papers' own code gave (2503.15477) and sums done by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rmpipe import variance

# Six prompts x ten responses, and what the published code makes of them.
REWARDS = [
    [1.313, 1.365, 1.311, 1.217, 1.437, 1.283, 1.373, 2.002, 1.327, 1.677],
    [3.635, 4.368, 3.227, 3.529, 2.442, 3.642, 4.722, 5.013, 4.892, 5.009],
    [0.752, -1.532, -1.136, -1.064, -1.288, -0.908, 0.506, -0.690, -0.976, -2.076],
    [-2.608, -2.607, -2.591, -2.592, -2.617, -2.608, -2.626, -2.615, -2.624, -2.604],
    [-4.266, -3.675, 1.896, 0.663, -0.132, -0.594, 2.688, -1.377, 0.738, -4.506],
    [-0.038, -0.828, -0.313, -0.601, -0.622, 0.189, 0.084, -1.678, 0.086, -0.267],
]


def test_variance_is_unbiased_and_within_each_prompt():
    # ((1-2)^2 + (2-2)^2 + (3-2)^2) / (3-1) = 1; the level of a prompt does not matter
    assert variance.reward_variance([[1, 2, 3], [101, 102, 103], [5, 5, 5]]).tolist() == [1, 1, 0]


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    assert variance.reward_variance(torch.tensor([[0.0, 2.0]])).tolist() == [2]


@pytest.mark.parametrize("rewards", [[[1.0], [2.0]], [1.0, 2.0], np.zeros((0, 3)), [[1.0, float("nan")]]])
def test_one_sample_a_flat_list_no_prompts_and_nan_are_refused(rewards):
    with pytest.raises(ValueError, match=r"prompt"):
        variance.reward_variance(rewards)


def test_whitening_uses_all_prompts_together_so_variance_becomes_a_share_of_the_whole():
    white = variance.whiten(REWARDS)
    assert white.mean() == pytest.approx(0, abs=1e-12)
    assert white.std(ddof=1) == pytest.approx(1)
    assert variance.reward_variance(white).mean() < 1
    assert variance.reward_variance(variance.whiten(np.array(REWARDS) * 7 - 3)) == pytest.approx(
        variance.reward_variance(white)
    )


def test_a_constant_reward_whitens_to_zero_not_to_rounding_noise():
    assert variance.whiten(np.full((7, 3), 0.1)).tolist() == [[0.0] * 3] * 7


def test_shift_and_scale_are_those_of_the_published_policy_gradient():
    shift, scale = variance.shift_and_scale(REWARDS)
    assert shift == pytest.approx(-0.12878333032131195, abs=1e-4)
    assert scale == pytest.approx(0.4145923852920532, abs=1e-4)


def test_shift_and_scale_are_taken_after_the_chosen_prompts_were_scaled_down():
    prompts, scaled = [3, 7, 1, 9, 4, 12], [7, 9, 12]
    factors = np.where(np.isin(prompts, scaled), 0.001, 1.0)
    shift, scale = variance.shift_and_scale(np.array(REWARDS) * factors[:, None])
    assert shift == pytest.approx(0.044360000640153885, abs=1e-4)
    assert scale == pytest.approx(0.7652927041053772, abs=1e-4)


def test_the_median_of_four_is_the_lower_middle_value():
    assert variance.quartiles([4, 1, 3, 2]) == {"min": 1, "25": 1.75, "median": 2, "75": 3.25, "max": 4}


def test_a_prompt_is_flat_under_the_threshold_or_without_any_spread():
    rewards = [[0.1, 0.1, 0.1], [0, 0.01, 0.02], [0, 1, 2]]
    assert variance.flat(rewards, 0.05).tolist() == [True, True, False]
    assert variance.flat_share(rewards, 0) == pytest.approx(1 / 3)


def test_the_mean_of_the_whitened_can_be_had_from_each_prompt_s_moments_for_any_resample():
    rewards, truth = np.array(REWARDS), np.array(REWARDS)[::-1] ** 2
    for rows in (slice(None), [0, 0, 2, 4, 4, 5]):
        left, right = rewards[rows], truth[rows]
        sides = [(variance.reward_variance(side), side.mean(axis=1)) for side in (left, right)]
        moments = np.stack([sides[0][0], *sides[0], *sides[0]], axis=1)
        expected = variance.reward_variance(variance.whiten(left)).mean()
        assert variance.whitened_mean(moments, 10) == pytest.approx(expected)
        moments = np.stack([variance.covariance(left, right), *sides[0], *sides[1]], axis=1)
        expected = variance.covariance(variance.whiten(left), variance.whiten(right)).mean()
        assert variance.whitened_mean(moments, 10) == pytest.approx(expected)


def test_a_constant_reward_has_no_whitened_mean():
    assert variance.whitened_mean(np.zeros((4, 5)), 3) == 0


def test_covariance_with_itself_is_the_variance():
    assert variance.covariance(REWARDS, REWARDS) == pytest.approx(variance.reward_variance(REWARDS))


def test_covariance_and_correlation_do_not_see_what_differs_between_prompts():
    truth = np.array([[1.0, 2.0, 3.0], [30.0, 20.0, 10.0]])
    rewards = np.array([[2.0, 4.0, 6.0], [-900.0, -899.0, -898.0]])
    assert variance.covariance(rewards, truth).tolist() == [2, -10]
    assert variance.correlation(rewards, truth) == pytest.approx([1, -1])


def test_a_prompt_without_spread_correlates_at_zero_and_stays_in_the_mean():
    rising, constant = [1, 2, 3, 4, 5, 6], [0.1] * 6  # whose mean is not quite 0.1
    rewards, truth = [rising, constant, rising, constant], [rising, rising, constant, constant]
    assert variance.correlation(rewards, truth).tolist() == [1, 0, 0, 0]


def test_rewards_and_truth_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"same responses, got \(1, 2\) and \(1, 3\)"):
        variance.covariance([[1, 2]], [[1, 2, 3]])


# RLOO of 4 prompts x 2 responses in the published trainer; its arrays are response-major.
SCORES = [-1.206, 0.062, 1.163, -1.501, -1.594, -0.019, -2.132, -0.527]
KL = [-2.034, 1.744, 2.142, -2.6, 1.499, -0.608, -2.843, -1.739]
REFERENCE = {
    "default": (
        {},
        [-1.1043, -0.0252, 1.0559, -1.371, -1.66895, 0.0114, -1.98985, -0.44005],
        [0.56465, -0.0366, 3.04575, -0.93095],
    ),
    "without a penalty": (
        {"kl_coefficient": 0.0},
        [-1.206, 0.062, 1.163, -1.501, -1.594, -0.019, -2.132, -0.527],
        [0.388, 0.081, 3.295, -0.974],
    ),
    "two prompts scaled by a thousandth": (
        {"factor": [0.001, 1, 0.001, 1]},
        [0.100494005, -0.0252, -0.105937019, -1.371, -0.076544002, 0.0114, 0.140018001, -0.44005],
        [0.177038014, -0.0366, -0.24595502, -0.93095],
    ),
    "divided by the prompt's deviation": (
        {"per_prompt": True},
        [-4.294025898, 0.995282829, 0.392059416, -2.049398899, -5.884889126, -0.301328599, -0.772904098, -0.678235352],
        [1.590863228, 1.296611428, 1.164963484, -1.371163607],
    ),
    "whitened with the penalty": (
        {"whitened": "with_kl"},
        [-1.094958663, -0.040278196, 1.016356945, -1.355623484, -1.646830797, -0.004506469, -1.960469007, -0.445740342],
        [0.551872015, -0.035771728, 2.976825953, -0.909883142],
    ),
    "whitened without the penalty": (
        {"whitened": "without_kl"},
        [-1.06483794, -0.088537827, 0.903301477, -1.307621717, -1.598031878, -0.045370918, -1.87531507, -0.455636203],
        [0.533194065, -0.043166906, 2.778616428, -0.851985455],
    ),
}


def _prompt_major(values):
    return np.array(values).reshape(2, 4).T


@pytest.mark.parametrize(("options", "rewards", "advantages"), REFERENCE.values(), ids=REFERENCE)
def test_rloo_gives_the_published_rewards_and_advantages(options, rewards, advantages):
    ours = variance.rlhf_rewards(_prompt_major(SCORES), _prompt_major(KL), **options)
    assert ours == pytest.approx(_prompt_major(rewards), abs=1e-5)
    # with two responses the advantages of a prompt are each other's negative
    assert variance.rloo_advantages(ours) == pytest.approx(np.outer(advantages, [1, -1]), abs=1e-5)


def test_an_advantage_is_over_the_mean_of_the_others():
    assert variance.rloo_advantages([[1, 2, 6]]).tolist() == [[1 - 4, 2 - 3.5, 6 - 1.5]]


def test_the_science_imports_neither_torch_nor_pandas_nor_scipy():
    modules = "variance, accuracy, interval, contrast, verdict, ranking"
    heavy = "[m for m in ('torch', 'pandas', 'scipy') if m in sys.modules]"
    code = f"import sys; from rmpipe import {modules}; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
