"""Racing: forecasts are right whatever few labels are asked for, the best is not dropped, and less is spent."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from pydantic import ValidationError

from rmpipe import foresight, lot, racing
from rmpipe.racing import Course, Racing, boundary, coefficients, race

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


def raced(rewards, truth, config, predictor="correlation", form="whitened", seed=0):
    """The course, and what could be said after each round."""
    course = Course([f"rm{i}" for i in range(len(rewards))], config, predictor, form, seed)

    def ask(part, left):
        return np.stack([rewards[int(name[2:]), part.start : part.stop] for name in left])

    def label(part, mask):
        return np.where(mask, truth[part.start : part.stop], np.nan)

    return course, list(race(course, config.rounds(*truth.shape), ask, label))


def told(reward, truth, predictor, form="whitened"):
    """A forecast of a reward model from all labels, in standard deviations of the ground truth within a prompt."""
    value = foresight.terms(reward, truth, form=form).of(predictor)
    return value if predictor == "correlation" else value / np.sqrt(truth.var(axis=1, ddof=1).mean())


@pytest.mark.parametrize("form", ["whitened", "group"])
@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_with_all_labels_a_forecast_is_that_of_foresight(predictor, form):
    rewards, truth = world(0, [0.8, 0.2], prompts=16)
    _, found = raced(rewards, truth, Racing(labels=SAMPLES, fewest=16), predictor, form)
    assert found[-1].values == pytest.approx([told(each, truth, predictor, form) for each in rewards], rel=1e-6)


@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_with_few_labels_it_is_right_on_average_though_they_go_where_reward_models_disagree(predictor):
    rewards, truth = world(1, [0.8, 0.5, 0.3], prompts=32)
    found = []
    for seed in range(80):
        course, standings = raced(rewards, truth, Racing(labels=2, fewest=32, tolerance=0), predictor, seed=seed)
        found.append(standings[-1].values * course.unit())
    unit = np.sqrt(truth.var(axis=1, ddof=1).mean())
    wanted = unit * np.array([told(each, truth, predictor) for each in rewards])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - wanted) < 3.5 * error).all()


@pytest.mark.parametrize("predictor", ["covariance", "correlation", "tilted"])
def test_change_is_what_a_larger_scale_does_to_the_coefficients(predictor):
    rewards = world(2, [0.5], prompts=6)[0]
    rewards -= rewards.mean(axis=2, keepdims=True)
    exact = coefficients(rewards, predictor, "whitened")
    if predictor == "tilted":
        scale = rewards.std(ddof=1)
        tilt = [np.exp(rewards / (scale * by)) for by in (1 + 1e-5, 1 - 1e-5)]
        high, low = (each / each.sum(axis=2, keepdims=True) for each in tilt)
        assert exact.change == pytest.approx(SAMPLES / (SAMPLES - 1) * (high - low) / 2e-5, abs=1e-6)
    else:
        assert exact.change == pytest.approx(-exact.values)
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


def spending(config, correlations):
    """What each of some races spent, by kind, all of them settled for the best."""
    found = []
    for seed in range(8):
        course, standings = raced(*world(seed, correlations, prompts=480), config, seed=seed)
        assert (standings[-1].outcome, standings[-1].leader) == ("settled", "rm0")
        found.append(course.spent())
    return {kind: np.mean([each[kind] for each in found]) for kind in ("samples", "labels", "scored")}


def test_predicting_the_labels_that_it_does_not_ask_for_spares_a_race_some_of_them(monkeypatch):
    spent = [spending(Racing(tolerance=0), [0.8, 0.68, 0.2, 0.0])]
    monkeypatch.setattr(Course, "_expected", lambda self, rewards: np.zeros(rewards.shape[1:]))
    spent.append(spending(Racing(tolerance=0), [0.8, 0.68, 0.2, 0.0]))
    assert spent[0]["labels"] < 0.85 * spent[1]["labels"]


def test_where_two_are_close_and_the_others_are_not_few_scores_go_to_the_others():
    spent = spending(Racing(labels=SAMPLES, tolerance=0), [0.72, 0.64, *[0.0] * 14])
    assert spent["scored"] < 0.5 * 16 * spent["samples"]


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
    answer = racing.answer(course, found[-1], (120, SAMPLES))
    assert (answer["outcome"], answer["left"]) == ("tied", ["rm0", "rm1"])
    first = answer["winner"]
    other = {"rm0": "rm1", "rm1": "rm0"}[first]
    said = f"{first} and {other} are not told apart by the correlation of rewards with labels; taking {first} loses at"
    assert answer["sentence"].startswith(f"{said} most 0.0")


def test_a_race_that_ends_too_early_says_who_is_still_in_question_and_what_may_be_lost():
    course, found = raced(*world(7, [0.5, 0.48, 0.45], prompts=64), Racing())
    answer = json.loads(json.dumps(racing.answer(course, found[-1], (500, SAMPLES))))
    assert answer["outcome"] == "open"
    assert answer["loss"] > 0.05
    assert answer["sentence"].startswith("Not settled: rm")
    assert answer["spent"] == {
        "prompts": 64, "samples": 64 * SAMPLES, "labels": 256, "scored": 3 * 64 * SAMPLES,
        "scored_by": dict.fromkeys(("rm0", "rm1", "rm2"), 64 * SAMPLES),
    }  # fmt: skip
    assert answer["pool"] == {"prompts": 500, "samples": 8_000, "labels": 8_000, "scored": 24_000}
    cost = "after 1,024 samples, 256 labels and 3,072 scores; a forecast without a race takes 8,000, 8,000 and 24,000."
    assert answer["sentence"].endswith(cost)


@pytest.mark.parametrize("label", [0.0, 0.3])  # 0.3 three times is not 0.9 but for rounding
def test_labels_that_are_all_alike_end_no_race_and_are_said_to_tell_nothing(label):
    rewards, truth = world(9, [0.5, 0.4, 0.3], prompts=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        course, found = raced(rewards, np.full_like(truth, label), Racing())
        answer = json.loads(json.dumps(racing.answer(course, found[-1], (40, SAMPLES)), allow_nan=False))
    assert (found[-1].prompts, answer["outcome"], answer["winner"], answer["loss"]) == (40, "open", None, None)
    assert answer["left"] == ["rm0", "rm1", "rm2"]
    assert answer["sentence"].startswith("Not settled: the labels of each prompt are all alike, so that they tell")


def test_of_a_ground_truth_that_is_seldom_right_nobody_is_chosen_before_it_was_seen_to_be():
    ended = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        truth = (random.random((320, SAMPLES)) < 0.004).astype(float)
        rewards = random.normal(size=(3, *truth.shape))
        rewards[1] = truth + 0.1 * rewards[1]
        course, found = raced(rewards, truth, Racing(), seed=seed)
        if found[-1].outcome != "running":
            ended += 1
            assert found[-1].leader == "rm1"
            assert np.nansum(np.concatenate(course.labels)) >= 10
        else:
            assert "too few labels to say" in racing.answer(course, found[-1], (320, SAMPLES))["sentence"]
    assert 0 < ended < 12


def test_the_error_of_the_unit_is_in_the_intervals():
    values, errors, beside = [], [], []
    for seed in range(150):
        random = np.random.default_rng(seed)
        truth = random.normal(size=(64, SAMPLES)) * np.exp(random.normal(size=(64, 1)) / 2)
        rewards = (truth + random.normal(size=truth.shape))[None]
        course = Course(["rm0"], Racing(labels=SAMPLES), "covariance", "whitened", 0)
        found = course.add(rewards, truth, lot.chances(np.ones_like(truth), SAMPLES))
        values.append(found.values[0])
        errors.append(course._parts(("rm0",))[0].std(ddof=1) / 8)
        beside.append((coefficients(rewards, "covariance", "whitened").values[0] * truth).sum(axis=1).std() / 8)
    assert 0.8 < np.std(values) / np.mean(errors) < 1.25
    assert np.mean(beside) > 1.5 * np.std(values)  # what it would be thought to be, were the units known


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
    assert Racing(prompts=8, budget=50, labels=8, responses=5).rounds(20, 16)[-1].stop == 10  # nor more than are drawn
    assert [Racing(responses=5).samples(most) for most in (4, 16)] == [4, 5]


@pytest.mark.parametrize(
    "wrong", [{"labels": 1}, {"responses": 1}, {"level": 0.5}, {"floor": 0}, {"tolerance": -1}, {"rounds": 3}]
)
def test_a_race_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Racing(**wrong)
