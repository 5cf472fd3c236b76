"""RLHF gone through on samples, against policies whose log-likelihoods are linear: there it is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rmpipe import foresight
from rmpipe.config import StudyError
from rmpipe.recipe import Recipe
from rmpipe.rehearsal import Rehearsed, rehearse
from rmpipe.slopes import Slopes, influence

PROMPTS, RESPONSES, WEIGHTS = 3, 6, 5
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(PROMPTS, RESPONSES, WEIGHTS))
"""Of a policy pi_d(y | x) ~ exp(<features(x, y), d>), uniform at the beginning: a sample is each of its responses."""
TRUTH = RANDOM.normal(size=(PROMPTS, RESPONSES))
REWARDS = np.stack([TRUTH, TRUTH + RANDOM.normal(size=TRUTH.shape), RANDOM.normal(size=TRUTH.shape)])
SPARE = RESPONSES / (RESPONSES - 1)
MANY = 10**9  # prompts a step, of which no noise is left


def halved(*begin: int, prompts: int = PROMPTS) -> int:
    """A seed of two parts that hold a copy of each prompt, so that what the others teach is what all teach."""
    whole = set(range(prompts))
    drawn = ((seed, np.random.default_rng([seed, *begin]).permutation(2 * prompts)) for seed in range(1000))
    return next(seed for seed, order in drawn if set((order[:prompts] % prompts).tolist()) == whole)


def twice(values: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.concatenate([values, values], axis=axis)


def slopes_of(features: np.ndarray) -> Slopes:
    """At the beginning, where the policy is uniform."""
    return Slopes((features - features.mean(axis=1, keepdims=True)).astype(np.float32), share=1.0)


def plan(rate: float = 0.3, steps: int = 12, **changes: object) -> Recipe:
    told = {"rates": (rate,) * steps, "adaptive": False, "clip": 0.0, "kl": 0.0, "prompts": MANY, "samples": 4}
    return Recipe(**told | changes)


def copied(how: Recipe, rewards: np.ndarray = REWARDS, features: np.ndarray = FEATURES, **more: object) -> Rehearsed:
    """With each prompt twice, once in each part."""
    seed = halved(*b"folds", prompts=len(features))
    truths = {"g": twice(TRUTH)} if features is FEATURES else {}
    return rehearse(slopes_of(twice(features)), twice(rewards, 1), truths, how, folds=2, seed=seed, **more)


# -- the path -------------------------------------------------------------------------------------------------------


def climbed(how: Recipe, reward: np.ndarray) -> tuple[np.ndarray, ...]:
    """Truth, proxy, KL and effective share of the exact policy, `(steps + 1, prompts)` each, by torch's own steps."""
    features, felt, truth = (torch.tensor(each) for each in (FEATURES, reward, TRUTH))
    place = torch.zeros(WEIGHTS, dtype=torch.float64, requires_grad=True)
    kind = torch.optim.Adam if how.adaptive else torch.optim.SGD
    optimiser, told = kind([place], lr=1.0, maximize=True), []
    for rate in (*how.rates, 0.0):
        logs = (features @ place).log_softmax(-1)
        chances, kl = logs.exp(), (logs.exp() * (logs + math.log(RESPONSES))).sum(-1)
        rises = [(chances * each).sum(-1) - each.mean(-1) for each in (truth, felt)]
        told.append([*rises, kl, 1 / (RESPONSES * chances**2).sum(-1)])
        optimiser.zero_grad()
        (SPARE * ((chances * felt).sum(-1) - how.kl * kl).mean()).backward()
        if how.clip:
            torch.nn.utils.clip_grad_norm_([place], how.clip)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
    return tuple(torch.stack(each).detach().numpy() for each in zip(*told, strict=True))


