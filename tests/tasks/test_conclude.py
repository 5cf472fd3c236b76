"""The answer of `vanish` on gains that are known: every part of it, over the unit that there is."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.config import identity
from rmpipe.controlled import Controlled
from rmpipe.gauge import numbers
from rmpipe.interval import t_interval
from rmpipe.recovery import BEFORE
from tasks.conclude import conclude
from tasks.control import control

PROMPTS = 16
ARMS: dict[str, dict[str, Any]] = {
    name: {"finetuning": None if not share else "some", "algorithm": "rloo" if rlhf else None, "sifted": name == "sift",
           "share": share, "of": of, "sft_steps": 5 * (share > 0), "rlhf_steps": rlhf}
    for name, share, of, rlhf in (("rft", 0.0, None, 9), ("sft", 1.0, "all", 0), ("few_rft", 0.1, "all", 9),
                                  ("both", 1.0, "all", 9), ("sift", 0.0, None, 9))
}  # fmt: skip
GAINS = {"rft": (0.0, 0.3), "sft": (0.5, 0.2), "few_rft": (0.72, 0.63), "both": (0.8, 0.7), "sift": (0.0, 0.25)}
"""Of prompts of low and of high std."""
KEYS = {
    "flow", "study", "question", "seeds", "policies", "rewards", "low", "threshold", "reference", "arms", "places",
    "vanished", "followed", "rows", "quarters", "curves", "labelled", "points", "prompts", "sieves", "advice",
    "controlled", "contrasts", "sentences",
}  # fmt: skip
"""What an answer has, whatever was asked."""


@cache
def gauge(seed: int, norms: bool = True) -> Any:
    """A quarter of the prompts, some of the middle ones, are of low std; gradients go with the std."""
    std = np.where(np.arange(PROMPTS) % 4 == 1, 0.0, 0.1 + np.arange(PROMPTS) / 40)
    table = pd.DataFrame({"prompt_id": [f"p{n}" for n in range(PROMPTS)], "std": std, "mean": 0.25, "flat": std < 0.05})
    texts = [json.dumps([{"response": f" yes {n}", "reward": 1.0}]) for n in range(PROMPTS)]
    table = table.assign(prompt=[json.dumps(f"ask {n}") for n in range(PROMPTS)], samples=texts)
    norm = (1 + seed / 10) * std if norms else math.nan
    table = table.assign(norm=norm, squared=norm**2, bound=norm / 9, tighter=norm / 3)
    told = {name: number.json() for name, number in numbers(table).items()}
    return SimpleNamespace(table=lambda: table, numbers=lambda: told, address=f"gauge/{seed}")


def scores(address: str, gains: tuple[float, float] = (0.0, 0.0), scale: float = 1.0) -> Any:
    """Rewards of two responses a prompt, in another order than the gauge's."""
    order = np.arange(PROMPTS)[::-1]
    low = order % 4 == 1
    means = 0.25 + scale * np.where(low, *gains)
    rollouts = SimpleNamespace(
        table=lambda: pd.DataFrame({"prompt_id": [f"p{n}" for n in order]}), record={"metrics": {"length": 7.0}}
    )
    rewards = np.stack([means - 0.25, means + 0.25], axis=1)
    return SimpleNamespace(rewards=lambda: rewards, inputs={"texts": rollouts}, address=address)


def aligned(address: str) -> Any:
    curve = pd.DataFrame({"step": [0, 9], "proxy": [0.0, 2.0], "kl": [0.0, 1.5]})
    return SimpleNamespace(address=address, table=lambda: curve, record={"metrics": {"kl": 1.5}})


def made(address: str, **metrics: float) -> Any:
    return SimpleNamespace(address=address, record={"metrics": metrics})


