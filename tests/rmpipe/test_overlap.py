"""Overlap: the published token overlap, and what token counts explain of rewards whose cause is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmpipe import overlap

RANDOM = np.random.default_rng(0)
PROMPTS = [index // 2 for index in range(240)]  # two responses to each of 120 prompts
ROWS = [RANDOM.integers(0, 12, size).tolist() for size in RANDOM.integers(5, 15, 240)]
WORTH = RANDOM.normal(size=12)
SUMS = np.array([WORTH[row].sum() for row in ROWS])
NOISE = RANDOM.normal(size=240)


def share(rewards, rows=None, prompts=None, folds=3, **told) -> float:
    (counts,) = overlap.token_counts(rows or ROWS)
    return overlap.explained(counts, rewards, prompts or PROMPTS, folds=folds, **told).share


# -- what two responses share -------------------------------------------------------------------------------------


def test_the_overlap_is_the_share_of_equal_pairs_of_the_obvious_loop():
    left, right = [1, 2, 3, 2, 2], [2, 7, 8, 2, 3, 3]
    assert overlap.token_overlap(left, right) == sum(a == b for a in left for b in right) / 30


def test_the_mean_overlaps_are_those_of_the_published_code():
    chosen, rejected = [[1, 2, 3, 2], [1, 1]], [[4, 4, 5], [2, 3]]
    found = overlap.mean_overlap(chosen, rejected, [[2, 7, 8], [1]], [[4, 9], [5, 6, 7]])
    assert found["itself"] == pytest.approx(0.6076388955116272, abs=1e-6)
    assert found["shifted"] == pytest.approx(0.3750000037252903, abs=1e-6)


def test_tensors_overlap_as_lists_do():
    torch = pytest.importorskip("torch")
    assert overlap.token_overlap(torch.tensor([1, 1, 2]), torch.tensor([1])) == 2 / 3


def test_a_response_without_a_token_has_no_overlap():
    with pytest.raises(ValueError, match="leave out empty responses"):
        overlap.token_overlap([], [1])


def test_shifted_responses_must_be_of_the_same_examples():
    with pytest.raises(ValueError, match="shorter"):
        overlap.mean_overlap([[1], [2]], [[3]], [[1]], [[3], [4]])


# -- what tokens explain ------------------------------------------------------------------------------------------


def test_a_sum_over_tokens_is_explained_to_all_and_noise_to_nothing():
    assert share(SUMS) > 0.99
    assert -0.1 < share(NOISE) < 0.1


def test_half_a_reward_of_tokens_and_half_of_noise_is_explained_to_a_half():
    assert share(SUMS / SUMS.std() + NOISE / NOISE.std()) == pytest.approx(0.5, abs=0.1)


def test_the_length_is_explained_by_counts_and_alone_by_their_sum():
    (counts,) = overlap.token_counts(ROWS)
    lengths = [len(row) for row in ROWS]
    total = np.asarray(counts.sum(axis=1))
    assert share(lengths) > 0.99
    assert overlap.explained(total, lengths, PROMPTS, folds=3).share > 0.99
    assert overlap.explained(total, SUMS - np.polyval(np.polyfit(lengths, SUMS, 1), lengths), PROMPTS).share < 0.05


def test_the_order_of_tokens_explains_nothing():
    rows = [row + row[::-1] for row in ROWS]  # the first of two orders of the same tokens is the good one
    rows = [half for row in rows[:120] for half in (row, row[::-1])]
    assert share([1, -1] * 120, rows=rows) < 0.05


def test_neither_a_shift_nor_a_scale_of_the_rewards_changes_the_share():
    assert share(-300 * (SUMS + NOISE) + 5000) == pytest.approx(share(SUMS + NOISE), abs=1e-3)


def test_words_of_a_prompt_s_topic_do_not_tell_its_level_from_its_other_response():
    # Every prompt has a token of its own and a level of its own: only a fold that splits prompts could learn it.
    rows = [[1000 + prompt] * 8 for prompt in PROMPTS]
    levels = RANDOM.normal(size=120)[PROMPTS]
    assert share(levels, rows=rows) < 0.05
    assert share(levels, rows=rows, prompts=list(range(240))) > 0.5


def test_a_share_may_fall_below_nothing():
    # What a token is worth is turned around in the prompts that the weights were not fitted to.
    (counts,) = overlap.token_counts(ROWS)
    found = overlap.transferred(counts, SUMS, PROMPTS, counts, -SUMS, [prompt + 1000 for prompt in PROMPTS], folds=3)
    assert found.share < -2


def test_predictions_are_in_reward_units_and_give_the_share():
    (counts,) = overlap.token_counts(ROWS)
    rewards = 10 * SUMS + 70 + 10 * NOISE
    found = overlap.explained(counts, rewards, PROMPTS, folds=3)
    assert found.share == pytest.approx(1 - np.mean((rewards - found.predictions) ** 2) / rewards.var())
    assert np.corrcoef(found.predictions, 10 * SUMS + 70)[0, 1] > 0.98


def test_another_seed_cuts_other_folds_and_the_same_seed_the_same():
    assert share(SUMS + NOISE, seed=1) == share(SUMS + NOISE, seed=1) != share(SUMS + NOISE, seed=2)


@pytest.mark.parametrize("intercept", [True, False])
def test_rewards_without_variance_have_no_share(intercept):
    assert math.isnan(share(np.zeros(240), intercept=intercept))


def test_a_constant_is_nothing_among_rewards_and_something_among_differences():
    assert math.isnan(share(np.full(240, 3.0)))
    assert math.isfinite(share(np.full(240, 3.0), intercept=False))


@pytest.mark.parametrize(("prompts", "folds"), [([0, 0, 1, 1, 2, 2], 5), ([0, 1, 2, 3, 4, 5], 2)])
def test_too_few_prompts_or_folds_are_refused(prompts, folds):
    with pytest.raises(ValueError, match=f"in {folds} folds: take at least 3"):
        share(np.arange(6), rows=ROWS[:6], prompts=prompts, folds=folds)


def test_three_prompts_in_three_folds_are_enough():
    assert math.isfinite(share(SUMS[:6], rows=ROWS[:6], prompts=[0, 0, 1, 1, 2, 2], folds=3))


def test_a_nan_reward_is_named():
    with pytest.raises(ValueError, match="prompt 7, sample 0 is nan"):
        share(np.where(np.arange(240) == 7, np.nan, SUMS))


def test_rewards_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="got 239 and 240"):
        share(SUMS[:-1])


# -- differences of a pair ----------------------------------------------------------------------------------------


def test_a_chosen_response_that_is_always_better_by_the_same_is_not_explained_by_that():
    (counts,) = overlap.token_counts(ROWS)
    between = counts[::2] - counts[1::2]  # of responses that have nothing to do with who is better
    margins = 2 + 0.1 * RANDOM.normal(size=120)
    assert overlap.explained(between, margins, PROMPTS[::2], intercept=False, folds=3).share < 0.1


def test_swapping_the_sides_of_some_pairs_changes_no_share_and_turns_their_predictions():
    (counts,) = overlap.token_counts(ROWS)
    between, margins = counts[::2] - counts[1::2], (SUMS + NOISE + 0.5)[::2] - (SUMS + NOISE)[1::2]
    signs = RANDOM.choice([-1.0, 1.0], 120)
    straight = overlap.explained(between, margins, PROMPTS[::2], intercept=False, folds=3)
    swapped = overlap.explained(
        between.multiply(signs[:, None]).tocsr(), signs * margins, PROMPTS[::2], intercept=False, folds=3
    )
    assert 0.5 < straight.share == pytest.approx(swapped.share, abs=1e-3)
    assert signs * swapped.predictions == pytest.approx(straight.predictions, abs=0.05)


# -- across a shift -----------------------------------------------------------------------------------------------


def test_cues_carry_over_to_new_prompts_of_the_same_tokens_and_not_to_other_tokens():
    known, fresh = overlap.token_counts(ROWS[:120], ROWS[120:])
    carried = overlap.transferred(known, SUMS[:120], PROMPTS[:120], fresh, SUMS[120:], PROMPTS[120:], folds=3)
    assert carried.share > 0.99
    translated = [[token + 100 for token in row] for row in ROWS[120:]]
    known, fresh = overlap.token_counts(ROWS[:120], translated)
    lost = overlap.transferred(known, SUMS[:120], PROMPTS[:120], fresh, SUMS[120:], PROMPTS[120:], folds=3)
    assert lost.share <= 0
    assert np.ptp(lost.predictions) == 0


def test_a_paraphrase_is_predicted_without_its_own_prompt():
    rows = [[1000 + prompt] * 8 for prompt in PROMPTS]
    levels = RANDOM.normal(size=120)[PROMPTS]
    known, shifted = overlap.token_counts(rows, rows)
    assert overlap.transferred(known, levels, PROMPTS, shifted, levels, PROMPTS, folds=3).share < 0.05


def test_a_shifted_set_that_lies_higher_as_a_whole_loses_its_share_but_not_for_differences():
    (counts,) = overlap.token_counts(ROWS)
    assert overlap.transferred(counts, SUMS, PROMPTS, counts, SUMS + 100, PROMPTS, folds=3).share < -10
    between, margins = counts[::2] - counts[1::2], SUMS[::2] - SUMS[1::2]
    told = (between, margins, PROMPTS[::2])
    raised = (SUMS + 100)[::2] - (SUMS + 100)[1::2]
    assert overlap.transferred(*told, between, raised, PROMPTS[::2], intercept=False, folds=3).share > 0.99