@pytest.mark.parametrize(
    "how",
    [
        plan(), plan(kl=0.4), plan(clip=0.2), plan(rates=(0.0, 0.1, 0.9, 0.4)), plan(adaptive=True, rate=0.1),
        plan(adaptive=True, rate=0.1, clip=0.2, kl=0.3),
    ],
    ids=["descent", "kl", "clipped", "scheduled", "adam", "adam-clipped-kl"],
)  # fmt: skip
def test_a_rehearsal_is_exact_where_log_likelihoods_are_linear_and_samples_are_all_there_is(how):
    found = copied(how)
    for row, reward in enumerate(REWARDS):
        told = found.truth["g"][row] / SPARE, found.proxy[row] / SPARE, found.kl[row], found.ess[row]
        for mine, exact in zip(told, climbed(how, reward), strict=True):
            np.testing.assert_allclose(mine, twice(exact, 1), atol=2e-5)
    assert found.kl[:, -1].max() > 0.05


def test_a_share_of_the_weights_goes_the_same_way_as_all_that_they_stand_for():
    # Four weights that are alike, of which one is kept.
    alike = Slopes(np.repeat(slopes_of(twice(FEATURES)).values, 4, axis=2), share=1.0)
    one = Slopes(slopes_of(twice(FEATURES)).values, share=0.25)
    for how in (plan(), plan(clip=0.2), plan(adaptive=True, rate=0.1, clip=0.2, prompts=6)):
        every, some = (rehearse(each, twice(REWARDS, 1), {}, how, folds=2).proxy for each in (alike, one))
        np.testing.assert_allclose(some, every, atol=1e-5)


def test_the_first_step_is_the_learning_rate_times_the_inner_product_of_both_gradients():
    found = copied(plan(rate=1e-3, steps=1))
    s = influence(slopes_of(twice(FEATURES)), twice(TRUTH), halved())
    for row, reward in enumerate(REWARDS):
        ip = foresight.covariance(twice(reward), s).mean()
        assert found.truth["g"][row, 1].mean() == pytest.approx(1e-3 * ip, rel=0.02)


def test_descent_goes_with_the_scale_of_the_reward_and_adam_does_not():
    once, double = copied(plan(rate=0.2)), copied(plan(rate=0.1), 2 * REWARDS)
    np.testing.assert_allclose(double.truth["g"], once.truth["g"], atol=1e-5)
    np.testing.assert_allclose(double.proxy, 2 * once.proxy, atol=1e-5)
    same = [copied(plan(rate=0.1, adaptive=True, prompts=6), factor * REWARDS).truth["g"] for factor in (1, 100)]
    np.testing.assert_allclose(*same, atol=1e-4)


def test_against_a_kl_penalty_a_policy_that_can_be_anything_ends_as_the_tilted_one():
    free = np.eye(PROMPTS * RESPONSES).reshape(PROMPTS, RESPONSES, -1)
    found = copied(plan(rate=3.0, steps=3000, kl=0.7), features=free)
    tilted = np.exp(REWARDS / 0.7)
    tilted /= tilted.sum(axis=2, keepdims=True)
    rise = (tilted * REWARDS).sum(axis=2) - REWARDS.mean(axis=2)
    np.testing.assert_allclose(found.proxy[:, -1], SPARE * twice(rise, 1), atol=1e-3)
    kls = [copied(plan(rate=0.3, kl=kl)).kl[:, -1].mean() for kl in (0, 0.5, 5)]
    assert kls[0] > 1.5 * kls[1] > 3 * kls[2]


def test_a_reward_turned_round_takes_the_other_way():
    found = copied(plan(rate=0.05, steps=5), np.stack([TRUTH, -TRUTH]))
    assert (found.proxy[:, -1].mean(axis=1) > 0.02).all()
    forth, back = found.truth["g"][:, -1].mean(axis=1)
    assert forth > 0.02
    assert back < -0.02


