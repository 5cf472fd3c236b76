"""The forecast stage: which samples, labels and runs it reads for what."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import foresight
from rmpipe.forecast import LABELS
from rmpipe.foreseeing import Foreseeing
from rmpipe.foretold import ORDER
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
    formulas = more.pop("formulas", {"rloo": formula})
    cells = [cell(model, *reversed(place), name) for place in places for name in formulas for model in models]
    rewards = [scores(models[each["reward_model"]] * truth(each["seed"], each["policy"]) + noise) for each in cells]
    truths = more.pop("truths", ["people"])
    about = {"study": "s", "ground_truth": "people", "truths": truths, "rlhf": dict.fromkeys(formulas, 100)}
    config = more.pop("config", Foreseeing(draws=200))
    asked = {place: pd.DataFrame({"prompt": [f"{place} {row}" for row in range(30)]}) for place in places}
    rollouts = {pool(*place): SimpleNamespace(table=lambda place=place: asked[place]) for place in places}
    paid = more.pop("paid", [])
    forecast.function(
        config, cells, formulas, about, rollouts, rewards, labels, more.pop("gradients", {}),
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


def rehearsed(models: dict[str, float], by: str = "people") -> dict[str, Any]:
    """Each teaches as much more of the truth a step as its number says, whatever is felt; the truth itself 2."""
    names = [*models, f"{OWN}{by}"]
    rates = np.array([*models.values(), 2.0])
    rise = rates[:, None, None] * np.arange(4)[None, :, None] * np.ones(30)
    told = Rehearsed([0, 1, 2, 3], {by: rise}, {by: 0 * rise[:, 0]}, rise, rise * 0, rise * 0 + 0.8)
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
    scaled = [text for text in answer["sentences"] if "scaled" in text]
    assert len(scaled) == 2
    assert scaled[0].startswith("weak, rloo: gains are scaled by what RLHF on good did gain over one seed's prompts")
    assert scaled[1] == "strong, rloo: gains are not scaled: the grid has no RLHF on good here."


@pytest.mark.parametrize("pairs", [True, False])
def test_of_pairs_the_share_alone_is_told_and_why_no_gain(out: Path, pairs: bool):
    labels = {key(LABELS, s, p): scores(truth(s, p)) for s in (1, 2) for p in ("weak", "strong")}
    for each in labels.values():
        each.record = {"metrics": {"pairs": float(pairs)}}
    given = {"labels": labels, "truths": [LABELS], "rehearsals": rehearsed({"good": 1.0}, LABELS)}
    answer = made(out, models={"good": 1.0}, formula=REHEARSED, **given)
    assert answer["rows"][0]["forecast"]["value"] == pytest.approx(0.5)
    assert ("gain_foretold" in answer["rows"][0]) is not pairs
    assert (ORDER in answer["sentences"]) is pairs


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
    made(out, models={"good": 1e9}, labels=labels)  # it likes best what is best
    answer = json.loads((out / "forecast.json").read_text(), parse_constant=no_number)
    (curve,), (path,) = answer["best_of_n"], answer["tilted"]  # of the strong policy nothing is known
    assert (curve["policy"], path["policy"], curve["n"]) == ("weak", "weak", [1, 2])
    rise = []
    for seed in (1, 2):
        mine = held[key("people", seed, "weak")][1:]
        best = [np.max(list(combinations(row[~np.isnan(row)], 2)), axis=1).mean() for row in mine]
        rise.append((np.mean(best) - np.nanmean(mine, axis=1).mean()) / mine[~np.isnan(mine)].std(ddof=1))
    assert curve["gain"] == pytest.approx([0, np.mean(rise)], abs=1e-6)


def test_curves_tell_what_tilting_and_choosing_the_best_would_do_in_standard_deviations(out: Path):
    answer = made(out, models={"good": 5.0})
    path, best = answer["tilted"][0], answer["best_of_n"][0]
    assert (path["truth"], path["turn"]) == ("people", None)
    assert 0.1 < path["least"] == foresight.shown(0.1, 8)
    assert len(path["eta"]) == len(path["gain"]) == len(path["kl"]) == len(path["ess"])
    assert path["gain"] == sorted(path["gain"])
    assert best["n"] == [1, 2, 4, 8]
    assert best["gain"] == sorted(best["gain"])
    pools = [truth(seed, "weak") for seed in (1, 2)]
    highest = np.mean([(each.max(axis=1).mean() - each.mean()) / each.std(ddof=1) for each in pools])
    assert 0.9 * highest < best["gain"][-1] <= highest
    tenfold = {key("people", s, p): scores(10 * truth(s, p)) for s in (1, 2) for p in ("weak", "strong")}
    other = made(out, models={"good": 5.0}, labels=tenfold)
    assert other["tilted"][0]["gain"] == pytest.approx(path["gain"], rel=1e-4)
    assert other["best_of_n"][0]["gain"] == pytest.approx(best["gain"], rel=1e-4)


def test_the_best_of_n_is_told_once_whatever_the_algorithms(out: Path):
    group = {"felt": "group", "predictor": "correlation", "rule": "correlation", "proxy": "variance", "why": "so"}
    answer = made(out, models={"good": 5.0}, formulas={"rloo": TILTED, "grpo": group})
    places = [(each["policy"], each["algorithm"]) for each in answer["tilted"]]
    assert places == [("weak", "rloo"), ("weak", "grpo"), ("strong", "rloo"), ("strong", "grpo")]
    assert answer["tilted"][0]["gain"] != answer["tilted"][1]["gain"]
    assert [each["policy"] for each in answer["best_of_n"]] == ["weak", "strong"]
