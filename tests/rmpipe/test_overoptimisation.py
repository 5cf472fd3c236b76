"""Going too far: a turn that is known is found, one that is not there is not, and both with honest intervals."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from rmpipe import overoptimisation
from rmpipe.interval import t_interval
from rmpipe.overoptimisation import answer, judged, ratio, since_peak, turning

STEPS = list(range(0, 90, 10))
ENDS = r"\[[^\]]*\]"
LOSES = rf"loses 0\.4\d {ENDS} sd of ground truth by step 80"
NONE = "the ground truth is not seen to turn"


def runs(
    random: np.random.Generator, gain: Any, count: int = 3, noise: float = 0.0, unlike: float = 0.0, far: float = 16.0
) -> tuple[np.ndarray, np.ndarray]:
    """KL and ground truth of some runs, (runs, looks): what `gain` says of the root of the KL, and noise.

    Args:
        unlike: how much heights, and how far they go, differ between runs.
    """
    kl = np.linspace(0, 1, len(STEPS)) ** 1.2 * far * np.exp(random.normal(0, unlike, (count, 1)))
    heights = gain(np.sqrt(kl)) * (1 + random.normal(0, unlike, (count, 1)))
    noises = random.normal(0, noise, kl.shape) * (np.arange(len(STEPS)) > 0)
    return kl, heights + noises


def bent(d: np.ndarray) -> np.ndarray:
    """It is highest at d = 2.5: a KL of 6.25."""
    return d * (1 - 0.2 * d)


def outcomes(gain: Any, noise: float, draws: int = 300, **more: Any) -> dict[str, float]:
    """The share of each outcome."""
    random, found = np.random.default_rng(0), []
    for _ in range(draws):
        kl, truth = runs(random, gain, noise=noise, **more)
        found.append(judged(STEPS, kl, truth, truth)["outcome"])
    return {name: found.count(name) / draws for name in overoptimisation.OUTCOMES}


def curves(gain: Any, name: str = "off", noise: float = 0.01, **more: Any) -> list[dict[str, Any]]:
    """As an answer holds them; the proxy rises with the root of the KL."""
    kl, truth = runs(np.random.default_rng(1), gain, noise=noise)
    names = {"policy": "weak", "algorithm": "rloo", "reward_model": name, "steps": STEPS}
    return [
        names | {"seed": seed, "kl": x.tolist(), "proxy": np.sqrt(x).tolist(), "truth": y.tolist()} | more
        for seed, (x, y) in enumerate(zip(kl, truth, strict=True))
    ]


def test_a_known_turning_point_is_found_where_it_is():
    kl, truth = runs(np.random.default_rng(0), bent)
    assert turning(kl, truth).value == pytest.approx(6.25)
    told = judged(STEPS, kl, np.sqrt(kl), truth)
    assert told["outcome"] == "turns"
    assert (told["peak"]["step"], told["end"]["step"]) == (40, 80)
    assert told["fall"]["value"] == pytest.approx(truth[0, 4] - truth[0, -1])
    assert told["meanwhile"]["value"] == pytest.approx(np.sqrt(kl[0, -1]) - np.sqrt(kl[0, 4]))


@pytest.mark.parametrize(("count", "low", "high"), [(3, 0.91, 0.99), (5, 0.91, 0.99)])
def test_the_interval_of_the_turn_covers_it_as_often_as_it_says(count, low, high):
    random, covered = np.random.default_rng(0), []
    for _ in range(400):
        found = turning(*runs(random, bent, count, noise=0.1, unlike=0.15))
        covered.append(not math.isfinite(found.low) or found.low <= 6.25 <= found.high)
    assert low <= np.mean(covered) <= high


def test_noise_alone_is_seldom_taken_for_a_turn():
    assert outcomes(lambda d: 0 * d, noise=0.3)["turns"] < 0.06  # 0.025 of an interval, were its look not chosen
    random = np.random.default_rng(0)
    naive = []
    for _ in range(300):  # what the same curves would say if each fell from its own highest look
        _, truth = runs(random, lambda d: 0 * d, noise=0.3)
        naive.append(t_interval(truth.max(axis=1) - truth[:, -1]).low > 0)
    assert np.mean(naive) > 0.15


def test_what_only_rises_is_not_said_to_turn_and_levels_are_not_settled():
    rising = outcomes(lambda d: 0.5 * d, noise=0.1)
    assert rising["has not turned"] > 0.8
    assert rising["turns"] < 0.02
    assert outcomes(lambda d: 1 - np.exp(-2 * d), noise=0.1)["not settled"] > 0.85


def test_a_fall_beyond_the_noise_is_a_turn():
    assert outcomes(lambda d: bent(1.2 * d), noise=0.05)["turns"] > 0.95


def test_a_single_run_settles_nothing():
    kl, truth = runs(np.random.default_rng(0), bent, count=1)
    told = judged(STEPS, kl, truth, truth)
    assert told["outcome"] == "not settled"
    assert told["fall"]["low"] is None
    assert told["turn"] is None


def test_a_turn_beyond_what_was_looked_at_is_not_told():
    kl, truth = runs(np.random.default_rng(0), bent, far=5.0)
    told = judged(STEPS, kl, truth, truth)
    assert told["outcome"] == "has not turned"
    assert told["turn"] is None


def test_a_run_falls_from_the_look_at_which_the_others_are_highest():
    truth = np.array([[0.0, 9.0, 1.0, 0.5], [0.0, 1.0, 3.0, 1.0], [0.0, 1.0, 3.0, 2.0]])
    assert since_peak(truth, truth).value == pytest.approx(np.mean([1 - 0.5, 1 - 1, 1 - 2]))


def test_fiellers_interval_covers_a_ratio_and_has_no_ends_where_the_divisor_may_be_0():
    random, covered = np.random.default_rng(0), []
    for _ in range(1000):
        b = random.normal(2, 0.3, 4)
        found = ratio(3 * b + random.normal(0, 0.5, 4), b)
        covered.append(found.low <= 3 <= found.high)
    assert 0.93 < np.mean(covered) < 0.97
    unsure = ratio([1.0, 2.0, 3.0], [-1.0, 0.5, 1.0])
    assert math.isnan(unsure.low)
    assert math.isnan(unsure.high)


@pytest.mark.parametrize(
    ("gain", "more", "said"),
    [
        (bent, {}, rf"off turns at step 40, KL 6\.96 \(fitted 6\.\d\d {ENDS}\), and {LOSES}: stop there, or raise "
                   "kl_coefficient"),
        (bent, {"proxy": [0, 1, 2, 3, 4, 3, 2, 1, 0]},
         ".*: stop there, or lower the learning rate, since its own reward falls too"),
        (lambda d: -0.1 * d, {}, f"off {LOSES}, from the start: do not teach with it"),
        (lambda d: d, {}, f"{NONE}; off has not turned: go on"),
        (lambda d: 0 * d, {}, f"{NONE}; not settled of off: run more seeds, or look more often"),
    ],
)  # fmt: skip
def test_the_sentence_says_where_what_is_lost_and_what_to_do(gain, more, said):
    (sentence,) = answer(curves(gain, **more))["sentences"]
    assert re.fullmatch(rf"weak, rloo: {said}\.", sentence), sentence


def test_reward_models_are_told_apart_and_kept_in_their_order():
    told = answer([*curves(lambda d: d, "good"), *curves(bent, "bad"), *curves(lambda d: d, "fine")])
    assert [(row["reward_model"], row["outcome"], row["seeds"]) for row in told["rows"]] == [
        ("good", "has not turned", 3), ("bad", "turns", 3), ("fine", "has not turned", 3)]  # fmt: skip
    assert told["sentences"][0].endswith("; good and fine have not turned: go on.")


def test_without_a_ground_truth_nothing_is_told():
    without = [{key: value for key, value in curve.items() if key != "truth"} for curve in curves(bent)]
    assert answer(without) == {"rows": [], "sentences": [overoptimisation.UNKNOWN]}


def test_runs_of_unlike_length_are_told_as_far_as_the_shortest_goes():
    mine = curves(bent)
    for name in ("steps", "kl", "proxy", "truth"):
        mine[1][name] = mine[1][name][:4]
    (row,) = answer(mine)["rows"]
    assert (row["looks"], row["end"]["step"], row["outcome"]) == (4, 30, "has not turned")
