"""The answer of `displace` on outcomes whose cause is known: the verdict, the advice, no claim without an interval."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.diagnosis import SIMILARITIES
from rmpipe.single import UNEMBEDDED
from tasks.weigh import weigh

COUNT = 200
RULES: dict[str, dict[str, Any]] = {
    "random": {"kind": "random", "count": None, "share": 0.5, "equal_length": None},
    "few": {"kind": "random", "count": None, "share": 0.1, "equal_length": None},
    "low": {"kind": "lowest", "by": "ches", "count": None, "share": 0.5, "equal_length": None},
    "own": {"kind": "mine:Unlike", "equal_length": None},
    "alike": {"kind": "whole", "equal_length": 0.0},
    "gold": {"kind": "other", "equal_length": None, "data": {}},
}


def pairs(seed: int, count: int, knows_length: bool) -> pd.DataFrame:
    """Diagnosed pairs of random similarities; CHES knows nothing of length, or is length with some noise."""
    random = np.random.default_rng(seed)
    told = {name: random.normal(size=count) for name in SIMILARITIES}
    told["length"] = random.integers(-4, 5, size=count).astype(float)
    if knows_length:
        told["ches"] = told["length"] + told["ches"]
    names = [f"p{n}" for n in range(count)]
    texts = {"id": names, "prompt": [f'"tell me {name}"' for name in names], "chosen": " fine", "rejected": " the"}
    return pd.DataFrame(texts | {"chosen_tokens": 9.0} | told)


def single(table: pd.DataFrame, seed: int, ches: float, length: float) -> Any:
    """What training on each pair alone did: CHES and length by their weights, and noise."""
    noise = np.random.default_rng(seed + 100).normal(size=len(table)) / 2
    change = ches * table["ches"] + length * table["length"] + noise
    found = table.assign(chosen_change=change, rejected_change=-1.0, displaced=change < 0, decrease=0.1, steady=True)
    runs = [
        {"chosen": np.log([0.5, 0.6 + seed / 10, 0.2, 0.4]).tolist(), "gained": [{"step": 1, "tokens": ["it"]}],
         "ranks": [{"step": 1, "prob": index % 2, "logprob": 3}],
         "unembedding": dict.fromkeys(UNEMBEDDED, 0.5) if index < 9 else None}
        for index in range(len(change))
    ]  # fmt: skip
    return SimpleNamespace(table=lambda: found, json=lambda name: runs, address=f"single/{seed}")


def tracked(table: pd.DataFrame, chosen: float, held_out: float) -> Any:
    frame = pd.DataFrame({"set": "trained", "id": table["id"], "chosen_before": -5.0, "chosen_after": -5.0 + chosen})
    share = {"value": chosen, "low": chosen - 1, "high": chosen + 1}
    held = {"value": held_out, "low": None, "high": None}
    numbers = {"trained.chosen": share, "trained.displaced": share, "kl": share, "held_out.chosen": held,
               "held_out.accuracy": {"value": 0.7 - held_out / 100, "low": None, "high": None},
               "pairs": {"value": float(len(table)), "low": None, "high": None}}  # fmt: skip
    files = {"curves.json": {"steps": [0, 1]}, "gained.json": {"everywhere": [], "first": []}}
    told = {"numbers": lambda: numbers, "table": lambda: frame, "json": files.__getitem__, "address": "track/0"}
    return SimpleNamespace(**told)


def answered(
    folder: Path, ches: float, length: float, *, knows_length: bool = False, seeds: int = 4, count: int = COUNT,
    alone: bool = True, sets: dict[str, float] | None = None, held_out: dict[str, float] | None = None,
    claims: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:  # fmt: skip
    places = [{"seed": seed, "policy": "p", "base": f"b{seed}"} for seed in range(seeds)]
    tables = [pairs(seed, count, knows_length) for seed in range(seeds)]
    diagnoses = [SimpleNamespace(table=lambda t=t: t, numbers=dict, address="diagnose/0") for t in tables]
    singles = [single(table, seed, ches, length) for seed, table in enumerate(tables)] if alone else []
    named = sets or {}
    treatments = [place | {"training": "dpo", "subset": name} for name in named for place in places]
    apart = named | (held_out or {})
    found = [tracked(tables[place["seed"]], named[name] + place["seed"] / 99, apart[name] + place["seed"] / 50)
             for name in named for place in places]  # fmt: skip
    about = {"flow": "displace", "study": "s", "question": "q", "similarities": list(SIMILARITIES), "places": places,
             "treatments": treatments, "subsets": RULES, "trainings": {}}  # fmt: skip
    weigh.function(about, list(claims), diagnoses, singles, found, [], [], out=folder, log=None)
    return json.loads((folder / "answer.json").read_text())


@pytest.mark.parametrize(
    ("ches", "length", "knows_length", "said", "by"),
    [
        (0, -1, True, "The difference in length explains it: CHES adds nothing that is settled", None),
        (0, -1, False, "The difference in length explains it", None),
        (-1, 0, False, "CHES goes with displacement, and the difference in length alone does not", "ches"),
        (-1, -1, False, "CHES goes with displacement beyond what the difference in length explains", "ches"),
        (0, 0, False, "Neither CHES nor the difference in length is settled", None),
        (1, 0, False, "Neither CHES nor the difference in length is settled", None),
    ],
)
def test_the_verdict_is_the_cause_and_pairs_are_dropped_by_ches_alone(tmp_path, ches, length, knows_length, said, by):
    answer = answered(tmp_path, ches, length, knows_length=knows_length)
    assert answer["sentences"][0].startswith(said)
    assert answer["advice"]["by"] == by
    assert ("Drop no pairs" in (tmp_path / "table.txt").read_text()) == (by is None)
    assert (tmp_path / "drop.parquet").exists() == (by is not None)


def test_those_to_drop_are_the_highest_quarter_of_each_seed_and_what_it_saves_is_told(tmp_path):
    answer = answered(tmp_path, -1, 0)
    dropped = pd.read_parquet(tmp_path / "drop.parquet")
    for seed in range(4):
        table = pairs(seed, COUNT, False)
        assert set(dropped[dropped["seed"] == seed]["id"]) == set(table.nlargest(COUNT // 4, "ches")["id"])
    quarter = next(item for item in answer["advice"]["savings"] if item["share"] == 0.25)
    assert quarter["saved"]["low"] > 0.3  # the mean of a normal without its highest quarter is 0.42 below it
    assert quarter["saved"]["value"] == pytest.approx(0.42, abs=0.05)


def test_the_pairs_to_drop_are_listed_with_their_texts_and_the_first_of_them_in_the_answer(tmp_path):
    answer = answered(tmp_path, -1, 0)
    dropped = pd.read_parquet(tmp_path / "drop.parquet")
    assert set(dropped) == {"id", "prompt", "chosen", "rejected", "ches", "length", "policy", "seed"}
    first = pairs(0, COUNT, False).nlargest(3, "ches")
    assert [item["ches"] for item in answer["dropped"]] == first["ches"].tolist()
    assert answer["dropped"][0]["prompt"] == f"tell me {first['id'].iloc[0]}"
    assert answered(tmp_path, 0, -1)["dropped"] == []


def test_a_filter_is_measured_against_a_random_subset_of_its_own_size_on_held_out_pairs(tmp_path):
    sets, held_out = {"few": 9.0, "random": 1.0, "low": 3.0}, {"random": 1.0, "low": 5.0}
    answer = answered(tmp_path, -1, 0, sets=sets, held_out=held_out)
    (measured,) = answer["advice"]["measured"]
    assert (measured["lowest"], measured["random"], measured["pairs"]) == ("low", "random", COUNT)
    values = [measured[name]["value"] for name in ("held_out", "chosen", "accuracy")]
    assert values == pytest.approx([4.0, 2.0, -0.04])
    assert ", settled." in " ".join((tmp_path / "table.txt").read_text().split())


def test_what_filtering_was_measured_to_harm_is_not_advised(tmp_path):
    answer = answered(tmp_path, -1, 0, sets={"random": 1.0, "low": 3.0}, held_out={"random": 1.0, "low": -2.0})
    assert (answer["advice"]["by"], answer["advice"]["refuted"]) == (None, "ches")
    assert not (tmp_path / "drop.parquet").exists()
    text = " ".join((tmp_path / "table.txt").read_text().split())
    assert "Drop no pairs: those of highest CHES fall furthest" in text
    assert "Dropping the" not in text


def test_pairs_of_another_data_set_or_chosen_by_a_similarity_tell_nothing_of_what_displaces(tmp_path):
    answer = answered(tmp_path, -1, 0, alone=False, sets={"low": 1.0, "gold": 2.0})
    assert answer["correlations"] == []
    assert answer["sentences"][0].startswith("Only pairs that a similarity had chosen were trained on")
    answer = answered(tmp_path, -1, 0, alone=False, sets={"low": 1.0, "random": 2.0})
    assert {(item["training"], item["subset"]) for item in answer["correlations"]} == {("dpo", "random")}
    answer = answered(tmp_path, -1, 0, alone=False, sets={"own": 1.0, "alike": 2.0})
    assert answer["correlations"] == []


def test_one_policy_with_one_seed_has_intervals_over_pairs_and_is_said_to(tmp_path):
    answer = answered(tmp_path, -1, 0, seeds=1, sets={"random": 1.0, "low": 2.0})
    assert answer["sentences"][-2].startswith("ONE base and ONE seed: intervals are over pairs")
    assert answer["rows"][0]["not_told_from"] == ["random"]
    assert answer["advice"]["measured"][0]["held_out"]["low"] is None
    assert "NOT settled" in " ".join((tmp_path / "table.txt").read_text().split())


def test_three_pairs_or_one_give_an_answer_that_claims_nothing(tmp_path):
    claim = {"name": "a", "claim": "c", "similarity": "ches", "test": "equal_length"}
    for count in (3, 1):
        answer = answered(tmp_path, -1, 0, seeds=1, count=count, sets={"random": 1.0}, claims=(claim,))
        assert answer["sentences"][0].startswith(f"{count} pairs are too few to rank")
        assert answer["advice"]["by"] is None
        assert answer["contrasts"][0]["outcome"] == "Not settled, there is no interval"


def test_a_study_that_but_diagnoses_lists_the_pairs_and_says_nothing_of_displacement(tmp_path):
    answer = answered(tmp_path, -1, 0, alone=False)
    assert answer["sentences"][0].startswith("Nothing was trained")
    assert answer["rows"] == answer["correlations"] == answer["parts"] == answer["singles"] == []
    assert [item["end"] for item in answer["samples"]] == ["highest"] * 3 + ["lowest"] * 3
    ches = [item["ches"] for item in answer["samples"]]
    assert ches == sorted(ches, reverse=True)


def test_the_published_table_s_numbers_are_means_over_bases_of_pairs(tmp_path):
    (told,) = answered(tmp_path, -1, 0, seeds=2)["singles"]
    shares = [(single(pairs(seed, COUNT, False), seed, -1, 0).table()["chosen_change"] < 0).mean() for seed in (0, 1)]
    assert told["displaced"]["value"] == pytest.approx(np.mean(shares))
    assert told["decrease"]["value"] == pytest.approx(0.1)
    assert [told[name]["value"] for name in ("start", "end")] == pytest.approx([0.65, 0.2])  # 0.6 and 0.7, and the end
    assert [told[f"{name}_steady"]["value"] for name in ("start", "end")] == pytest.approx([0.65, 0.2])
    assert [(look["step"], look["prob"]["value"], look["logprob"]["value"]) for look in told["ranks"]] == [(1, 0.5, 3)]
    assert told["unembedding"]["inner"]["value"] == 0.5
    assert told["gained"] == [{"step": 1, "tokens": [["it", 1.0]]}]
    assert told["pairs_steady"] == told["pairs"] == 2 * COUNT


def test_of_a_single_run_what_pairs_alone_did_has_intervals_over_its_pairs(tmp_path):
    (told,) = answered(tmp_path, -1, 0, seeds=1, count=10)["singles"]
    for number in (told["chosen_change"], told["displaced"], told["ranks"][0]["prob"]):
        assert number["low"] < number["value"] < number["high"]
    assert told["start"]["low"] == pytest.approx(0.6)  # all alike
