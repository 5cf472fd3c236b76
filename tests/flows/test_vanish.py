"""The question `vanish`, from a study file to its answer: arms of every kind, two rewards and an experiment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.vanish import GAUGED, vanish
from rmpipe.artifact import open_artifact
from rmpipe.gauge import low
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
STUDY = """
name = "vanished"
flow = "vanish"
seeds = [1, 2]
reference = "sft"

[dataset]
source = "world"
inputs = 60
test_fraction = 0.2

[bases.world]
kind = "world"
documents = 200
hidden = 32
layers = 1
heads = 2
[bases.world.training]
steps = 10
batch_size = 16
optimiser = { name = "adamw", learning_rate = 4e-3 }

[policies.pretrained]
base = "world"

[reward_models.like]
kind = "metric"
name = "rouge1"
[reward_models.long]
kind = "truth"
function = "lengthy:long"

[gauging]
prompts = 36
responses = 3
bounds = 1
low = 0.5

[sampling]
prompts = 24
responses = 4
max_new_tokens = 8

[evaluation]
prompts = 4
responses = 1

[sifting]
low = 0.25

[algorithms.rloo]
kind = "rloo"
steps = 2
prompts_per_step = 4
samples_per_prompt = 2
max_new_tokens = 8
evaluations = 2
optimiser = { name = "adamw", learning_rate = 1e-2 }
[algorithms.still]
kind = "rloo"
steps = 1
prompts_per_step = 4
samples_per_prompt = 2
max_new_tokens = 8
evaluations = 2
optimiser = { name = "sgd", learning_rate = 1e-12 }

[finetunings.whole]
training = { steps = 8, batch_size = 16, optimiser = { name = "adamw", learning_rate = 1e-2 } }
[finetunings.low]
share = 0.1
of = "low"
training = { steps = 2, batch_size = 4, optimiser = { name = "adamw", learning_rate = 1e-3 } }

[arms]
rft = { algorithm = "rloo" }
sft = { finetuning = "whole" }
low_rft = { finetuning = "low", algorithm = "rloo", sifted = true }
still = { algorithm = "still" }

[controlled.digits]
train = 60
test = 20
hidden = []
looks = 2
pretraining = { steps = 4, learning_rate = 0.05 }
finetuning = { steps = 2, learning_rate = 0.05 }

[[claims]]
name = "a"
claim = "gradients are shorter where rewards vary less"
number = "norm"
reward = "like"
[[claims]]
name = "b"
claim = "labels help more than reinforcement"
number = "gain"
arm = "sft"
than = "rft"
reward = "like"
[[claims]]
name = "c"
claim = "supervision moves what was changed"
number = "modified"
arm = "supervised"
than = "reinforce"
controlled = "digits"
"""
LONG = '''"""A reward beside the study."""


def long(prompts, responses):
    return [float(len(text.split())) for text in responses]
'''
KEYS = {
    "flow", "study", "question", "seeds", "policies", "rewards", "low", "threshold", "answers", "reference", "arms",
    "places", "vanished", "followed", "rows", "quarters", "curves", "labelled", "points", "prompts", "sieves",
    "advice", "controlled", "contrasts", "sentences",
}  # fmt: skip
MADE = {"label": 2, "pretrain": 2, "derive": 4, "sample": 2 * (2 + 7), "score": 2 * (4 + 8), "gauge": 4, "sift": 4,
        "imitate": 2 * (1 + 2), "align": 2 * 6, "control": 2, "conclude": 1, "report": 1}  # fmt: skip
"""How many artifacts of each stage."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished place with the study in it; `planned.json` is what was to run beforehand."""
    place = lay(tmp_path_factory.mktemp("vanished"))
    (place / "planned.json").write_text(told(place, "plan", "vanished.toml", "--json"))
    told(place, "run", "vanished.toml", "--jobs", "2")
    return place


def lay(place: Path) -> Path:
    (place / "vanished.toml").write_text(STUDY)
    (place / "lengthy.py").write_text(LONG)
    return place


