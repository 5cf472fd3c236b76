"""The forecast stage: which samples, labels and runs it reads for what."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.foreseeing import Foreseeing
from rmpipe.rehearsal import Rehearsed
from rmpipe.slopes import Slopes
from tasks.forecast import forecast, key, lesson, pool
from tasks.rehearse import OWN

TILTED = {"felt": "whitened", "predictor": "tilted", "rule": "tilted", "proxy": "tilted_proxy", "why": "so"}
REHEARSED = TILTED | {"predictor": "rehearsed", "proxy": "rehearsed_proxy"}


def scores(rewards: np.ndarray) -> Any:
    return SimpleNamespace(rewards=lambda: rewards)


def cell(model: str, policy: str, seed: int, algorithm: str = "rloo") -> dict[str, Any]:
    names = {"seed": seed, "policy": policy, "reward_model": model, "algorithm": algorithm}
    return names | {"kind": "explicit", "trained": True}


def truth(seed: int, policy: str) -> np.ndarray:
    return np.random.default_rng([seed, len(policy)]).normal(size=(30, 8))


def made(out: Path, *, models: dict[str, float], formula: dict[str, str] = TILTED, **more: Any) -> dict[str, Any]:
    """Of two policies and two seeds; a model is a share of the truth and noise for the rest."""
    places = [(seed, policy) for seed in (1, 2) for policy in ("weak", "strong")]
    noise = np.random.default_rng(9).normal(size=(30, 8))
    labels = more.pop("labels", {key("people", *place): scores(truth(*place)) for place in places})
    cells = [cell(model, policy, seed) for seed, policy in places for model in models]
    rewards = [scores(models[each["reward_model"]] * truth(each["seed"], each["policy"]) + noise) for each in cells]
    about = {"study": "s", "ground_truth": "people", "truths": ["people"], "rlhf": {"rloo": 100}}
    config = more.pop("config", Foreseeing(draws=200))
    paid = more.pop("paid", [])
    forecast.function(
        config, cells, {"rloo": formula}, about, rewards, labels, more.pop("gradients", {}),
        more.pop("rehearsals", {}), more.pop("sifted", []),
        [each for each, _ in paid], [each for _, each in paid], out=out, log=None,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads((out / "forecast.json").read_text())
    return answer


def test_each_policy_has_an_order_of_its_own_over_its_seeds(out: Path):
    answer = made(out, models={"good": 5.0, "fair": 1.0, "bad": -1.0})
    for policy in ("weak", "strong"):
        mine = [row for row in answer["rows"] if row["policy"] == policy]
        assert [row["reward_model"] for row in mine] == ["good", "fair", "bad"]
    assert answer["spent"] == {"samples": 4 * 240, "labels": {"people": 4 * 240}, "rlhf_samples": 1200}
    table = pd.read_parquet(out / "forecast.parquet")
    assert len(table) == 6
    assert (out / "table.txt").read_text().startswith("weak, rloo\nrank  reward model")


def test_what_has_no_label_is_left_out_of_the_rewards_too(out: Path):
    """A response that only fills a row up would else move the spread by which rewards are whitened."""
    held = {key("people", s, p): truth(s, p) for s in (1, 2) for p in ("weak", "strong")}
    for labels in held.values():
        labels[:, 4:] = np.nan
    answer = made(out, models={"good": 5.0}, labels={name: scores(labels) for name, labels in held.items()})
    assert answer["spent"]["labels"] == {"people": 4 * 120}
    assert answer["rows"][0]["forecast"]["value"] == pytest.approx(1, abs=0.1)


def rehearsed(models: dict[str, float]) -> dict[str, Any]:
    """Each teaches as much more of the truth a step as its number says, whatever is felt; the truth itself 2."""
    names = [*models, f"{OWN}people"]
    rates = np.array([*models.values(), 2.0])
    rise = rates[:, None, None] * np.arange(4)[None, :, None] * np.ones(30)
    told = Rehearsed([0, 1, 2, 3], {"people": rise}, rise, rise * 0, rise * 0 + 0.8)
    held = SimpleNamespace(rehearsed=lambda: told, names=lambda: names)
    return {lesson(seed, policy, "rloo"): held for seed in (1, 2) for policy in ("weak", "strong")}


def test_what_was_rehearsed_ranks_and_tells_gains_step_by_step_in_standard_deviations(out: Path):
    models = {"bad": -1.0, "good": 1.0}
    answer = made(out, models=models, formula=REHEARSED, rehearsals=rehearsed(models))
    best = answer["rows"][0]
    assert best["reward_model"] == "good"
    assert best["forecast"]["value"] == pytest.approx(0.5)
    sd = np.mean([1 / truth(seed, "weak").std(ddof=1) for seed in (1, 2)])
    assert best["gain_foretold"]["value"] == pytest.approx(3 * sd, rel=1e-3)
    assert best["curve_foretold"]["steps"] == [0, 1, 2, 3]
    assert best["curve_foretold"]["gain"] == pytest.approx([0, sd, 2 * sd, 3 * sd], rel=1e-3)
    assert best["rule"]["value"] == pytest.approx(best["tilted"]["value"])


def test_inner_products_of_gradients_are_taken_where_there_are_gradients(out: Path):
    values = np.random.default_rng(3).normal(size=(30, 8, 5)).astype(np.float32)
    held = SimpleNamespace(slopes=lambda: Slopes(values, 1.0))
    gradients = {pool(seed, policy): held for seed in (1, 2) for policy in ("weak", "strong")}
    assert made(out, models={"good": 5.0}, gradients=gradients)["rows"][0]["ip"]["value"] is not None
    assert made(out, models={"good": 5.0})["rows"][0]["ip"] is None


def test_a_run_that_was_paid_for_calibrates_its_own_policy_alone(out: Path):
    samples = pd.DataFrame({"truth_gain": np.full(20, 0.5)})
    curve = pd.DataFrame({"step": [0, 10], "truth": [0.0, 0.5]})
    policy = SimpleNamespace(samples=lambda: samples, table=lambda: curve)
    config = Foreseeing(draws=200, calibrate=("good",))
    answer = made(out, models={"good": 5.0, "fair": 1.0}, config=config, paid=[(cell("good", "weak", 1), policy)])
    rows = {(row["policy"], row["reward_model"]): row for row in answer["rows"]}
    assert rows["weak", "good"]["gain_foretold"]["value"] == pytest.approx(0.5)
    assert 0 < rows["weak", "fair"]["gain_foretold"]["value"] < 0.5
    assert "gain_foretold" not in rows["strong", "good"]
    assert any("scaled by what RLHF on good did gain" in text for text in answer["sentences"])


def test_a_reward_model_whose_prompts_are_sifted_is_refused_by_name(out: Path):
    rows = made(out, models={"good": 5.0, "fair": 1.0}, sifted=["fair"])["rows"]
    told = {row["reward_model"]: row["refused"] for row in rows}
    assert told["good"] is None
    assert "sifted" in told["fair"]


def no_number(text: str) -> None:
    raise AssertionError(f"{text} in JSON")


def test_the_best_of_n_speaks_of_all_prompts_that_have_labels_enough(out: Path):
    held = {key("people", s, p): truth(s, p) for s in (1, 2) for p in ("weak", "strong")}
    for seed in (1, 2):
        held[key("people", seed, "weak")][::2, 3:] = np.nan
        held[key("people", seed, "weak")][0, 1:] = np.nan  # one label: this prompt does not count
    held[key("people", 2, "strong")][:] = np.nan
    labels = {name: scores(values) for name, values in held.items()}
    made(out, models={"good": 5.0}, labels=labels)
    answer = json.loads((out / "forecast.json").read_text(), parse_constant=no_number)
    (curve,) = answer["curves"]  # of the strong policy nothing is known
    assert (curve["policy"], curve["n"]) == ("weak", [1, 2])
    means = [np.nanmean(held[key("people", seed, "weak")][1:], axis=1).mean() for seed in (1, 2)]
    assert curve["best_of_n"][0] == pytest.approx(np.mean(means))


def test_curves_tell_what_tilting_and_choosing_the_best_would_do(out: Path):
    answer = made(out, models={"good": 5.0})
    curve = answer["curves"][0]
    assert len(curve["eta"]) == len(curve["truth"]) == len(curve["ess"])
    assert curve["truth"] == sorted(curve["truth"])
    assert curve["turn"] is None
    assert curve["n"] == [1, 2, 4, 8]
    assert curve["best_of_n"] == sorted(curve["best_of_n"])