@pytest.mark.parametrize("how", [
    plan(rate=0.2, prompts=3, samples=4, steps=15),
    plan(rate=1.0, prompts=3, samples=4, steps=15, clip=0.1),
    plan(rate=0.08, prompts=3, samples=4, steps=15, adaptive=True),
    plan(rate=0.08, prompts=3, samples=4, steps=15, adaptive=True, clip=0.5, kl=0.3),
    plan(rate=0.15, prompts=3, samples=2, steps=15, gain=0.5, kl=0.1),
], ids=["descent", "clipped", "adam", "adam-clipped-kl", "own-in-mean"])  # fmt: skip
def test_it_is_what_comes_of_sampled_steps_on_average(how):
    times = 20  # samples of each response, so that hardly any of a mean is a sample's own
    features, rewards = np.repeat(FEATURES, times, axis=1), np.repeat(REWARDS, times, axis=2)
    found = copied(how, rewards, features).proxy[:2, -1].mean(axis=1)  # of so many samples that 1/K is nothing
    exact = [drawn(how, reward) for reward in REWARDS[:2]]
    np.testing.assert_allclose(found, exact, rtol=0.08)


def drawn(how: Recipe, reward: np.ndarray, runs: int = 500) -> float:
    """Rise of the reward by RLHF that draws its prompts and responses, mean of many runs."""
    random, rows = np.random.default_rng(1), np.arange(runs)[:, None, None]
    place = torch.zeros(runs, WEIGHTS, dtype=torch.float64)
    first, second = (torch.zeros_like(place).numpy() for _ in range(2))
    place = place.numpy()
    for step, rate in enumerate(how.rates):
        logs = torch.tensor(np.einsum("pkw,rw->rpk", FEATURES, place)).log_softmax(-1).numpy()
        chances = np.exp(logs)
        asked = random.random((runs, PROMPTS)).argsort(axis=1)[:, : how.prompts, None]
        ways = (random.random((runs, how.prompts, how.samples))[..., None] > chances[rows, asked].cumsum(-1)).sum(-1)
        ways = np.minimum(ways, RESPONSES - 1)
        felt = reward[asked, ways] * (how.gain * how.samples / (how.samples - 1))
        felt = felt - felt.mean(axis=2, keepdims=True)
        apart = logs[rows, asked, ways] * (how.kl * how.samples / (how.samples - 1))
        felt = felt - (apart - apart.mean(axis=2, keepdims=True))
        scores = (
            FEATURES[asked, ways]
            - np.einsum("rpk,pkw->rpw", chances, FEATURES)[rows[:, :, 0], asked[:, :, 0]][:, :, None]
        )
        slope = (felt[..., None] * scores).mean(axis=(1, 2))
        if how.clip:
            slope *= np.minimum(1, how.clip / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12))
        if how.adaptive:
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            slope = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        place = place + rate * slope
    logs = torch.tensor(np.einsum("pkw,rw->rpk", FEATURES, place)).softmax(-1).numpy()
    return float((logs * (reward - reward.mean(axis=1, keepdims=True))).sum(-1).mean())


def test_a_loss_over_tokens_is_divided_by_their_number():
    whole = copied(plan(rate=0.3)).proxy
    np.testing.assert_allclose(copied(plan(rate=2.4, tokens=None), tokens=8).proxy, whole, atol=1e-5)
    np.testing.assert_allclose(copied(plan(rate=2.4, tokens=8), tokens=99).proxy, whole, atol=1e-5)


# -- which samples teach whom -----------------------------------------------------------------------------------------