def answered(
    folder: Path, arms: tuple[str, ...] = tuple(ARMS), seeds: int = 3, bases: int = 3, *, norms: bool = True,
    claims: tuple[dict[str, Any], ...] = (), experiments: tuple[Any, ...] = (), reference: str | None = "both",
    places: bool = True,
) -> dict[str, Any]:  # fmt: skip
    where = [{"seed": seed, "policy": "p", "base": f"b{seed % bases}", "reward": "r"} for seed in range(seeds)]
    where = where if places else []
    trials = [place | {"arm": arm} for place in where for arm in arms]
    about = {"flow": "vanish", "study": "s", "question": "q", "seeds": [*range(seeds)], "policies": ["p"],
             "rewards": ["r"], "low": 0.25, "threshold": 0.05, "samples": 32, "reference": reference,
             "followed": "policy", "arms": {name: ARMS[name] for name in arms}, "places": where, "trials": trials,
             "controlled": [["digits", seed] for seed in range(len(experiments))]}  # fmt: skip
    after = [scores(f"score/{each['arm']}{each['seed']}", GAINS[each["arm"]], 1 + each["seed"] / 20) for each in trials]
    has = {"imitated": "sft_steps", "aligned": "rlhf_steps", "sieves": "sifted"}
    kinds = {
        "imitated": lambda at: made(f"imitate/{at}", labels=100.0 * ARMS[at[:-1]]["share"]),
        "aligned": lambda at: aligned(f"align/{at}"),
        "sieves": lambda at: made(f"sift/{at}", kept=9.0, dropped=3.0, deferred=0.0),
    }
    left = {
        name: [kinds[name](f"{each['arm']}{each['seed']}") if ARMS[each["arm"]][told] else None for each in trials]
        for name, told in has.items()
    }
    conclude.function(
        about, list(claims), [gauge(place["seed"], norms) for place in where],
        [scores(f"score/{place['seed']}") for place in where], after, *left.values(), list(experiments), out=folder,
        log=None,
    )  # fmt: skip
    return json.loads((folder / "answer.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} in it"))


