"""`rmpipe forecast`: what is told before RLHF, what it costs, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows.cli import main

pytestmark = pytest.mark.slow

FEW = ("--set", "foresight.fewest=4")
ADAMW = ("--set", "algorithms.rloo.optimiser.name=adamw")


@pytest.fixture(scope="module")
def place(tiny: Any, places: Any) -> Any:
    return places(tiny)


@pytest.fixture(scope="module")
def told(place: Any) -> Any:
    run = place.rmpipe("forecast", "tiny.toml", *FEW, *ADAMW, "--json")
    return json.loads(run.output.read_text())


def test_reward_models_are_ranked_per_policy_with_no_stage_of_rlhf(told: Any, place: Any):
    assert {(row["policy"], row["algorithm"]) for row in told["rows"]} == {("weak", "rloo"), ("strong", "rloo")}
    assert {row["reward_model"] for row in told["rows"]} == {"truth", "offset", "off"}
    plan = json.loads(place.rmpipe("plan", "tiny.toml", *FEW, *ADAMW, "--json").output.read_text())
    assert {step["stage"] for step in plan["stages"] if step["status"] == "run"} == {"align", "rank", "report"}


def test_it_says_which_formula_the_algorithm_implies_and_why(told: Any):
    assert (told["formulas"]["rloo"]["predictor"], told["formulas"]["rloo"]["rule"]) == ("rehearsed", "ip_free")
    assert any("gone through on the samples" in text and "adamw divides a step" in text for text in told["sentences"])


def test_it_says_what_it_cost(told: Any):
    assert told["spent"]["samples"] == 2 * 8 * 4
    assert told["spent"]["labels"] == {"truth": 64}


def test_asked_again_it_answers_from_the_records(told: Any, place: Any):
    said = place.rmpipe("forecast", "tiny.toml", *FEW, *ADAMW).output.read_text()
    assert "nothing had to run" in said
    for policy in ("weak", "strong"):
        assert f"{policy}, rloo\nrank  reward model" in said


def test_the_finished_studys_answer_carries_it_beside_what_came_true(tiny: Any):
    answer = json.loads((tiny.folder / "0.out").read_text())
    assert "forecast" in answer
    assert all(row["gain"] for row in answer["forecast"]["rows"])
    assert all("10 are needed" in row["refused"] for row in answer["forecast"]["rows"])


def test_with_one_reward_model_aligned_gains_are_told_in_reward_units(place: Any):
    """With samples enough that nothing is refused, and RLHF enough that what was paid for surely gained."""
    more = ("policies.strong=false", "dataset.pairs=400", "sampling.prompts=60", "evaluation.prompts=60",
            "foresight.gradients=false", "algorithms.rloo.steps=40", "algorithms.rloo.prompts_per_step=16",
            "algorithms.rloo.optimiser.name=adamw", "algorithms.rloo.optimiser.learning_rate=0.01")  # fmt: skip
    changes = [word for each in more for word in ("--set", each)]
    run = place.rmpipe("forecast", "tiny.toml", "--calibrate", "truth", *changes, "--json")
    told = json.loads(run.output.read_text())
    assert told["paid"] == ["truth"]
    rows = {row["reward_model"]: row for row in told["rows"]}
    assert [row["refused"] for row in rows.values()] == [None] * 3
    calibrates = {name: row["calibrates"] for name, row in rows.items()}
    assert calibrates == {"truth": True, "offset": False, "off": False}
    gains = {name: row["gain_foretold"]["value"] for name, row in rows.items()}
    assert gains["truth"] > 0.5
    assert all(gains[name] == pytest.approx(gains["truth"] * rows[name]["forecast"]["value"]) for name in rows)


def test_a_race_says_who_is_foretold_to_teach_best_and_what_that_took(place: Any):
    """Of so few prompts as this study has, nothing can be decided; of more it is settled, the ground truth aside."""
    assert "nothing is decided before 24 prompts" in place.rmpipe("forecast", "tiny.toml", "--race", code=2).said()
    more = ("--set", "dataset.pairs=400", "--set", "sampling.prompts=100", "--set", "policies.strong=false")
    told = json.loads(place.rmpipe("forecast", "tiny.toml", "--race", *more, "--json").output.read_text())
    (race,) = told["races"]
    assert race["winner"] == "offset"  # the ground truth itself is not in it
    assert race["outcome"] in ("settled", "tied")
    spent = race["spent"]
    assert spent["samples"] == 4 * spent["prompts"] < 4 * 100  # it ended before its prompts did
    assert 0 < spent["labels"] <= spent["samples"]
    assert "by the tilted policy" in race["sentence"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--prompts 3", "--prompts 3: says how many --to-label writes; give --to-label FILE, or leave it out"),
        ("--race --responses 3", "--responses 3: says how many --to-label writes; give --to-label FILE"),
        ("--race --calibrate truth", "pays for RLHF to scale a forecast by, and --race makes none; leave one"),
        ("--to-label x --calibrate truth", "--calibrate truth: pays for RLHF to scale a forecast by, and --to-label"),
        ("--labels=", "--labels: empty; name a file, or leave it out"),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(capsys: pytest.CaptureFixture[str], given: str, said: str):
    assert main(["forecast", "tiny.toml", *given.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "changes", "said"),
    [
        ("tiny.toml", ["--set", "ground_truth="], "no ground_truth, and no labels"),
        ("shift", [], "teaches no policy by RLHF"),
    ],
)
def test_what_has_nothing_to_tell_it_by_is_refused(place: Any, study: str, changes: list[str], said: str):
    assert said in place.rmpipe("forecast", study, *changes, code=2).said()


def test_under_a_further_ground_truth_gains_are_foretold_and_come_true_beside_the_first(place: Any):
    changes = (*FEW, "--set", 'further_truths=["off"]', "--set", "policies.strong=false",
               "--set", "foresight.gradients=false")  # fmt: skip
    answer = json.loads(place.rmpipe("run", "tiny.toml", *changes, "--json").output.read_text())
    rows = {(row["truth"], row["reward_model"]): row for row in answer["forecast"]["rows"]}
    assert {truth for truth, _ in rows} == {"truth", "off"}
    (ranked,) = (row for row in answer["rows"] if row["reward_model"] == "off")
    assert rows["truth", "off"]["gain"]["value"] == pytest.approx(ranked["truth_gain"]["value"])
    assert rows["off", "off"]["gain"]["value"] == pytest.approx(ranked["proxy_gain"]["value"])
    assert rows["off", "off"]["forecast"]["value"] == pytest.approx(1)