def noise(prompts: int = 80, weights: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features and rewards that have nothing to do with one another."""
    random = np.random.default_rng(5)
    return random.normal(size=(prompts, 8, weights)), random.normal(size=(1, prompts, 8))


def test_a_prompt_s_own_samples_do_not_teach_it():
    features, rewards = noise()
    found = rehearse(slopes_of(features), rewards, {}, plan(rate=1.0, steps=10)).proxy[0, -1]
    assert abs(found.mean()) < 2.5 * found.std() / math.sqrt(len(found))
    copies = slopes_of(np.tile(features, (4, 1, 1)))  # most have one among the others
    leaked = rehearse(copies, np.tile(rewards, (1, 4, 1)), {}, plan(rate=1.0, steps=10)).proxy[0, -1]
    assert leaked.mean() > 8 * leaked.std() / math.sqrt(len(leaked))


def test_a_first_step_knows_nothing_of_the_rewards_of_its_own_part():
    features, rewards = noise(prompts=12)
    parts = np.array_split(np.random.default_rng([7, *b"folds"]).permutation(12), 4)
    changed = rewards.copy()
    changed[0, parts[1]] *= -3
    truths = {"g": np.random.default_rng(6).normal(size=(12, 8))}
    before, after = (rehearse(slopes_of(features), each, truths, plan(steps=1), seed=7) for each in (rewards, changed))
    same = np.isclose(before.truth["g"][0, 1], after.truth["g"][0, 1], atol=1e-6)
    assert same[parts[1]].all()
    assert not same[np.concatenate([parts[0], parts[2], parts[3]])].any()


def test_what_is_no_draw_does_not_count():
    features, rewards = noise(prompts=6)
    there = np.ones((6, 8), dtype=bool)
    there[:, 5:] = False
    more = slopes_of(features[:, :5]).values
    held = Slopes(np.concatenate([more, np.full((6, 3, 40), 7, np.float32)], axis=1), share=1.0)
    cut = np.where(there, rewards, np.nan)
    for how in (plan(kl=0.1), plan(adaptive=True, rate=0.1, prompts=4)):
        whole = rehearse(held, cut, {"g": cut[0]}, how, there=there)
        part = rehearse(Slopes(more, 1.0), rewards[:, :, :5], {"g": rewards[0, :, :5]}, how)
        for mine, other in zip((whole.proxy, whole.kl, whole.ess, whole.truth["g"]),
                               (part.proxy, part.kl, part.ess, part.truth["g"]), strict=True):  # fmt: skip
            np.testing.assert_allclose(mine, other, atol=1e-5)


def test_labels_move_nothing_and_a_prompt_with_fewer_than_two_has_no_rise():
    features, rewards = noise(prompts=6)
    truth = np.random.default_rng(8).normal(size=(6, 8))
    some = truth.copy()
    some[0], some[1, 1:], some[2, 3:] = np.nan, np.nan, np.nan
    found = rehearse(slopes_of(features), rewards, {"all": truth, "some": some}, plan())
    alone = rehearse(slopes_of(features), rewards, {}, plan())
    assert np.array_equal(found.proxy, alone.proxy)
    assert np.array_equal(np.isnan(found.truth["some"][0, -1]), [True, True, False, False, False, False])
    np.testing.assert_array_equal(found.truth["some"][:, :, 3:], found.truth["all"][:, :, 3:])
    assert not found.truth["some"][:, 0, 2:].any()  # at the beginning


def test_a_prompt_without_samples_teaches_nobody_and_is_told_nothing_of():
    features, rewards = noise(prompts=9)
    there = np.ones((9, 8), dtype=bool)
    there[4], there[5, 1:] = False, False
    found = rehearse(slopes_of(features), rewards, {"g": rewards[0]}, plan(adaptive=True, prompts=4), there=there)
    for each in (found.proxy, found.kl, found.ess, found.truth["g"]):
        assert np.isnan(each[0, :, 4]).all()
        assert np.isfinite(np.delete(each, [4, 5], axis=2)).all()
    assert (found.kl[0, :, 5] == 0).all()


# -- how far it is known -----------------------------------------------------------------------------------------------


def test_what_a_prompt_teaches_is_the_other_side_of_the_inner_product():
    """Of one short step the rise is an inner product of two means, of which a prompt of one part moves the other's."""
    random = np.random.default_rng(3)
    features, truth, reward = random.normal(size=(12, 8, 20)), random.normal(size=(12, 8)), random.normal(size=(12, 8))
    found = rehearse(slopes_of(features), reward[None], {"g": truth}, plan(rate=1e-4, steps=1), folds=2, seed=4)
    climb, slope = (foresight_gradients(features, each) for each in (truth, reward))
    told = np.empty(12)
    parts = np.array_split(np.random.default_rng([4, *b"folds"]).permutation(12), 2)
    for mine, other in (parts, parts[::-1]):
        told[mine] = 1e-4 * (slope[mine] - slope[mine].mean(axis=0)) @ climb[other].mean(axis=0)
    np.testing.assert_allclose(found.taught["g"][0], told, rtol=2e-3, atol=1e-9)


def foresight_gradients(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Unbiased, a row a prompt."""
    apart = values - values.mean(axis=1, keepdims=True)
    return np.einsum("pk,pkw->pw", apart, features) / (values.shape[1] - 1)


@pytest.mark.parametrize("how", [
    plan(rate=0.05, steps=8, kl=0.05, prompts=24),
    plan(rate=0.02, steps=8, kl=0.05, prompts=24, adaptive=True, clip=1.0),
], ids=["descent", "adam"])  # fmt: skip
def test_prompts_that_teach_count_in_how_far_a_gain_is_known(how):
    """Over fresh worlds the mean rise varies as a bootstrap says that knows what prompts teach, and more than one that
    knows the prompts alone of which it is told."""
    worlds = [rise_of_a_world(seed, how) for seed in range(60)]
    value, whole, alone = (np.array(each) for each in zip(*worlds, strict=True))
    assert 0.85 < whole.mean() / value.std(ddof=1) < 1.5  # a jackknife errs to the wide side (Efron and Stein, 1981)
    assert alone.mean() < 0.8 * whole.mean()


def rise_of_a_world(seed: int, how: Recipe) -> tuple[float, float, float]:
    """Mean rise of a ground truth by itself, with its standard error by prompts as told and taught, and as told."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(48, 16, 30))
    truth = features @ np.r_[0.35, 0.35, 0.35, np.zeros(27)] + random.normal(size=(48, 16))
    found = rehearse(slopes_of(features), foresight.felt(truth)[None], {"g": truth}, how, seed=seed)
    told = found.truth["g"][0, -1]
    errors = [each.std(ddof=1) / math.sqrt(48) for each in (told + found.taught["g"][0], told)]
    return (float(told.mean()), *errors)


def test_ways_that_are_gone_one_after_the_other_are_those_gone_side_by_side(monkeypatch):
    whole = copied(plan(adaptive=True, rate=0.1, prompts=4))
    monkeypatch.setattr("rmpipe.rehearsal.HELD", 1)
    parts = copied(plan(adaptive=True, rate=0.1, prompts=4))
    for name in ("truth", "taught"):
        np.testing.assert_allclose(getattr(parts, name)["g"], getattr(whole, name)["g"], atol=1e-6)
    np.testing.assert_allclose(parts.kl, whole.kl, atol=1e-6)


# -- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [plan(), plan(adaptive=True, clip=1.0, kl=0.1, prompts=4)], ids=["descent", "adam"])
def test_where_nothing_differs_nothing_moves(how):
    features, rewards = noise(prompts=6)
    for mine, taught in ((features, np.full_like(rewards, 0.3)), (np.ones_like(features), rewards)):
        found = rehearse(slopes_of(mine), taught, {}, how)
        np.testing.assert_allclose(found.proxy, 0, atol=1e-6)
        np.testing.assert_allclose(found.kl, 0, atol=1e-6)
        np.testing.assert_allclose(found.ess, 1, atol=1e-6)


def test_two_samples_of_two_prompts_are_enough_and_fewer_are_refused():
    features, rewards = noise(prompts=2)
    found = rehearse(slopes_of(features[:, :2]), rewards[:, :, :2], {}, plan(adaptive=True, prompts=4), folds=9)
    assert np.isfinite(found.proxy).all()
    assert found.kl[0, -1].max() > 0
    with pytest.raises(StudyError, match="rollouts: prompts with two samples: 1, but two are needed"):
        rehearse(slopes_of(features[:1]), rewards[:, :1], {}, plan())


def test_a_reward_that_is_no_number_is_refused():
    features, rewards = noise(prompts=2)
    rewards[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="no number"):
        rehearse(slopes_of(features), rewards, {}, plan())


def test_a_policy_that_is_driven_to_its_end_stays_one():
    found = copied(plan(rate=1e4, steps=30))
    assert np.isfinite(found.proxy).all()
    assert found.kl.max() <= math.log(RESPONSES) + 1e-5
    assert found.ess.min() >= 1 / RESPONSES - 1e-6
