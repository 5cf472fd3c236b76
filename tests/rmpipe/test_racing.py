"""Racing: forecasts are right whatever few labels are asked for, the best is not dropped, and less is spent."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from pydantic import ValidationError

from rmpipe import racing
from rmpipe.racing import Course, Racing, boundary, race, slopes

SAMPLES = 16


def world(seed, correlations, prompts=160, tails=None):
    """Rewards of reward models that correlate so with the ground truth within prompts, and the ground truth."""
    random = np.random.default_rng(seed)
    shape = (prompts, SAMPLES)
    draw = random.standard_normal if tails is None else lambda size: random.standard_t(tails, size=size)
    truth, common = draw(shape), random.standard_normal(shape)
    own = draw((len(correlations), *shape))
    along = np.asarray(correlations)[:, None, None]
    noise = np.sqrt((1 - along**2) / 2) * (common + own)
    scale = np.exp(random.standard_normal((prompts, 1)) / 3)
    offset = random.standard_normal((len(correlations), prompts, 1))
    return (along * truth + noise) * scale + offset, truth * scale + random.standard_normal((prompts, 1))


def raced(rewards, truth, config, predictor="correlation", felt="whitened", seed=0):
    """The course, and what could be said after each round."""
    course = Course([f"rm{i}" for i in range(len(rewards))], config, predictor, felt, seed)

    def ask(part, left):
        return np.stack([rewards[int(name[2:]), part.start : part.stop] for name in left])

    def label(part, mask):
        return np.where(mask, truth[part.start : part.stop], np.nan)

    return course, list(race(course, config.rounds(*truth.shape), ask, label))


def by_hand(reward, truth, predictor, felt):
    """A forecast of a reward model from all labels."""
    centred = truth - truth.mean(axis=1, keepdims=True)
    if felt == "group":
        reward = reward / reward.std(axis=1, ddof=1, keepdims=True)
    if predictor == "correlation":
        scale = np.sqrt(reward.var(axis=1, ddof=1).mean())
    else:
        scale = reward.std() if felt == "whitened" else 1.0
    if predictor == "tilted":
        weights = np.exp(reward / scale)
        value = ((weights * centred).sum(axis=1) / weights.sum(axis=1)).mean()
    else:
        value = (reward * centred).sum(axis=1).mean() / (SAMPLES - 1) / scale
    return value / np.sqrt(truth.var(axis=1, ddof=1).mean())


@pytest.mark.parametrize("felt", ["whitened", "group"])
@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_with_all_labels_a_forecast_is_the_formula(predictor, felt):
    rewards, truth = world(0, [0.8, 0.2], prompts=16)
    _, found = raced(rewards, truth, Racing(labels=SAMPLES, fewest=16), predictor, felt)
    assert found[-1].values == pytest.approx([by_hand(each, truth, predictor, felt) for each in rewards])


@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_with_few_labels_it_is_right_on_average_though_they_go_where_reward_models_disagree(predictor):
    rewards, truth = world(1, [0.8, 0.5, 0.3], prompts=32)
    told = []
    for seed in range(80):
        course, found = raced(rewards, truth, Racing(labels=2, fewest=32, tolerance=0), predictor, seed=seed)
        told.append(found[-1].values * course.unit())
    unit = np.sqrt(truth.var(axis=1, ddof=1).mean())
    wanted = unit * np.array([by_hand(each, truth, predictor, "whitened") for each in rewards])
    error = np.std(told, axis=0) / np.sqrt(len(told))
    assert (np.abs(np.mean(told, axis=0) - wanted) < 3.5 * error).all()


@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_change_is_what_a_larger_scale_does_to_the_slopes(predictor):
    rewards = world(2, [0.5], prompts=6)[0]
    rewards -= rewards.mean(axis=2, keepdims=True)
    exact = slopes(rewards, predictor, "whitened")
    if predictor == "tilted":
        scale = np.sqrt((rewards**2).mean())
        tilt = [np.exp(rewards / (scale * by)) for by in (1 + 1e-5, 1 - 1e-5)]
        high, low = (each / each.sum(axis=2, keepdims=True) for each in tilt)
        assert exact.change == pytest.approx((high - low) / 2e-5, abs=1e-6)
    else:
        assert exact.change == pytest.approx(-exact.slopes)
    assert exact.spread.mean() == pytest.approx(1)


def test_the_units_of_a_reward_do_not_matter_and_a_constant_one_foretells_nothing():
    rewards, truth = world(3, [0.7, 0.4, 0.0], prompts=24)
    rewards[2] = 5.0
    others = rewards * np.array([1.0, 1000.0, 1.0])[:, None, None] + np.array([0.0, -50.0, 0.0])[:, None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [raced(each, truth, Racing(tolerance=0))[1] for each in (rewards, others)]
    assert found[0][-1].values == pytest.approx(found[1][-1].values)
    assert found[0][0].values[2] == 0


def test_a_mean_seldom_leaves_its_boundary_at_any_time():
    random, error, runs = np.random.default_rng(4), 0.05, 600
    prompts = np.arange(24, 1000, 8)
    ends = np.array([boundary(int(n), error) for n in prompts])
    assert (np.diff(ends) < 0).all()
    sums = random.standard_normal((runs, 1000)).cumsum(axis=1)[:, prompts - 1]
    beyond = (sums / prompts > ends).any(axis=1).mean()
    fixed = (sums / np.sqrt(prompts) > 1.645).any(axis=1).mean()
    assert beyond <= 0.05 < 0.2 < fixed  # what looking again and again does to an interval made for one look


@pytest.mark.parametrize("tails", [None, 4])
def test_the_best_is_dropped_in_no_more_races_than_the_level_says(tails):
    lost = 0
    for seed in range(40):
        rewards, truth = world(seed, [0.5] * 6, prompts=96, tails=tails)
        _, found = raced(rewards, truth, Racing(labels=3, tolerance=0), seed=seed)
        lost += "rm0" not in found[-1].left
    assert lost <= 4  # 2 are expected at the most


def spending(labels, correlations):
    """Of races and of pools that settle as much: labels, and scores."""
    told = []
    for seed in range(6):
        rewards, truth = world(seed, correlations, prompts=400)
        course, found = raced(rewards, truth, Racing(labels=labels, tolerance=0), seed=seed)
        answer = racing.answer(course, found[-1])
        assert (answer["outcome"], answer["winner"]) == ("settled", "rm0")
        told.append([[answer[side][name] for name in ("labels", "scored")] for side in ("spent", "uniform")])
    return np.mean(told, axis=0)


def test_the_best_is_found_with_fewer_labels_than_a_pool_takes():
    (labels, _), (in_pool, _) = spending(4, [0.8, 0.5, 0.3, 0.2, 0.1, 0.0, -0.2, -0.4])
    assert labels < 0.75 * in_pool


def test_where_two_are_close_and_the_others_are_not_fewer_scores_find_it_than_a_pool_takes():
    (_, scored), (_, in_pool) = spending(SAMPLES, [0.72, 0.64, *[0.0] * 14])
    assert scored < 0.8 * in_pool


def test_what_a_pool_would_take_is_told_alike_from_few_labels_and_from_all():
    found = []
    for labels in (3, SAMPLES):
        pools = []
        for seed in range(8):
            course, told = raced(*world(seed, [0.7, 0.5], prompts=240), Racing(labels=labels, tolerance=0), seed=seed)
            course.left = course.names
            pools.append(course.uniform(told[-1].leader))
        found.append(np.mean(pools))
    assert 0.6 < found[0] / found[1] < 1.6


def test_what_is_dropped_is_scored_no_more():
    rewards, truth = world(5, [0.8, 0.7, -0.8], prompts=200)
    course, found = raced(rewards, truth, Racing(tolerance=0))
    dropped = next(each for each in found if "rm2" not in each.left)
    assert dropped.prompts < found[-1].prompts
    assert course.spent()["scored_by"]["rm2"] == dropped.prompts * SAMPLES
    gone = [row for each in found for row in each.rows() if row["reward_model"] == "rm2"]
    assert gone[-1]["dropped"]
    assert gone[-1]["behind_low"] > 0
    assert len(gone) == found.index(dropped) + 1


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_twins_are_tied_and_said_to_be(tolerance):
    rewards, truth = world(6, [0.8, 0.2], prompts=120)
    course, found = raced(np.stack([rewards[0], rewards[0] * 3 + 1, rewards[1]]), truth, Racing(tolerance=tolerance))
    answer = racing.answer(course, found[-1])
    assert (answer["outcome"], answer["left"]) == ("tied", ["rm0", "rm1"])
    first = answer["winner"]
    other = {"rm0": "rm1", "rm1": "rm0"}[first]
    said = f"{first} and {other} are not told apart by the correlation of rewards with labels; taking {first} loses at"
    assert answer["sentence"].startswith(f"{said} most 0.0")


def test_a_race_that_ends_too_early_says_who_is_still_in_question_and_what_may_be_lost():
    course, found = raced(*world(7, [0.5, 0.48, 0.45], prompts=24), Racing())
    answer = json.loads(json.dumps(racing.answer(course, found[-1])))
    assert answer["outcome"] == "open"
    assert answer["uniform"] is None
    assert answer["loss"] > 0.05
    assert answer["sentence"].startswith("Not settled: rm")
    assert answer["spent"] == {
        "prompts": 24, "samples": 24 * SAMPLES, "labels": 96, "scored": 3 * 24 * SAMPLES,
        "scored_by": dict.fromkeys(("rm0", "rm1", "rm2"), 24 * SAMPLES),
    }  # fmt: skip


def test_what_rewards_tell_of_the_ground_truth_steadies_what_few_labels_say(monkeypatch):
    rewards, truth = world(8, [0.9, 0.6], prompts=80)
    centred = truth - truth.mean(axis=1, keepdims=True)

    def off():
        course, _ = raced(rewards, truth, Racing(labels=2, tolerance=0, fewest=80))
        return ((np.concatenate(course.truth) - centred)[8:] ** 2).mean()

    learnt = off()
    monkeypatch.setattr(Course, "_expected", lambda self, rewards: np.zeros(rewards.shape[1:]))
    assert learnt < 0.5 * off()


def test_labels_go_where_reward_models_disagree():
    rewards = np.zeros((2, 1, SAMPLES))
    rewards[:, 0, 0], rewards[:, 0, 1], rewards[0, 0, 2] = 1.0, -1.0, 0.1
    course = Course(["rm0", "rm1"], Racing(floor=0.1), "correlation", "whitened", 0)
    rewards[0, 0, 3], rewards[1, 0, 3] = 3.0, -3.0
    odds = course.odds(rewards)[0]
    assert odds.argmax() == 3
    assert odds.min() >= 0.1


def test_rounds_end_with_the_prompts_or_with_the_labels_that_may_be_spent():
    assert Racing(prompts=8).rounds(20, 16) == [range(8), range(8, 16), range(16, 20)]
    assert Racing(prompts=8, budget=50).rounds(20, 16)[-1].stop == 12  # of 4 labels each
    assert Racing(prompts=8, budget=50).rounds(20, 2)[-1].stop == 20  # there are but 2 to label


@pytest.mark.parametrize("wrong", [{"labels": 1}, {"level": 0.5}, {"floor": 0}, {"tolerance": -1}, {"rounds": 3}])
def test_a_race_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Racing(**wrong)