def only(found: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    (one,) = [item for item in found if all(item[key] == value for key, value in keys.items())]
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an answer of three bases; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    answered(folder)
    return folder


@pytest.fixture
def answer(whole: Path) -> dict[str, Any]:
    return json.loads((whole / "answer.json").read_text())


# -- what it has ------------------------------------------------------------------------------------------------------


def test_it_has_every_part_and_its_first_line_is_the_verdict(answer, whole):
    assert set(answer) >= KEYS
    assert answer["sentences"][0].startswith("p, r: the gradient vanishes where rewards hardly vary. Its norm is 0")
    shown = (whole / "table.txt").read_text()
    assert shown.startswith("Before any training")
    assert "sft_rft" not in shown
    assert "few_rft" in shown


def test_what_was_so_before_is_told_with_where_it_is_from(answer):
    (told,) = answer["vanished"]
    assert set(told) == {"policy", "reward", "bases", "runs", "prompts", "samples", "addresses", *BEFORE}
    assert (told["prompts"], told["samples"], told["bases"]) == (PROMPTS, 32, 3)
    assert told["addresses"] == {"gauge": ["gauge/0", "gauge/1", "gauge/2"]}
    assert told["flat"]["value"] == 0.25
    assert told["exponent"]["value"] == pytest.approx(1.0, abs=0.03)
    each = [gauge(seed).numbers()["norm_high"]["value"] for seed in range(3)]
    assert told["norm_high"] == pytest.approx(t_interval(each).json())


def test_gains_are_matched_prompt_by_prompt_and_split_by_the_std_of_other_draws(answer):
    row = only(answer["rows"], arm="rft")
    assert row["low"]["value"] == pytest.approx(0.0)
    assert row["high"] == pytest.approx(t_interval([0.3, 0.315, 0.33]).json())
    assert row["gap"] == pytest.approx(row["high"])
    assert row["gain"]["value"] == pytest.approx(0.75 * 0.315)
    assert (row["before"]["value"], row["after"]["value"]) == pytest.approx((0.25, 0.25 + 0.75 * 0.315))
    assert row["spearman"]["value"] > 0.6
    assert row["recovered"]["value"] == pytest.approx(0.75 * 0.3 / (0.25 * 0.8 + 0.75 * 0.7))
    few = only(answer["rows"], arm="few_rft")
    assert (few["recovered_low"]["value"], few["recovered_high"]["value"]) == pytest.approx((0.9, 0.9))
    assert row["recovered_high"]["value"] == pytest.approx(0.3 / 0.7)


def test_more_prompts_may_be_gauged_than_measured_and_low_is_among_all_of_them(out, monkeypatch):
    whole = gauge(0)
    more = pd.DataFrame({"prompt_id": [f"more{n}" for n in range(PROMPTS)], "std": 9.0, "mean": 0.75, "norm": math.nan})
    table = pd.concat([whole.table(), more.assign(flat=False, prompt='"ask"', samples="[]")], ignore_index=True)
    numbered = {name: number.json() for name, number in numbers(table).items()}
    wide = SimpleNamespace(table=lambda: table, numbers=lambda: numbered, address="gauge/0")
    monkeypatch.setitem(globals(), "gauge", lambda seed, norms=True: wide)
    answer = answered(out)
    (told,) = answer["vanished"]
    assert (told["prompts"], told["zero"]["value"]) == (2 * PROMPTS, pytest.approx(4 / 32))
    row = only(answer["rows"], arm="sft")  # of low std are six of them, of which three gain 0.5: by themselves, three
    assert (row["low"]["value"], row["high"]["value"]) == pytest.approx((0.35 * 1.05, 0.2 * 1.05))
    assert len(answer["points"][0]["std"]) == PROMPTS
    assert len(answer["points"][0]["gains"]["sft"]) == PROMPTS


def test_each_arm_is_told_with_what_it_took_and_where_it_is_from(answer):
    row = only(answer["rows"], arm="few_rft")
    assert (row["labels"]["value"], row["kl"]["value"], row["tokens"]["value"]) == (10.0, 1.5, 7.0)
    assert (row["share"], row["of"], row["sft_steps"], row["rlhf_steps"]) == (0.1, "all", 5, 9)
    assert row["addresses"] == {stage: [f"{stage}/few_rft{seed}" for seed in range(3)]
                                for stage in ("score", "imitate", "align")}  # fmt: skip
    plain = only(answer["rows"], arm="rft")
    assert (plain["labels"], set(plain["addresses"])) == (None, {"score", "align"})
    assert only(answer["rows"], arm="sft")["kl"] is None


def test_curves_are_of_arms_that_reinforce_in_reward_units(answer):
    assert {item["arm"] for item in answer["curves"]} == {"rft", "few_rft", "both", "sift"}
    curve = only(answer["curves"], arm="rft", seed=1)
    assert (curve["policy"], curve["reward"], curve["address"]) == ("p", "r", "align/rft1")
    assert (curve["steps"], curve["kl"]) == ([0, 9], [0.0, 1.5])
    spread = np.std([0.0, 0.5] * PROMPTS, ddof=1)
    assert curve["rewards"] == pytest.approx([0.25, 0.25 + 2 * spread])


def test_points_and_prompts_are_of_the_first_seed(answer):
    (points,) = answer["points"]
    assert points["cut"] == gauge(0).numbers()["cut"]["value"] == 0.0
    assert (points["seed"], len(points["std"]), set(points["gains"])) == (0, PROMPTS, set(ARMS))
    pairs = dict(zip(points["std"], points["gains"]["sft"], strict=True))
    assert pairs[0.0] == pytest.approx(0.5)
    ends = [(item["end"], item["prompt"]) for item in answer["prompts"]]
    assert ends == [("least", "ask 1"), ("least", "ask 5"), ("least", "ask 9"), ("most", "ask 15"), ("most", "ask 14"),
                    ("most", "ask 12")]  # fmt: skip
    assert answer["prompts"][0]["samples"] == [{"response": " yes 1", "reward": 1.0}]


def test_sieves_are_counted_over_their_runs(answer):
    (told,) = answer["sieves"]
    assert [told[name]["value"] for name in ("kept", "dropped", "deferred")] == [9.0, 3.0, 0.0]
    assert told["addresses"] == {"sift": [f"sift/sift{seed}" for seed in range(3)]}


def test_the_fewest_labels_that_surely_bring_enough_are_advised_with_their_curve(answer):
    (advice,) = answer["advice"]
    assert (advice["arm"], advice["best"], advice["labels"]["value"]) == ("few_rft", "both", 10.0)
    assert any("10 inputs and 5 steps of supervised finetuning before reinf" in text for text in answer["sentences"])
    assert [item["arm"] for item in answer["labelled"]] == ["sft", "rft", "sift", "few_rft", "both"]


def test_claims_are_judged(out):
    claims = ({"name": "a", "claim": "c", "number": "low", "arm": "few_rft", "than": "rft"},
              {"name": "b", "claim": "c", "number": "norm"},
              {"name": "c", "claim": "c", "number": "gap", "arm": "sft"})  # fmt: skip
    told = answered(out, claims=claims)["contrasts"]
    assert [(item["name"], item["outcome"]) for item in told] == [("a", "Held"), ("b", "Held"), ("c", "Reversed")]
    assert (
        "Claimed beforehand:\na. Held: gain of low-std prompts under few_rft less that of rft"
        in (out / "table.txt").read_text()
    )


# -- where there is less ----------------------------------------------------------------------------------------------


def test_one_base_and_one_seed_have_intervals_over_prompts(out):
    answer = answered(out, seeds=1)
    (told,) = answer["vanished"]
    row = only(answer["rows"], arm="rft")
    for number in (told["norm_high"], told["std"], row["gain"], row["after"], row["spearman"]):
        assert number["low"] < number["value"] < number["high"]
    assert answer["sentences"][-2].startswith("ONE base and ONE seed: intervals are over prompts")


def test_one_base_has_intervals_over_its_seeds(out):
    answer = answered(out, bases=1)
    assert (answer["vanished"][0]["bases"], answer["vanished"][0]["runs"]) == (1, 3)
    assert only(answer["rows"], arm="rft")["high"] == pytest.approx(t_interval([0.3, 0.315, 0.33]).json())
    assert answer["sentences"][-2].startswith("ONE base: intervals are over 3 seeds")


def test_without_gradients_rewards_are_told_and_arms_are(out):
    answer = answered(out, norms=False)
    assert answer["vanished"][0]["norm_low"] is answer["vanished"][0]["exponent"] is None
    assert answer["points"][0]["norm"] == [None] * PROMPTS
    assert {item["norm"] for item in answer["prompts"]} == {None}
    assert "no gradient was taken of both halves" in answer["sentences"][0]
    assert len(answer["rows"]) == len(ARMS)


def test_without_arms_it_says_where_gradients_vanish_and_nothing_else(out):
    answer = answered(out, (), reference=None)
    assert answer["rows"] == answer["advice"] == answer["curves"] == answer["quarters"] == answer["labelled"] == []
    assert answer["points"][0]["gains"] == {}
    assert answer["sentences"][0].startswith("p, r: the gradient vanishes")


def test_without_a_reference_nothing_is_a_share_of_it(out):
    answer = answered(out, reference=None)
    assert {row["recovered"] for row in answer["rows"]} == {None}
    assert "of all" not in (out / "table.txt").read_text()


# -- controlled experiments -------------------------------------------------------------------------------------------


def experiment(folder: Path, seed: int = 0, **rewards: float) -> Any:
    """A small one, with as much of its record as is read."""
    descent = {"steps": 4, "learning_rate": 0.05}
    told = {"train": 60, "test": 20, "hidden": (), "pretraining": descent, "finetuning": descent, "looks": 3}
    config = Controlled.model_validate(told | {"rewards": rewards})
    log = SimpleNamespace(metrics=lambda *told: None, progress=lambda *told: None)
    found = control.function(config, "", seed, out=folder, log=log)
    (folder / "record.json").write_text(json.dumps({"config": identity(config)}))
    return found


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Three seeds of it."""
    return tuple(experiment(tmp_path_factory.mktemp("control"), seed) for seed in range(3))


def test_an_experiment_is_told_over_its_seeds(out, experiments):
    claim = {"name": "a", "claim": "c", "number": "modified", "arm": "supervised", "controlled": "digits"}
    answer = answered(out, experiments=experiments, claims=(claim,))
    (told,) = answer["controlled"]
    assert set(told) == {"name", "seeds", "methods", "before", "curves", "points", "addresses"}
    assert [each["method"] for each in told["methods"]] == ["supervised", "expected_reinforce", "reinforce"]
    found = [one.numbers()["supervised.gain_modified"]["value"] for one in experiments]
    assert told["methods"][0]["modified"] == pytest.approx(t_interval(found).json())
    assert answer["contrasts"][0]["difference"] == pytest.approx(t_interval(found).json())
    gap = told["methods"][0]["unmodified"]["value"] - told["methods"][0]["modified"]["value"]
    assert told["methods"][0]["gap"]["value"] == pytest.approx(gap)
    assert set(told["before"]) == {"std_modified", "std_unmodified", "norm_modified", "norm_unmodified", "spearman",
                                   "bound", "tighter"}  # fmt: skip
    assert told["before"]["bound"]["value"] < told["before"]["tighter"]["value"] < 1


def test_an_experiment_has_a_line_a_method_and_seed_and_the_points_of_its_first_seed(out, experiments):
    (told,) = answered(out, experiments=experiments)["controlled"]
    assert [(line["method"], line["seed"]) for line in told["curves"]] == [
        (method, seed) for seed in range(3) for method in ("supervised", "expected_reinforce", "reinforce")
    ]
    looks = experiments[0].json("curves.json")
    mine = [look for look in looks if look["method"] == "supervised"]
    assert told["curves"][0]["steps"] == [look["step"] for look in mine]
    assert told["curves"][0]["norm_modified"] == [look["norm_modified"] for look in mine]
    assert {len(values) for values in told["points"].values()} == {len(experiments[0].table())}
    assert set(told["points"]) == {"std", "norm", "modified", "gamma"}


@pytest.mark.parametrize(
    ("rewards", "half"),
    [({}, 1.0), ({"right": 10.0, "wrong": 4.0}, 3.0), ({"wrong_modified": 0.5}, 1.0), ({"wrong_modified": -7.0}, 4.0)],
)
def test_the_bound_of_an_experiment_is_by_half_the_range_of_its_own_rewards(out, tmp_path_factory, rewards, half):
    made = experiment(tmp_path_factory.mktemp("control"), **rewards)
    (told,) = answered(out, (), experiments=(made,), reference=None, places=False)["controlled"]
    table = made.table()
    whole = half * 6 * table["gamma"] * (table["std"] / half) ** (2 / 3)
    assert told["before"]["bound"]["value"] == pytest.approx((table["norm"] / whole).median())
    tighter = (table["norm"] / (table["gamma"] * table["std"])).median()
    assert told["before"]["tighter"]["value"] == pytest.approx(tighter)
    assert told["before"]["bound"]["value"] < tighter / 6 + 1e-9 < 1


def test_experiments_alone_are_an_answer(out, experiments):
    answer = answered(out, (), 3, experiments=experiments, reference=None, places=False)
    assert answer["vanished"] == answer["rows"] == answer["points"] == answer["prompts"] == answer["advice"] == []
    assert answer["sentences"][0].startswith("digits: ")
    assert answer["sentences"][-2] == "Intervals are Student's over 3 seeds."
    assert "Before any training" not in (out / "table.txt").read_text()
