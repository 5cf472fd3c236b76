"""What climbing a reward will do to the ground truth: against softmax policies whose every response is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rmpipe import foresight
from rmpipe.variance import correlation, reward_variance, whiten

COUNTS = np.array([[1, 2, 3, 2], [4, 2, 1, 1], [2, 2, 2, 2]])  # of 8 samples each: the policy, exactly
SAMPLES = 8
RANDOM = np.random.default_rng(5)
REWARD, TRUTH = RANDOM.normal(size=(2, *COUNTS.shape))  # of each answer
CHANCES = COUNTS / SAMPLES


def drawn(values: np.ndarray) -> np.ndarray:
    """What is known of each answer, as 8 samples a prompt that are the policy exactly."""
    return np.stack([np.repeat(row, counts) for row, counts in zip(values, COUNTS, strict=True)])


def noisy(prompts: int = 40, samples: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and truth that agree in part, whose prompts differ in level."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(prompts, samples)) + random.normal(size=(prompts, 1))
    return 0.6 * truth + random.normal(size=truth.shape), truth


def gappy(truth: np.ndarray, seed: int = 1) -> np.ndarray:
    """Truth of which a third has no label, one prompt none, and one a single label."""
    gaps = np.where(np.random.default_rng(seed).random(truth.shape) < 1 / 3, np.nan, truth)
    gaps[0], gaps[1, 1:] = np.nan, np.nan
    return gaps


# -- the first order ------------------------------------------------------------------------------------------------


def test_ip_is_the_inner_product_of_the_gradients_of_both_expectations():
    # Answers' logits are linear in five weights that all prompts share, at which the policy is that of COUNTS.
    features = torch.tensor(RANDOM.normal(size=(*COUNTS.shape, 5)))
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    spread = (features @ weights + torch.tensor(np.log(COUNTS))).log_softmax(-1)
    slopes = [
        torch.autograd.grad((spread.exp() * torch.tensor(values)).sum(-1).mean(), weights, retain_graph=True)[0]
        for values in (REWARD, TRUTH)
    ]
    rows = [[torch.autograd.grad(one, weights, retain_graph=True)[0] @ slopes[1] for one in row] for row in spread]
    influence = drawn(np.array(rows))
    terms = foresight.terms(drawn(REWARD), drawn(TRUTH), influence, form="plain")
    unbiased = SAMPLES / (SAMPLES - 1)  # the samples are the whole population here
    assert terms.of("ip") / unbiased == pytest.approx(float(slopes[0] @ slopes[1]), rel=1e-10)
    variance = (CHANCES * (REWARD - (CHANCES * REWARD).sum(1, keepdims=True)) ** 2).sum(1).mean()
    assert terms.of("ip_free") == pytest.approx(float(slopes[0] @ slopes[1]) * np.sqrt(unbiased / variance), rel=1e-10)


def test_the_covariance_of_a_reward_with_itself_is_its_variance_and_its_correlation_is_1():
    rewards, _ = noisy()
    terms = foresight.terms(rewards, foresight.felt(rewards))
    assert terms.of("covariance") == pytest.approx(terms.of("variance"))
    assert terms.of("variance") == pytest.approx(reward_variance(whiten(rewards)).mean(), rel=1e-6)
    assert (terms.of("correlation"), terms.of("tilted")) == pytest.approx((1.0, terms.of("tilted_proxy")))


def test_the_correlation_is_pooled_over_prompts_and_of_equal_spreads_the_mean_of_theirs():
    rewards, truth = (foresight.felt(each, "group") for each in noisy())
    assert foresight.terms(rewards, truth).of("correlation") == pytest.approx(
        correlation(rewards, truth).mean(), rel=1e-3
    )


def test_the_covariance_is_unbiased_however_few_labels_a_prompt_has():
    rewards, truth = noisy(prompts=20_000, samples=4)
    found = foresight.covariance(rewards, np.where(np.random.default_rng(2).random(truth.shape) < 0.4, np.nan, truth))
    assert np.nanmean(found) == pytest.approx(0.6, abs=0.03)


def test_a_reward_that_does_not_vary_is_foretold_to_teach_nothing():
    _, truth = noisy()
    terms = foresight.terms(np.full(truth.shape, 0.1), truth, truth)
    weights = foresight.resamples(terms.prompts, 10)
    for name in ("covariance", "correlation", "ip", "ip_free", "variance", "tilted"):
        assert terms.of(name) == pytest.approx(0, abs=1e-12), name
        assert np.abs(terms.of(name, weights)).max() < 1e-12, name


# -- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", foresight.NAMES)
def test_samples_without_a_label_are_as_if_they_had_not_been_drawn(name):
    rewards, truth = noisy()
    gaps = gappy(truth)
    terms = foresight.terms(np.where(np.isnan(gaps), np.nan, rewards), gaps, gaps * 2, form="plain")
    several = (~np.isnan(gaps)).sum(axis=1) >= 2
    assert (terms.kept.tolist(), terms.labels) == (np.flatnonzero(several).tolist(), (~np.isnan(gaps[several])).sum())
    assert not several[:2].any()
    for place, row in enumerate(terms.kept.tolist()):
        there = ~np.isnan(gaps[row])
        alone = foresight.terms(
            rewards[None, row, there], truth[None, row, there], 2 * truth[None, row, there], "plain"
        )
        weights = np.eye(terms.prompts)[[place]]
        assert terms.of(name, weights) == pytest.approx(alone.of(name)), row


def test_a_reward_without_a_label_counts_for_what_whitens_since_it_costs_none():
    rewards, truth = noisy()
    whole = foresight.felt(rewards, "whitened")
    told = foresight.terms(whole, gappy(truth), form="plain")
    assert foresight.terms(rewards, gappy(truth)).of("tilted") == pytest.approx(told.of("tilted"))


def test_without_any_label_nothing_is_foretold():
    rewards, truth = noisy()
    terms = foresight.terms(rewards, np.full_like(truth, np.nan), np.full_like(truth, np.nan))
    assert (terms.prompts, terms.labels) == (0, 0)
    weights = foresight.resamples(terms.prompts, 10)
    assert all(np.isnan(terms.of(name)) and np.isnan(terms.of(name, weights)).all() for name in foresight.NAMES)
    assert np.isnan(terms.along().truth).all()
    assert np.isnan(foresight.best_of_n(rewards, np.full_like(truth, np.nan), [1, 2])).all()
    assert np.isnan(foresight.covariance(rewards, np.full_like(truth, np.nan))).all()


def test_without_influences_only_what_needs_them_is_not_foretold():
    terms = foresight.terms(*noisy())
    assert [name for name in foresight.NAMES if np.isnan(terms.of(name))] == ["ip", "ip_free"]


def test_a_labelled_sample_without_reward_or_influence_and_unlike_shapes_are_refused():
    rewards, truth = noisy()
    broken = rewards.copy()
    broken[3, 2] = np.nan
    for told in ((broken, truth), (rewards, truth, broken)):
        with pytest.raises(ValueError, match="must be finite"):
            foresight.terms(*told)
    with pytest.raises(ValueError, match=r"expected \(40, 6\), a value for each label, got \(40, 3\)"):
        foresight.terms(rewards[:, :3], truth)
    with pytest.raises(ValueError, match="a value for each label"):
        foresight.terms(rewards, truth, truth[:3])
    with pytest.raises(ValueError, match="form: expected one of plain, whitened, group"):
        foresight.felt(rewards, "whole")
    with pytest.raises(ValueError, match="name: expected one of covariance"):
        foresight.terms(rewards, truth).of("luck")


# -- what is felt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", foresight.NAMES)
def test_the_unit_of_a_reward_does_not_matter_once_it_is_whitened(name):
    rewards, truth = noisy()
    before, after = (foresight.terms(each, gappy(truth), truth).of(name) for each in (rewards, 7 * rewards - 3))
    assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["correlation", "ip_free"])
def test_what_has_no_scale_needs_no_whitening(name):
    rewards, truth = noisy()
    plain, whitened = (foresight.terms(rewards, truth, truth, form).of(name) for form in ("plain", "whitened"))
    assert plain == pytest.approx(whitened)


def test_an_offset_a_prompt_leaves_the_covariance_and_eats_that_of_whitened_rewards():
    rewards, truth = noisy()
    moved = rewards + 5 * np.random.default_rng(3).normal(size=(len(rewards), 1))
    plain = [foresight.terms(each, truth, form="plain").of("covariance") for each in (rewards, moved)]
    assert plain[1] == pytest.approx(plain[0])
    whitened = [foresight.terms(each, truth).of("covariance") for each in (rewards, moved)]
    assert whitened[1] < whitened[0] / 3


@pytest.mark.parametrize("name", foresight.NAMES)
def test_group_scaling_undoes_what_scales_and_moves_each_prompt(name):
    rewards, truth = noisy()
    random = np.random.default_rng(4)
    moved = rewards * random.uniform(0.5, 2, size=(len(rewards), 1)) + random.normal(size=(len(rewards), 1))
    before, after = (foresight.terms(each, truth, truth, form="group").of(name) for each in (rewards, moved))
    assert after == pytest.approx(before, rel=2e-3)


def test_group_scaling_gives_each_prompt_a_spread_of_1_and_a_flat_one_none():
    rewards, _ = noisy()
    rewards[3] = 0.1
    spread = foresight.felt(rewards, "group").std(axis=1, ddof=1)
    assert spread[3] == 0
    assert np.delete(spread, 3) == pytest.approx(1, rel=1e-3)


# -- the tilted policy ----------------------------------------------------------------------------------------------


def test_the_tilted_path_is_exact_where_the_samples_are_the_policy():
    etas = [0.0, 0.5, 1.0, 4.0]
    path = foresight.tilted(drawn(REWARD), drawn(TRUTH), etas)
    for place, eta in enumerate(etas):
        tilted = CHANCES * np.exp(eta * REWARD)
        tilted /= tilted.sum(axis=1, keepdims=True)
        spare = drawn(TRUTH).shape[1] / (drawn(TRUTH).shape[1] - 1)
        assert path.truth[place] == pytest.approx(spare * ((tilted - CHANCES) * TRUTH).sum(axis=1).mean())
        assert path.proxy[place] == pytest.approx(spare * ((tilted - CHANCES) * REWARD).sum(axis=1).mean())
        assert path.kl[place] == pytest.approx((tilted * np.log(tilted / CHANCES)).sum(axis=1).mean())
        assert path.ess[place] == pytest.approx((1 / (tilted**2 / CHANCES).sum(axis=1)).mean())
    assert path.eta.tolist() == etas


def test_rewards_however_large_tilt_the_policy_to_the_best_sample():
    rewards, truth = noisy()
    path = foresight.tilted(1e6 * rewards, truth, [1.0])
    best = np.take_along_axis(truth, rewards.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert path.truth[0] == pytest.approx(6 / 5 * (best - truth.mean(axis=1)).mean())
    assert (path.kl[0], path.ess[0]) == pytest.approx((np.log(6), 1 / 6))


def test_a_short_way_is_told_by_the_covariance_however_few_labels_a_prompt_has():
    rewards, truth = noisy()
    small = foresight.terms(1e-6 * rewards, gappy(truth), form="plain")
    assert small.columns["tilted"] == pytest.approx(small.columns["covariance"], rel=1e-3, abs=1e-10)


@pytest.mark.parametrize(("share", "samples", "exact"), [(0.1, 2, 0.74), (0.1, 32, 0.271), (0.25, 8, 0.522)])
def test_few_samples_show_a_larger_share_than_many_would(share, samples, exact):
    assert foresight.shown(share, samples) == pytest.approx(exact, abs=0.01)
    assert foresight.shown(1.0, samples) == pytest.approx(1)
    assert foresight.shown(share, 4 * samples) < foresight.shown(share, samples)


def test_an_inner_product_varies_with_the_prompts_of_both_gradients():
    rewards, truth = noisy()
    on, back = np.random.default_rng(7).normal(size=(2, *truth.shape))
    one = foresight.terms(rewards, truth, on, form="plain")
    both = foresight.terms(rewards, truth, on, form="plain", returned=back)
    assert both.of("ip") == pytest.approx(one.of("ip"))
    added = foresight.covariance(truth, back)
    assert both.columns["ip"] - one.columns["ip"] == pytest.approx(added - added.mean())


def test_a_truth_that_falls_beyond_some_reward_turns_there_and_one_that_rises_does_not():
    rewards, _ = noisy(samples=64)
    within = rewards - rewards.mean(axis=1, keepdims=True)
    path = foresight.tilted(within, within - within**2, foresight.ETAS)
    assert 0 < foresight.turn(path) < 1
    assert path.truth[foresight.ETAS.index(foresight.turn(path))] == path.truth.max()
    assert np.isnan(foresight.turn(foresight.tilted(within, within)))
    assert np.isnan(foresight.turn(foresight.tilted(within, -within)))


def test_a_path_is_not_followed_where_too_few_samples_carry_it():
    eta = np.array([0.0, 1.0, 2.0, 3.0])
    path = foresight.Path(eta, np.array([0.0, 1.0, 2.0, 1.5]), eta, eta, np.array([1.0, 0.5, 0.3, 0.1]))
    assert foresight.turn(path) == 2.0
    assert np.isnan(foresight.turn(path, least=0.2))


# -- the best of n --------------------------------------------------------------------------------------------------


def test_the_best_of_n_is_that_of_all_subsets_ties_shared_and_gaps_left_out():
    random = np.random.default_rng(6)
    rewards, truth = random.integers(3, size=(5, 7)).astype(float), random.normal(size=(5, 7))
    truth[2, 3], rewards[2, 3] = np.nan, np.nan
    truth[4, 4:] = np.nan  # fewer than 5 labels: left out of all
    exact = []
    for n in (1, 2, 5):
        means = []
        for row in range(4):
            values = []
            for chosen in itertools.combinations(np.flatnonzero(~np.isnan(truth[row])), n):
                mine, best = rewards[row, list(chosen)], truth[row, list(chosen)]
                values.append(best[mine == mine.max()].mean())
            means.append(np.mean(values))
        exact.append(np.mean(means))
    assert foresight.best_of_n(rewards, truth, [1, 2, 5]) == pytest.approx(exact)


def test_the_best_of_all_is_the_highest_and_of_one_the_mean():
    rewards, truth = noisy()
    best = np.take_along_axis(truth, rewards.argmax(axis=1)[:, None], axis=1).mean()
    assert foresight.best_of_n(rewards, truth, [1, 6]) == pytest.approx([truth.mean(), best])
    assert np.isnan(foresight.best_of_n(rewards, truth, [1, 7])).all()


def test_the_best_of_n_can_be_resampled():
    rewards, truth = noisy()
    weights = foresight.resamples(40, 3)
    found = foresight.best_of_n(rewards, truth, [1, 4], weights)
    picked = np.repeat(np.arange(40), weights[1].astype(int))
    assert found[1] == pytest.approx(foresight.best_of_n(rewards[picked], truth[picked], [1, 4]))


# -- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", foresight.NAMES)
def test_weights_tell_what_the_resampled_prompts_would(name):
    rewards, truth = noisy()
    terms, weights = foresight.terms(rewards, truth, truth**2, form="plain"), foresight.resamples(40, 5)
    picked = np.repeat(np.arange(40), weights[2].astype(int))
    again = foresight.terms(rewards[picked], truth[picked], truth[picked] ** 2, form="plain")
    assert terms.of(name, weights)[2] == pytest.approx(again.of(name))


def test_the_path_of_a_resample_is_that_of_its_prompts():
    rewards, truth = noisy()
    terms, weights = foresight.terms(rewards, truth, form="plain"), foresight.resamples(40, 5)
    picked = np.repeat(np.arange(40), weights[2].astype(int))
    again, path = foresight.terms(rewards[picked], truth[picked], form="plain").along(), terms.along(weights)
    for name in ("truth", "proxy", "kl", "ess"):
        assert getattr(path, name)[2] == pytest.approx(getattr(again, name)), name
    assert foresight.turn(path).shape == (5,)


def test_resamples_have_as_many_prompts_as_there_are_and_come_of_the_seed():
    weights = foresight.resamples(12, 7, seed=3)
    assert (weights.shape, set(weights.sum(axis=1))) == ((7, 12), {12.0})
    assert (weights == foresight.resamples(12, 7, seed=3)).all()
    assert (weights != foresight.resamples(12, 7, seed=4)).any()


@pytest.mark.parametrize(
    ("name", "exact"), [("covariance", 0.6), ("correlation", 0.6 / np.sqrt(1.36)), ("ip_free", 1.2 / np.sqrt(1.36))]
)
def test_intervals_hold_what_is_so_as_often_as_they_say(name, exact):
    held = []
    for seed in range(200):
        rewards, truth = noisy(prompts=50, samples=5, seed=seed)
        terms = foresight.terms(rewards, truth, 2 * truth, form="plain")
        low, high = np.quantile(terms.of(name, foresight.resamples(50, 400, seed)), [0.025, 0.975])
        held.append(low <= exact <= high)
    assert 0.89 <= np.mean(held) <= 0.99


def test_shared_resamples_part_two_rewards_that_have_their_luck_in_common():
    rewards, truth = noisy()
    other = rewards + 0.1 * np.random.default_rng(7).normal(size=rewards.shape)
    one, two = (foresight.terms(each, truth, form="plain") for each in (rewards, other))
    shared, apart = (foresight.resamples(40, 500, seed) for seed in (0, 1))
    paired = one.of("covariance", shared) - two.of("covariance", shared)
    assert paired.std() < (one.of("covariance", shared) - two.of("covariance", apart)).std() / 3


# -- groups -----------------------------------------------------------------------------------------------------------


def of_groups(rewards: np.ndarray, size: int) -> np.ndarray:
    """The mean advantage of each sample over all groups of so many that it may be in."""
    found = np.zeros(len(rewards))
    for own in range(len(rewards)):
        others = itertools.combinations([place for place in range(len(rewards)) if place != own], size - 1)
        groups = [rewards[[own, *rest]] for rest in others]
        found[own] = np.mean([(group[0] - group.mean()) / (group.std(ddof=1) + 1e-4) for group in groups])
    return found


def test_what_a_group_feels_is_the_mean_over_all_groups_there_could_be():
    rewards = np.random.default_rng(0).normal(size=(2, 3, 8))
    mean, varying = foresight.grouped(rewards, 4, draws=4000)
    for model, prompt in itertools.product(range(2), range(3)):
        assert mean[model, prompt] == pytest.approx(of_groups(rewards[model, prompt], 4), abs=0.03)
    assert (varying > 0).all()


def test_samples_that_are_left_over_of_whole_groups_count_for_nothing_till_they_are_drawn_into_one():
    rewards = np.random.default_rng(0).normal(size=(1, 1, 6))
    mean, _ = foresight.grouped(rewards, 4, draws=4000)
    assert mean[0, 0] == pytest.approx(of_groups(rewards[0, 0], 4), abs=0.03)


def test_a_rare_reward_counts_for_less_in_a_small_group_than_the_spread_of_all_would_say():
    rewards = np.zeros((1, 1, 32))
    rewards[0, 0, 0] = 1
    mean, _ = foresight.grouped(rewards, 4)
    assert mean[0, 0, 0] == pytest.approx(1.5, abs=0.01)  # of any group, one above three: .75 / .5
    assert foresight.felt(rewards[0], "group")[0, 0] > 5


def test_a_group_is_of_samples_that_are_there_and_of_all_where_they_are_few():
    rewards = np.random.default_rng(0).normal(size=(1, 2, 6))
    there = np.array([[True, True, True, False, False, False], [False] * 6])
    mean, varying = foresight.grouped(rewards, 4, there)
    three = rewards[0, 0, :3]
    assert mean[0, 0, :3] == pytest.approx((three - three.mean()) / (three.std(ddof=1) + 1e-4))
    assert not mean[0, 0, 3:].any()
    assert not mean[0, 1].any()
    assert varying[0, 0] == pytest.approx(0, abs=1e-12)