def told(place: Path, *words: str, code: int = 0) -> str:
    where = os.environ | {"RMPIPE_HOME": str(place / "home"), "PYTHONPATH": str(REPOSITORY)}
    called = [sys.executable, "-m", "flows.cli", *words]
    done = subprocess.run(called, cwd=place, env=where, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr * bool(code)


@cache
def every(place: Path, stage: str) -> list[Any]:
    home = place / "home"
    return [open_artifact(f"{stage}/{one.name}", home) for one in (home / "store" / stage).glob("[0-9a-f]*")]


def made(place: Path, stage: str, **labels: str) -> Any:
    (one,) = [each for each in every(place, stage) if labels == each.record["labels"]]
    return one


def answer_of(place: Path) -> dict[str, Any]:
    return every(place, "conclude")[0].answer()


def means(scores: Any) -> np.ndarray:
    return scores.rewards().astype(float).mean(axis=1)


def only(found: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    (one,) = [item for item in found if all(item[key] == value for key, value in keys.items())]
    return one


# -- what runs --------------------------------------------------------------------------------------------------------


def test_what_was_planned_is_what_was_made(place):
    planned = json.loads((place / "planned.json").read_text())["stages"]
    assert {step["status"] for step in planned} == {"run"}
    there = {each.address for stage in MADE for each in every(place, stage)}
    assert {step["address"] for step in planned} == there
    assert {stage: len(every(place, stage)) for stage in MADE} == MADE
    assert {folder.name for folder in (place / "home" / "store").iterdir()} == set(MADE)


def test_a_second_run_makes_nothing_and_another_arm_only_what_it_needs(place):
    assert "nothing had to run" in told(place, "run", "vanished.toml")
    more = ("--set", 'arms.both={finetuning="whole",algorithm="rloo"}')
    stages = json.loads(told(place, "plan", "vanished.toml", "--json", *more))["stages"]
    ran = sorted(step["stage"] for step in stages if step["status"] == "run")
    assert ran == ["align"] * 4 + ["conclude", "report"] + ["sample"] * 4 + ["score"] * 4


def test_rank_prints_the_table_and_the_page_is_there(place):
    shown = told(place, "rank", "vanished.toml")
    assert shown.startswith("Before any training: flat prompts, gradient norm, and how it goes with the reward std\n")
    assert (every(place, "conclude")[0].path / "table.txt").read_text() in shown
    for text in ("pretrained, like", "pretrained, long", "low_rft", "Claimed beforehand:", "\na. "):
        assert text in shown
    page = (every(place, "report")[0].path / "report.html").read_text()
    assert all(f"pretrained, {reward}" in page for reward in ("like", "long"))


def calls(folder: Path, *changes: str) -> dict[str, dict[str, Any]]:
    """What the study would call, by stage and address."""
    (folder / "vanished.toml").write_text(STUDY.replace('"lengthy:long"', '"world"'))
    with planning(Store(folder / "home")) as plan:
        vanish(Study.read(folder / "vanished.toml", changes))
    found: dict[str, dict[str, Any]] = {}
    for address, step in plan.steps.items():
        found.setdefault(step.call.stage.name, {})[address] = step.call
    return found


def test_neither_speed_nor_an_arms_name_moves_what_was_made(tmp_path):
    def planned(*changes: str) -> dict[str, set[str]]:
        return {stage: set(made) for stage, made in calls(tmp_path, *changes).items()}

    here = planned()
    faster = ("gauging.batch_size=1", "sampling.batch_size=1", "finetunings.whole.training.micro_batch=2")
    assert planned(*faster) == here
    called = planned("arms.rft=false", 'arms.other={algorithm="rloo"}', "claims=[]")
    moved = {"conclude", "report"}
    assert {name: called[name] for name in called if name not in moved} == {
        name: here[name] for name in here if name not in moved
    }
    assert called["conclude"] != here["conclude"]
    unsifted = ("arms.low_rft.sifted=false", "sifting=false")
    held_out = planned('sampling.split="test"', 'finetunings.low.of="all"', *unsifted)
    assert held_out["pretrain"] == here["pretrain"]
    assert not held_out["sample"] & here["sample"]


def test_a_reward_model_may_be_trained_here_on_pairs_that_the_ground_truth_labels(tmp_path):
    trained = 'reward_models.off={kind="explicit",base="pretrained",training={steps=1,optimiser={learning_rate=0.1}}}'
    pairs = 'preferences={source="world",pairs=60}'
    found = calls(tmp_path, trained, pairs, "ground_truth=long", "claims=[]", "seeds=[1]")
    (relabelled,), (train,) = found["relabel"].values(), found["train"].values()
    assert {train.told["off_policy"].address} == set(found["relabel"])
    assert {relabelled.told["preferences"].address} == set(found["prepare"])
    assert {call.told["preferences"].address for call in found["derive"].values()} == set(found["label"])
    assert {call.labels["reward"] for call in found["align"].values()} == {"like", "off"}
    assert {call.told["truth"] is not None for call in found["align"].values()} == {True}


def test_demonstrations_are_of_the_pairs_and_without_any_of_elsewhere(tmp_path):
    how = "policies.pretrained.finetuning={steps=1,optimiser={learning_rate=0.1}}"
    pairs = 'preferences={source="world",pairs=60}'
    shown = calls(tmp_path, how, 'policies.pretrained.demonstrations={source="chosen"}', pairs)
    assert {call.told["preferences"].address for call in shown["finetune"].values()} == set(shown["prepare"])
    alone = calls(tmp_path, how, 'policies.pretrained.demonstrations={source="world"}')
    assert "prepare" not in alone
    assert {call.told["policy"].address for call in alone["gauge"].values()} == set(alone["finetune"])
    assert {place["base"] for place in next(iter(alone["conclude"].values())).told["about"]["places"]} == set(
        alone["pretrain"]
    )


def test_experiments_alone_make_nothing_else(tmp_path):
    (tmp_path / "s.toml").write_text('name="s"\nflow="vanish"\nseeds=[1,2]\n[controlled.digits]\n')
    with planning(Store(tmp_path / "home")) as plan:
        vanish(Study.read(tmp_path / "s.toml"))
    assert sorted(step.call.stage.name for step in plan.steps.values()) == ["conclude", "control", "control", "report"]


# -- which draws ------------------------------------------------------------------------------------------------------


def test_where_rewards_vary_is_told_by_other_draws_than_gradients_and_gains(place):
    for seed in (1, 2):
        gauge = made(place, "gauge", policy="pretrained", reward="like", seed=str(seed))
        gauged, first = gauge.inputs["rollouts"], made(place, "sample", policy="pretrained", seed=str(seed))
        assert gauge.inputs["others"] == first
        assert gauge.inputs["other_scores"] == made(place, "score", policy="pretrained", reward="like", seed=str(seed))
        assert gauged.record["config"]["seed"] == seed + GAUGED
        assert first.record["config"]["seed"] == seed
        asked = [one.table()["prompt_id"].to_list() for one in (gauged, first)]
        assert (len(asked[0]), asked[0][:24]) == (36, asked[1])
        drawn, others = (one.table()["responses"].map(list).to_list() for one in (gauged, first))
        assert all(mine[:2] != theirs[:2] for mine, theirs in zip(drawn, others, strict=False))
        assert [{len(texts) for texts in each} for each in (drawn, others)] == [{3}, {4}]
        other = made(place, "gauge", policy="pretrained", reward="long", seed=str(seed))
        assert other.inputs["rollouts"] == gauged


def test_gradients_are_of_the_prompts_whose_gain_is_measured_and_stds_of_all_that_were_gauged(place):
    table = made(place, "gauge", policy="pretrained", reward="like", seed="1").table()
    assert table["std"].notna().all()
    assert table["squared"].notna().to_list() == [True] * 24 + [False] * 12
    assert [item["prompts"] for item in answer_of(place)["vanished"]] == [36, 36]


def test_before_and_after_the_same_random_numbers_are_drawn_so_that_who_learns_nothing_gains_nothing(place):
    first = made(place, "sample", policy="pretrained", seed="1").table()
    still = made(place, "sample", policy="pretrained", reward="like", arm="still", seed="1").table()
    assert first["responses"].map(list).to_list() == still["responses"].map(list).to_list()
    for reward in ("like", "long"):
        row = only(answer_of(place)["rows"], reward=reward, arm="still")
        assert row["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert row["kl"]["value"] == pytest.approx(0.0, abs=1e-6)


# -- which arm does what ----------------------------------------------------------------------------------------------


def test_labels_of_any_inputs_are_learnt_once_and_those_of_some_for_each_reward(place):
    whole = made(place, "imitate", policy="pretrained", finetuning="whole", seed="1")
    assert "gauge" not in {name for name, value in whole.inputs.items() if value is not None}
    assert whole.record["config"]["measured"] == 24
    assert whole.record["metrics"]["labels"] == len(every(place, "label")[0].split("policy")) - 24 == 24
    some = {reward: made(place, "imitate", policy="pretrained", finetuning="low", reward=reward, seed="1")
            for reward in ("like", "long")}  # fmt: skip
    for reward, weights in some.items():
        gauge = made(place, "gauge", policy="pretrained", reward=reward, seed="1")
        assert weights.inputs["gauge"] == gauge
        others = low(gauge.table()["std"], 0.5)[24:]  # low among all that were gauged, but none that is measured
        assert weights.record["metrics"]["labels"] == min(int(others.sum()), 2)


def test_an_arm_goes_on_from_what_learnt_labels_and_without_what_was_sifted(place):
    names = {"policy": "pretrained", "reward": "like", "seed": "1"}
    plain = made(place, "align", arm="rft", algorithm="rloo", **names)
    chosen = made(place, "align", arm="low_rft", algorithm="rloo", **names)
    assert plain.inputs["policy"] == made(place, "pretrain", base="world", seed="1")
    assert chosen.inputs["policy"] == made(place, "imitate", policy="pretrained", finetuning="low", reward="like",
                                           seed="1")  # fmt: skip
    assert (plain.inputs.get("sieve"), chosen.inputs["sieve"]) == (None, made(place, "sift", **names))
    gauged = made(place, "gauge", **names).inputs["rollouts"]
    assert chosen.inputs["sieve"].inputs["rollouts"] == gauged
    assert chosen.inputs["scores"] == plain.inputs["scores"]  # rewards are scaled alike
    assert made(place, "sample", arm="sft", **names).inputs["policy"].record["stage"] == "imitate"


# -- the answer -------------------------------------------------------------------------------------------------------


def test_the_answer_has_every_part(place):
    answer = answer_of(place)
    assert set(answer) >= KEYS
    assert answer["answers"] == []  # of free responses
    assert {(row["reward"], row["arm"]) for row in answer["rows"]} == {
        (reward, arm) for reward in ("like", "long") for arm in ("rft", "sft", "low_rft", "still")
    }
    assert [(item["reward"], item["bases"]) for item in answer["vanished"]] == [("like", 2), ("long", 2)]
    assert len(answer["curves"]) == 2 * 2 * 3
    assert {item["reward"] for item in answer["sieves"]} == {"like", "long"}
    assert [item["name"] for item in answer["contrasts"]] == ["a", "b", "c"]
    assert answer["controlled"][0]["seeds"] == [1, 2]
    assert answer["arms"]["low_rft"] == {
        "finetuning": "low", "algorithm": "rloo", "sifted": True, "share": 0.1, "of": "low", "sft_steps": 2,
        "rlhf_steps": 2,
    }  # fmt: skip


def test_a_gain_is_the_mean_over_the_prompts_of_each_base_and_parts_are_by_the_gauge(place):
    for reward in ("like", "long"):
        gains, low_gains = [], []
        for seed in ("1", "2"):
            names = {"policy": "pretrained", "reward": reward, "seed": seed}
            after, first = made(place, "score", arm="sft", **names), made(place, "score", **names)
            assert after.inputs["texts"].table()["prompt_id"].equals(first.inputs["texts"].table()["prompt_id"])
            gain, few = means(after) - means(first), low(made(place, "gauge", **names).table()["std"], 0.5)[:24]
            gains.append(gain.mean())
            low_gains.append(gain[few].mean())
        row = only(answer_of(place)["rows"], reward=reward, arm="sft")
        assert (row["gain"]["value"], row["low"]["value"]) == pytest.approx((np.mean(gains), np.mean(low_gains)))
        assert row["gain"]["low"] < row["gain"]["value"] < row["gain"]["high"]
        assert row["addresses"]["score"] == [
            made(place, "score", policy="pretrained", reward=reward, arm="sft", seed=seed).address for seed in "12"
        ]


def test_a_curve_begins_where_the_policy_did_in_reward_units(place):
    curve = only(answer_of(place)["curves"], reward="long", arm="still", seed=1)
    texts = open_artifact(curve["address"], place / "home").samples()["before"]
    words = [len(text.split()) for text in texts]
    assert curve["rewards"] == pytest.approx([np.mean(words)] * 2, abs=1e-4)  # one response a prompt


def test_what_cannot_be_is_refused_before_anything_runs(place):
    said = told(place, "run", "vanished.toml", "--set", "arms.rft.algorithm=rlo", code=2)
    assert "arms.rft.algorithm: no 'rlo' there; did you mean rloo?" in said
    said = told(place, "run", "vanished.toml", "--set", "algorithms.rloo.prompts_per_step=64", code=2)
    assert "algorithms.rloo.prompts_per_step: 64 prompts a step, and the policy split has 48" in said
