"""Forecasts: the formula that an algorithm implies, ranks with ties, refusals, and gains in reward units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmpipe import foresight
from rmpipe.adapter import Lora
from rmpipe.algorithm import Optimiser
from rmpipe.calibration import Calibrator
from rmpipe.forecast import Candidate, Formula, foretold, formula
from rmpipe.foreseeing import Foreseeing
from rmpipe.interval import t_interval
from rmpipe.reinforcement import Grpo, Rloo
from rmpipe.study import Sampling

PLACE = {"truth": "people", "policy": "weak", "algorithm": "rloo"}
TILTED = Formula("whitened", "tilted", "tilted", "tilted_proxy", "why")
CORRELATED = Formula("whitened", "correlation", "correlation", "variance", "why")
CONFIG = Foreseeing(draws=400)
SAMPLING = Sampling()


def sgd(clip: float = 0) -> Optimiser:
    return Optimiser(name="sgd", learning_rate=1e-3, clip=clip)


ADAMW = Optimiser(name="adamw", learning_rate=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (Rloo(steps=1, optimiser=sgd()), ("whitened", "tilted")),
        (Rloo(steps=1, optimiser=sgd(clip=1)), ("whitened", "ip_free")),
        (Rloo(steps=1, optimiser=sgd(), normalise_advantages=True), ("whitened", "ip_free")),
        (Rloo(steps=1, optimiser=ADAMW), ("whitened", "ip_free")),
        (Grpo(steps=1, optimiser=ADAMW), ("group", "ip_free")),
        (Grpo(steps=1, optimiser=sgd()), ("group", "tilted")),
        (Grpo(steps=1, optimiser=sgd(), scale_rewards="none"), ("whitened", "tilted")),
        (Grpo(steps=1, optimiser=sgd(), scale_rewards="batch"), ("whitened", "ip_free")),
    ],
)
def test_the_rule_follows_from_what_undoes_the_spread_of_rewards(algorithm: Any, expected: tuple[str, str]):
    said = formula(algorithm, SAMPLING)
    assert (said.felt, said.rule) == expected
    assert said.why


def test_where_gradients_may_be_taken_rlhf_is_rehearsed_as_far_as_a_rehearsal_follows_it():
    followed, not_followed = Rloo(steps=1, optimiser=ADAMW), Rloo(steps=1, optimiser=ADAMW, normalise_advantages=True)
    assert (formula(followed, SAMPLING).predictor, formula(followed, SAMPLING).proxy) == (
        "rehearsed",
        "rehearsed_proxy",
    )
    assert formula(not_followed, SAMPLING).predictor == "ip_free"
    assert formula(followed, Sampling(temperature=0.7)).predictor == "ip_free"  # other samples than RLHF draws
    assert formula(followed, Sampling(max_new_tokens=8)).predictor == "ip_free"
    assert "max_new_tokens = 8, and RLHF's by 64; set them alike" in formula(followed, Sampling(max_new_tokens=8)).why
    adapted = Rloo(steps=1, optimiser=ADAMW, adapter=Lora())
    assert formula(adapted, SAMPLING).predictor == "correlation"  # gradients of all weights tell nothing of it


def test_without_gradients_the_correlation_stands_in():
    assert formula(Rloo(steps=1, optimiser=ADAMW), SAMPLING, gradients=False).predictor == "correlation"
    assert formula(Rloo(steps=1, optimiser=sgd()), SAMPLING, gradients=False).predictor == "tilted"


# -- rows -------------------------------------------------------------------------------------------------------------


def truth(prompts: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(prompts, 16))


def candidate(name: str, rewards: np.ndarray, labels: np.ndarray, seed: int = 1) -> Candidate:
    about = {"reward_model": name, "kind": "truth", "trained": False}
    terms = {seed: foresight.terms(rewards, labels)}
    return Candidate(about, terms, terms)


def told(models: dict[str, np.ndarray], labels: np.ndarray, said: Formula = TILTED, **more: Any) -> dict[str, Any]:
    own = {1: foresight.terms(labels, labels)}
    config = more.pop("config", CONFIG)
    candidates = [candidate(name, rewards, labels) for name, rewards in models.items()]
    prompts = {1: [str(row) for row in range(len(labels))]}
    return {row["reward_model"]: row for row in foretold(PLACE, said, candidates, own, prompts, config, **more)}


def test_the_ground_truth_itself_teaches_one_share_of_itself():
    labels = truth()
    rows = told({"itself": labels, "against": -labels}, labels)
    assert rows["itself"]["forecast"]["value"] == pytest.approx(1)
    assert rows["itself"]["rank"] == "1"
    assert rows["against"]["forecast"]["high"] < 0


def test_a_scale_free_forecast_does_not_feel_an_offset_a_prompt_and_the_other_does():
    labels = truth()
    offset = labels + 5 * np.random.default_rng(3).normal(size=(len(labels), 1))
    free, feeling = (told({"offset": offset}, labels, said)["offset"] for said in (CORRELATED, TILTED))
    assert free["forecast"]["value"] == pytest.approx(1)
    assert feeling["forecast"]["value"] < 0.5


def test_those_that_the_prompts_do_not_part_share_a_rank():
    labels, noise = truth(), np.random.default_rng(5).normal(size=(2, 60, 16))
    rows = told({"one": labels + noise[0], "other": labels + noise[1], "none": noise[0]}, labels)
    assert rows["one"]["rank"] == rows["other"]["rank"] == "1="
    assert rows["none"]["rank"] == "3"
    few = told({"one": labels[:12] + noise[0, :12], "none": noise[0, :12]}, labels[:12])
    wide, narrow = (each["one"]["forecast"] for each in (few, rows))
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_intervals_of_a_pair_are_of_the_same_prompts():
    """A model and its copy with a little less of everything differ by less than either is uncertain."""
    labels = truth(prompts=15)
    noise = np.random.default_rng(5).normal(size=labels.shape)
    rows = told({"better": labels + 2 * noise, "worse": labels + 2.3 * noise}, labels, CORRELATED)
    assert rows["better"]["forecast"]["low"] < rows["worse"]["forecast"]["high"]
    assert (rows["better"]["rank"], rows["worse"]["rank"]) == ("1", "2")


def test_with_too_few_labelled_prompts_nothing_is_foretold():
    labels = np.where(np.arange(60)[:, None] < 9, truth(), np.nan)
    rows = told({"itself": np.nan_to_num(labels)}, labels)
    assert rows["itself"]["forecast"] is None
    assert rows["itself"]["rank"] == "?"
    assert "9 prompts have two labelled responses or more, and 10 are needed" in rows["itself"]["refused"]


def test_labels_that_do_not_differ_foretell_nothing():
    labels = np.zeros((60, 16))
    labels[0, 0] = 1
    assert "not told from nothing" in told({"some": truth()}, labels)["some"]["refused"]
    assert "all alike" in told({"some": truth()}, 0 * labels)["some"]["refused"]


def test_a_tilted_policy_that_rests_on_few_samples_is_refused_by_name():
    labels = truth()
    rare = np.where(labels == labels.max(axis=1, keepdims=True), 30.0, 0.0)
    rows = told({"rare": rare, "itself": labels}, labels, config=Foreseeing(draws=400, least_share=0.9))
    assert "of 16 samples a prompt, of which" in rows["rare"]["refused"]
    assert "take outliers off its rewards" in rows["rare"]["refused"]


@pytest.mark.parametrize("samples", [2, 4, 16])
def test_one_that_goes_as_far_is_refused_however_few_samples_a_prompt_has(samples: int):
    labels = truth(prompts=400)[:, :samples]
    far, near = (foresight.terms(scale * labels, labels, form="plain") for scale in (3.0, 0.5))
    about = {"kind": "truth", "trained": False}
    each = [Candidate(about | {"reward_model": name}, {1: terms}, {1: terms})
            for name, terms in {"far": far, "near": near}.items()]  # fmt: skip
    rows = foretold(PLACE, TILTED, each, {1: near}, {1: list(map(str, range(400)))}, CONFIG)
    assert {row["reward_model"]: bool(row["refused"]) for row in rows} == {"far": True, "near": False}


def test_variance_and_correlation_are_of_whitened_rewards_however_they_are_felt():
    labels = truth()
    offset = labels + 5 * np.random.default_rng(3).normal(size=(len(labels), 1))
    forms = [{1: foresight.terms(offset, labels, form=form)} for form in ("group", "whitened")]
    said = Formula("group", "correlation", "correlation", "variance", "why")
    own = {1: foresight.terms(labels, labels, form="group")}
    about = {"reward_model": "offset", "kind": "truth", "trained": False}
    (row,) = foretold(PLACE, said, [Candidate(about, *forms)], own, {1: list(map(str, range(60)))}, CONFIG)
    assert row["variance"]["value"] == pytest.approx(forms[1][1].of("variance"))
    assert row["variance"]["value"] < 0.1 < 0.9 < row["proxy"]["value"]


def test_prompts_that_several_seeds_share_are_no_more_prompts_for_that():
    labels, noise = truth(), np.random.default_rng(5).normal(size=(60, 1))
    terms = foresight.terms(labels * np.exp(0.4 * noise), labels)  # what differs, differs by prompt
    about = {"reward_model": "one", "kind": "truth", "trained": False}
    widths = []
    for asked in (["a"] * 3, ["a", "b", "c"]):
        prompts = {seed: [f"{name} {row}" for row in range(60)] for seed, name in enumerate(asked)}
        each = dict.fromkeys(prompts, terms)
        own = dict.fromkeys(prompts, foresight.terms(labels, labels))
        (row,) = foretold(PLACE, CORRELATED, [Candidate(about, each, each)], own, prompts, Foreseeing(draws=4000))
        widths.append(row["covariance"]["high"] - row["covariance"]["low"])
    assert widths[0] / widths[1] == pytest.approx(3**0.5, rel=0.15)


# -- calibrated -------------------------------------------------------------------------------------------------------


def test_one_run_that_was_paid_for_turns_forecasts_into_gains_and_curves():
    labels = truth()
    noise = np.random.default_rng(5).normal(size=labels.shape)
    gains = 0.6 + 0.1 * np.random.default_rng(6).normal(size=40)
    paid = {"itself": Calibrator([gains], [0, 10, 20], [[0.1, 0.5, 0.7]])}
    rows = told({"itself": labels, "noisy": labels + noise}, labels, CORRELATED, calibrators=paid)
    other = rows["noisy"]
    expected = gains.mean() * other["forecast"]["value"]
    assert other["gain_foretold"]["value"] == pytest.approx(expected)
    assert other["gain_foretold"]["low"] < expected < other["gain_foretold"]["high"]
    assert other["curve_foretold"]["steps"] == [0, 10, 20]
    assert other["curve_foretold"]["gain"] == pytest.approx([0, expected * 0.4 / 0.6, expected])
    assert rows["itself"]["calibrates"]
    assert not other["calibrates"]
    said = "gains are scaled by what RLHF on itself did gain over one seed's prompts; their intervals do not hold how"
    assert {row["scaling"] for row in rows.values()} == {f"{said} far seeds differ"}


def test_gains_hold_how_far_the_seeds_differ_that_were_paid_for():
    labels = truth()
    gains = [np.full(40, value) for value in (0.5, 0.6, 0.7)]  # which prompts alone would not tell
    paid = {"itself": Calibrator(gains, [0, 10], [[0.0, 0.6]] * 3)}
    row = told({"itself": labels}, labels, calibrators=paid)["itself"]
    expected = t_interval([0.5, 0.6, 0.7])
    assert row["gain_foretold"]["low"] == pytest.approx(expected.low, abs=0.02)
    assert row["gain_foretold"]["high"] == pytest.approx(expected.high, abs=0.02)
    assert row["scaling"].endswith("did gain over 3 seeds; their intervals hold how far seeds differ")


def test_a_run_that_gained_nothing_calibrates_nobody_and_that_is_said():
    labels = truth()
    gains = np.random.default_rng(6).normal(size=40)
    paid = {"itself": Calibrator([gains - gains.mean()], [0, 10], [[0.0, 0.0]])}
    row = told({"itself": labels}, labels, calibrators=paid)["itself"]
    assert "gain_foretold" not in row
    assert row["scaling"] == (
        "gains are not scaled: what RLHF on itself gained is not told from nothing over one seed's prompts"
    )


def test_where_what_was_paid_for_is_refused_or_elsewhere_that_is_said_of_every_row():
    labels = truth()
    rare = np.where(labels == labels.max(axis=1, keepdims=True), 30.0, 0.0)
    config = Foreseeing(draws=400, least_share=0.9, calibrate=("rare",))
    paid = {"rare": Calibrator([np.full(40, 0.5)], [0, 10], [[0.0, 0.5]])}
    models = {"rare": rare, "small": 0.1 * labels}
    refused, elsewhere = (told(models, labels, config=config, calibrators=each) for each in (paid, {}))
    said = {row["scaling"] for row in refused.values()}, {row["scaling"] for row in elsewhere.values()}
    assert said == (
        {"gains are not scaled: nothing is foretold of rare"},
        {"gains are not scaled: the grid has no RLHF on rare here"},
    )
    assert "scaling" not in told(models, labels, config=config)["rare"]
