"""A difference has the interval that its numbers allow, made the way that is said; and none where none can be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import gauge, generalisation, ranking
from rmpipe.artifact import Measurement, Policy, Preferences, Ranking, open_artifact
from rmpipe.comparison import Number, claims, numbers, rows, samples
from rmpipe.config import StudyError
from rmpipe.interval import Estimate, bootstrap, paired_t, t_interval

PROMPTS = [f"prompt {number}" for number in range(40)]


def put(home: Path, address: str, kind: str, **told: Any) -> Path:
    """Write a record as a stage would have; the artifact's folder."""
    stage = address.split("/")[0]
    record = {"stage": stage, "version": 1, "config": {}, "inputs": {}, "kind": kind, "title": stage, "metrics": {}}
    folder = home / "store" / address
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record | told))
    return folder


def aligned(home: Path, name: str, gains: Any, prompts: list[str] = PROMPTS) -> Policy:
    """A policy whose held-out prompts gained so much."""
    gains = np.asarray(gains, dtype=float)
    folder = put(home, f"align/{name}", "Policy", metrics={"truth_gain": float(gains.mean()), "kl": 1.5})
    pd.DataFrame({"prompt": prompts, "truth_gain": gains}).to_parquet(folder / "prompts.parquet")
    return Policy(f"align/{name}", home)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(PROMPTS))


def named(found: list[Number], name: str) -> Number:
    (number,) = (item for item in found if item.name == name)
    return number


def test_gains_on_the_same_prompts_are_paired_prompt_by_prompt(tmp_path, noise):
    a, b = aligned(tmp_path, "a", noise), aligned(tmp_path, "b", noise + 0.1)
    found = named(numbers(a, b), "truth_gain")
    assert found.a == bootstrap(noise)
    # What the prompts share cancels: neither side alone could tell 0.1 from its own noise.
    assert found.a.high - found.a.low > 0.4
    assert (found.difference.low, found.difference.high) == pytest.approx((0.1, 0.1))
    assert found.apart is True
    assert found.how == "paired over 40 prompts of one seed, whose own luck is not in the interval"


def test_an_interval_that_includes_0_tells_nothing_apart(tmp_path, noise):
    found = named(numbers(aligned(tmp_path, "a", noise), aligned(tmp_path, "b", noise[::-1])), "truth_gain")
    assert found.difference.low < 0 < found.difference.high
    assert found.apart is False


def test_gains_on_unlike_prompts_and_numbers_that_have_no_prompts_get_no_interval(tmp_path, noise):
    a = aligned(tmp_path, "a", noise)
    b = aligned(tmp_path, "b", noise + 1, [*PROMPTS[1:], "another"])
    found = numbers(a, b)
    gain, kl = named(found, "truth_gain"), named(found, "kl")
    assert gain.difference.value == pytest.approx(1)
    assert (gain.apart, kl.apart) == (None, None)
    assert gain.how == "no interval: they are of unlike prompts"
    assert kl.how == "no interval: it is not kept prompt by prompt"
    assert gain.json()["difference"] == {"value": pytest.approx(1), "low": None, "high": None}


def test_what_differs_by_rounding_alone_is_not_told_apart():
    tiny = Number("variance", Estimate(0.9), Estimate(0.9), Estimate(2e-16, 1e-16, 3e-16), "")
    small = Number("variance", Estimate(1e-3), Estimate(2e-3), Estimate(1e-3, 0.5e-3, 2e-3), "")
    assert (tiny.apart, small.apart) == (False, True)


def test_the_rows_that_a_measurement_keeps_give_the_numbers_that_it_tells(tiny):
    addresses = [tiny.address("measure", policy="weak", reward_model=name) for name in ("off", "offset")]
    for measured in (open_artifact(address, tiny.home) for address in addresses):
        drawn, told = samples(measured), measured.numbers()
        assert {"variance", "covariance", "accuracy_on", "accuracy_off", "calibration_error"} <= drawn.keys()
        for name, sample in drawn.items():
            assert float(sample.statistic(sample.values)) == pytest.approx(told[name]["value"], abs=1e-6), name
    off, offset = (open_artifact(address, tiny.home) for address in addresses)
    found = named(numbers(off, offset), "variance")
    assert found.difference.value == pytest.approx(found.b.value - found.a.value)
    assert found.apart is True
    assert "pairs" in named(numbers(off, offset), "accuracy_off").how


def test_a_measurement_whose_scores_are_gone_still_tells_its_numbers(another):
    addresses = [another.address("measure", policy="weak", reward_model=name) for name in ("off", "offset")]
    a, b = (open_artifact(address, another.home) for address in addresses)
    another.remove(a.record["inputs"]["scores"])
    found = named(numbers(a, b), "accuracy_on")
    assert found.a == Estimate.of(a.numbers()["accuracy_on"])
    assert found.apart is None


# -- rankings ---------------------------------------------------------------------------------------------------------


def ranked(home: Path, side: str, gains: dict[str, dict[int, float]], moved: float = 0, **claim: str) -> Ranking:
    """A ranking as `tasks.rank` leaves it: a gain for each reward model and seed, over prompts that spread by 0.2."""
    spread = np.linspace(-0.1, 0.1, len(PROMPTS))
    cells, table, inputs = [], [], {"measurements": [], "policies": []}
    for model, by_seed in gains.items():
        for seed, gain in by_seed.items():
            cell = {"seed": seed, "policy": "weak", "reward_model": model, "algorithm": "rloo"}
            name = f"{model}{seed}{gain}{moved}"
            if not (home / "store" / "align" / name).exists():
                aligned(home, name, gain + spread, [f"{seed} {prompt}" for prompt in PROMPTS])
                put(home, f"measure/{name}", "Measurement", metrics={"variance": 0.9})
            cells.append(cell)
            inputs["measurements"].append(f"measure/{name}")
            inputs["policies"].append(f"align/{name}")
            number = bootstrap(gain + spread)
            ends = {"truth_gain_low": number.low, "truth_gain_high": number.high}
            table.append({**cell, "kind": "x", "trained": True, "truth_gain": gain, **ends, "variance": 0.9})
    stated = [{"name": "c", **claim}] if claim else []
    folder = put(home, f"rank/{side}", "Ranking", config={"cells": cells, "claims": stated}, inputs=inputs)
    (folder / "answer.json").write_text(json.dumps(ranking.answer(pd.DataFrame(table), stated)))
    return Ranking(f"rank/{side}", home)


def test_studies_on_the_same_seeds_are_paired_by_seed(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1, 2: 0.5, 3: 0.9}})
    b = ranked(tmp_path, "b", {"off": {1: 0.2, 2: 0.62, 3: 1.01}})
    ((row,), only_a, only_b) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert gain.a == Estimate.of(a.answer()["rows"][0]["truth_gain"])
    assert gain.difference.json() == pytest.approx(paired_t([0.2, 0.62, 1.01], [0.1, 0.5, 0.9]).json())
    assert (gain.apart, gain.how) == (True, "paired over 3 seeds")
    assert (only_a, only_b) == ([], [])


def test_seeds_that_only_one_study_has_are_left_out_of_a_b_and_the_pairs_and_that_is_said(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1, 2: 0.5, 3: 0.9}})
    b = ranked(tmp_path, "b", {"off": {1: 0.2, 2: 0.62, 4: 9.0}})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert gain.difference.json() == pytest.approx(paired_t([0.2, 0.62], [0.1, 0.5]).json())
    assert gain.a.json() == pytest.approx(t_interval([0.1, 0.5]).json())
    assert gain.b.json() == pytest.approx(t_interval([0.2, 0.62]).json())
    assert gain.how.startswith("paired over 2 seeds that both have, and A and B are over these alone")


def test_one_shared_seed_among_others_is_no_pair_and_no_other_seed_is_dropped(tmp_path):
    left, right = [0.8, 0.6, 0.1], [0.395, 0.4, 0.405]
    a = ranked(tmp_path, "a", {"off": dict(zip((1, 2, 3), left, strict=True))})
    b = ranked(tmp_path, "b", {"off": dict(zip((3, 4, 5), right, strict=True))})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    # On seed 3 alone B is ahead by 0.295, surely so over its prompts; over all seeds it is behind, and not surely.
    assert (gain.a.value, gain.b.value) == pytest.approx((0.5, 0.4))
    assert gain.difference.value == pytest.approx(-0.1)
    assert gain.difference.high - gain.difference.low == pytest.approx(1.79, abs=0.01)
    assert gain.apart is False
    assert gain.how == "unpaired, 3 and 3 seeds, one of them the same"


def test_one_seed_against_more_with_that_one_among_them_is_over_all_and_has_no_interval(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1}})
    b = ranked(tmp_path, "b", {"off": {1: 0.2, 2: 0.6}})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert gain.a == Estimate.of(a.answer()["rows"][0]["truth_gain"])
    assert gain.difference.value == pytest.approx(0.3)
    assert gain.apart is None
    assert gain.how.startswith("no interval: unlike seeds")


def test_a_seed_whose_record_is_gone_is_left_out_of_all_three(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1, 2: 0.5, 3: 0.9}})
    b = ranked(tmp_path, "b", {"off": {4: 1.0, 5: 1.2}})
    shutil.rmtree(tmp_path / "store" / "align" / "off30.90")
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert (gain.a.value, gain.b.value, gain.difference.value) == pytest.approx((0.3, 1.1, 0.8))
    assert gain.how == "unpaired, 2 and 2 seeds"


def test_one_shared_seed_is_compared_over_its_prompts(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1}})
    b = ranked(tmp_path, "b", {"off": {1: 0.2}})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert gain.difference.value == pytest.approx(0.1)
    assert gain.apart is True
    assert gain.how.startswith("paired over 40 prompts of one seed")
    assert named(row.numbers, "variance").how == "no interval: it is not kept prompt by prompt"


def test_unlike_seeds_are_compared_unpaired_and_by_welch(tmp_path):
    left, right = [0.1, 0.5, 0.3], [1.1, 1.2]
    a = ranked(tmp_path, "a", {"off": dict(zip((1, 2, 3), left, strict=True))})
    b = ranked(tmp_path, "b", {"off": dict(zip((4, 5), right, strict=True))})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    half = np.sqrt(np.var(left, ddof=1) / 3 + np.var(right, ddof=1) / 2)
    assert gain.how == "unpaired, 3 and 2 seeds"
    assert gain.difference.value == pytest.approx(0.85)
    assert gain.difference.high - gain.difference.low > 2 * 1.96 * half


def test_one_seed_against_another_has_no_interval(tmp_path):
    a, b = ranked(tmp_path, "a", {"off": {1: 0.1}}), ranked(tmp_path, "b", {"off": {2: 0.4}})
    ((row,), _, _) = rows(a, b)
    gain = named(row.numbers, "truth_gain")
    assert gain.difference.value == pytest.approx(0.3)
    assert gain.apart is None
    assert gain.how.startswith("no interval: unlike seeds")


def test_a_row_whose_shared_seeds_have_the_same_artifacts_has_nothing_to_compare(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1, 2: 0.2}, "on": {1: 0.5, 2: 0.6}})
    b = ranked(tmp_path, "b", {"off": {1: 0.1}, "on": {1: 0.7, 2: 0.6}})
    found = {row.names[2]: [number.name for number in row.numbers] for row in rows(a, b)[0]}
    assert found == {"off": [], "on": ["truth_gain", "variance"]}


def test_rows_of_one_study_alone_are_listed_and_ranks_stand_side_by_side(tmp_path):
    a = ranked(tmp_path, "a", {"off": {1: 0.1, 2: 0.11}, "on": {1: 0.9, 2: 0.91}, "old": {1: 0.0, 2: 0.01}})
    b = ranked(tmp_path, "b", {"off": {1: 1.1, 2: 1.12}, "on": {1: 0.9, 2: 0.91}, "new": {1: 0.5, 2: 0.52}})
    both, only_a, only_b = rows(a, b)
    assert {row.names[2]: row.ranks for row in both} == {"on": ("1", "2"), "off": ("2", "1")}
    assert (only_a, only_b) == ([("weak", "rloo", "old")], [("weak", "rloo", "new")])


def test_a_claim_is_named_when_its_verdict_is_another(tmp_path):
    claim = {"higher": "on", "lower": "off"}
    held = ranked(tmp_path, "a", {"on": {1: 0.9, 2: 0.91}, "off": {1: 0.1, 2: 0.11}}, **claim)
    again = ranked(tmp_path, "b", {"on": {1: 0.8, 2: 0.81}, "off": {1: 0.1, 2: 0.11}}, **claim)
    reversed_ = ranked(tmp_path, "c", {"on": {1: 0.1, 2: 0.11}, "off": {1: 0.9, 2: 0.91}}, **claim)
    assert claims(held, again) == []
    (found,) = claims(held, reversed_)
    assert (found["name"], found["policy"]) == ("c", "weak")
    assert found["a"].startswith("Held: ")
    assert found["b"].startswith("Reversed: ")


def test_a_ranking_of_which_the_record_only_is_here_is_refused(tmp_path):
    here = ranked(tmp_path, "a", {"off": {1: 0.1}})
    told = tmp_path / "ancestry" / "rank"
    told.mkdir(parents=True)
    (told / "b.json").write_text((here.path / "record.json").read_text())
    with pytest.raises(StudyError, match="its record only is here"):
        rows(here, Ranking("rank/b", tmp_path))


def test_other_artifacts_have_the_numbers_of_their_records_without_intervals(tmp_path):
    for side, pairs in (("a", 80.0), ("b", 120.0)):
        put(tmp_path, f"prepare/{side}", "Preferences", metrics={"pairs.test": pairs})
    (found,) = numbers(*(Preferences(f"prepare/{side}", tmp_path) for side in "ab"))
    assert (found.a.value, found.b.value) == (80, 120)
    assert found.difference.value == 40
    assert found.apart is None


# -- answers about sets of pairs --------------------------------------------------------------------------------------


def evaluated(home: Path, name: str, correct: Any, prompts: list[str] = PROMPTS) -> Measurement:
    """A reward model asked about the set `para`, a pair a prompt, some ordered right."""
    correct = np.asarray(correct, dtype=float)
    table = pd.DataFrame({"set": "para", "asked": [json.dumps(prompt) for prompt in prompts]})
    table = table.assign(id=table["asked"], chosen="yes", rejected="no", correct=correct, margin=correct - 0.5)
    table = table.assign(chosen_reward=correct, rejected_reward=0.5)
    inputs = {"sets": {"para": "shift/p"}, "scored": {"para": "score/p"}}
    metrics = {"para.accuracy": float(correct.mean())}
    folder = put(home, f"evaluate/{name}", "Measurement", inputs=inputs, metrics=metrics)
    table.to_parquet(folder / "prompts.parquet")
    (folder / "measurement.json").write_text(json.dumps({"para.accuracy": bootstrap(correct).json()}))
    return Measurement(f"evaluate/{name}", home)


def right(count: int) -> np.ndarray:
    return (np.arange(len(PROMPTS)) < count).astype(float)


def judged(home: Path, side: str, counts: dict[str, dict[int, int]], bases: dict[int, str], **claim: str) -> Ranking:
    """An answer as `tasks.judge` leaves it: of each reward model and seed, how many of 40 pairs it ordered right."""
    trials, made = [], []
    for model, by_seed in counts.items():
        for seed, count in by_seed.items():
            name = f"{model}{seed}{count}"
            if not (home / "store" / "evaluate" / name).exists():
                evaluated(home, name, right(count), [f"{seed} {prompt}" for prompt in PROMPTS])
            made.append(Measurement(f"evaluate/{name}", home))
            trials.append({"seed": seed, "policy": "small", "reward_model": model, "base": bases[seed]})
    about = {"kind": "explicit", "trained": True, "made_here": True, "set": "para", "shift": "token"}
    table, pairs = [], []
    for index, (trial, measured) in enumerate(zip(trials, made, strict=True)):
        numbers = measured.numbers()["para.accuracy"]
        nothing = {f"{name}{end}": None for name in generalisation.SHOWN for end in ("", "_low", "_high")}
        ends = {"accuracy": numbers["value"], "accuracy_low": numbers["low"], "accuracy_high": numbers["high"]}
        table.append({**trial, **about, **nothing, **ends})
        pairs.append(measured.table().assign(trial=index))
    frame = pd.DataFrame([row | {"trial": index} for index, row in enumerate(table)])
    answer = {"flow": "generalise", "contrasts": [{"name": "c", "policy": "small", **claim}] if claim else []}
    answer["rows"] = generalisation.rows(frame, pd.concat(pairs, ignore_index=True), 100)
    config = {"trials": trials, "claims": [], "about": {"study": side, "places": []}}
    inputs = {"measurements": [each.address for each in made], "separations": [], "written": [None] * len(made)}
    folder = put(home, f"judge/{side}", "Ranking", config=config, inputs=inputs, summary="", commit=None)
    (folder / "answer.json").write_text(json.dumps(answer))
    return Ranking(f"judge/{side}", home)


TWO = {1: "base/1", 2: "base/2", 3: "base/3"}
ONE = dict.fromkeys(TWO, "base/1")


def test_accuracies_on_a_set_are_paired_by_the_bases_that_both_have(tmp_path):
    a = judged(tmp_path, "a", {"im": {1: 20, 2: 24}, "ex": {1: 30, 2: 31}}, TWO)
    b = judged(tmp_path, "b", {"im": {1: 24, 2: 30}, "ex": {1: 30, 2: 31}, "grm": {1: 9, 2: 9}}, TWO)
    both, only_a, only_b = rows(a, b)
    assert (only_a, only_b) == ([], [("small", "para", "grm")])
    found = {row.names: row for row in both}
    assert found["small", "para", "ex"].numbers == []
    (number,) = found["small", "para", "im"].numbers
    assert (number.name, number.how) == ("accuracy", "paired over 2 bases")
    told = [each["accuracy"] for each in a.answer()["rows"] if each["reward_model"] == "im"]
    assert number.a == Estimate.of(told[0])
    assert number.difference == paired_t([0.6, 0.75], [0.5, 0.6])
    json_ = found["small", "para", "im"].json()
    assert [json_[key] for key in ("policy", "set", "reward_model")] == ["small", "para", "im"]


def test_seeds_that_share_a_base_are_no_units_their_prompts_are(tmp_path):
    a = judged(tmp_path, "a", {"im": {1: 20, 2: 24}}, ONE)
    b = judged(tmp_path, "b", {"im": {1: 24, 2: 30}}, ONE)
    (number,) = rows(a, b)[0][0].numbers
    assert number.how == "paired over 80 pairs of one base, whose own luck is not in the interval"
    assert (number.a.value, number.b.value, number.difference.value) == pytest.approx((0.55, 0.675, 0.125))
    # 10 of 80 pairs turned right, and none wrong.
    assert 0.03 < number.difference.low < 0.1 < number.difference.high < 0.22


def test_bases_of_unlike_seeds_are_not_paired(tmp_path):
    a = judged(tmp_path, "a", {"im": {1: 20}}, TWO)
    b = judged(tmp_path, "b", {"im": {2: 24, 3: 30}}, TWO)
    (number,) = rows(a, b)[0][0].numbers
    assert number.difference.value == pytest.approx(0.675 - 0.5)
    assert (number.apart, number.how) == (None, "no interval: unlike bases, and but one of A or B")


def test_two_evaluations_are_compared_set_by_set_over_the_same_pairs(tmp_path):
    a, b = evaluated(tmp_path, "a", right(20)), evaluated(tmp_path, "b", right(30))
    found = named(numbers(a, b), "para.accuracy")
    assert (found.a.value, found.b.value, found.difference.value) == (0.5, 0.75, 0.25)
    assert found.apart is True
    assert found.how == "paired over 40 pairs of one seed, whose own luck is not in the interval"
    drawn = samples(b)
    assert float(drawn["para.loss"].statistic(drawn["para.loss"].values)) == pytest.approx(
        0.75 * np.log1p(np.exp(-0.5)) + 0.25 * np.log1p(np.exp(0.5))
    )


def test_a_claim_about_sets_is_told_where_its_verdict_is_another(tmp_path):
    counts = {"im": {1: 20}}
    a = judged(tmp_path, "a", counts, TWO, sentence="Held: higher by 0.10.")
    b = judged(tmp_path, "b", counts, TWO, sentence="Reversed: lower by 0.10.")
    told = {"name": "c", "policy": "small", "a": "Held: higher by 0.10.", "b": "Reversed: lower by 0.10."}
    assert claims(a, b) == [told]
    assert claims(a, judged(tmp_path, "d", counts, TWO, sentence="Held: higher by 0.20.")) == []


def tracked(home: Path, name: str, changes: list[float]) -> Measurement:
    """What a training did to pairs whose log pi(y+) changed so much."""
    folder = put(home, f"track/{name}", "Measurement", metrics={"trained.chosen": float(np.mean(changes))})
    (folder / "measurement.json").write_text(json.dumps({
        "trained.chosen": {"value": float(np.mean(changes)), "low": None, "high": None},
        "kl": {"value": 1.0, "low": None, "high": None},
    }))  # fmt: skip
    pd.DataFrame({
        "set": "trained", "prompt": [json.dumps(f"ask {n}") for n in range(len(changes))], "chosen": " yes",
        "rejected": " no", "chosen_before": -5.0, "chosen_after": np.add(changes, -5.0), "rejected_before": -6.0,
        "rejected_after": -6.0, "fall": 0.5,
    }).to_parquet(folder / "prompts.parquet")  # fmt: skip
    return Measurement(f"track/{name}", home)


def weighed(home: Path, name: str, changes: dict[int, list[float]]) -> Ranking:
    """An answer about one subset, trained on from a base for each seed."""
    made = {seed: tracked(home, f"{name}{seed}", values) for seed, values in changes.items()}
    each = [{"seed": seed, "policy": "p", "base": f"b{seed}", "training": "dpo", "subset": "low"} for seed in changes]
    inputs = {"tracked": [one.address for one in made.values()], "after": []}
    folder = put(home, f"weigh/{name}", "Ranking", inputs=inputs, config={"about": {"treatments": each}, "claims": []})
    mean = t_interval([float(np.mean(values)) for values in changes.values()]).json()
    row = {"policy": "p", "training": "dpo", "subset": "low", "rank": "1", "chosen": mean, "refusal": None}
    (folder / "answer.json").write_text(json.dumps({"flow": "displace", "rows": [row], "contrasts": []}))
    return Ranking(f"weigh/{name}", home)


def test_two_trainings_are_compared_over_the_same_pairs(tmp_path):
    a, b = tracked(tmp_path, "a", [-1.0, 1.0] * 20), tracked(tmp_path, "b", [-2.0, 0.5] * 20)
    found = named(numbers(a, b), "trained.chosen")
    assert found.difference.value == pytest.approx(-0.75)
    assert found.how == "paired over 40 pairs of one seed, whose own luck is not in the interval"
    assert named(numbers(a, b), "kl").how == "no interval: it is not kept prompt by prompt"
    drawn = samples(b)["trained.displaced"]
    assert drawn.values.mean() == 0.5


def test_answers_about_displacement_are_compared_over_bases(tmp_path):
    a = weighed(tmp_path, "a", {1: [-1.0], 2: [-2.0]})
    b = weighed(tmp_path, "b", {1: [-1.5], 2: [-2.25]})
    both, only_a, only_b = rows(a, b)
    assert (both[0].names, only_a, only_b) == (("p", "dpo", "low"), [], [])
    (number,) = both[0].numbers
    assert (number.name, number.how) == ("chosen", "paired over 2 bases")
    assert number.difference == paired_t([-1.5, -2.25], [-1.0, -2.0])
    assert both[0].json()["subset"] == "low"


def test_refusals_are_compared_prompt_by_prompt(tmp_path):
    def refused(name: str, values: list[float | None]) -> Measurement:
        folder = put(tmp_path, f"classify/{name}", "Measurement", metrics={"refusal": 0.5})
        (folder / "measurement.json").write_text(json.dumps({"refusal": {"value": 0.5, "low": None, "high": None}}))
        asked = [json.dumps(f"ask {n // 2}") for n in range(len(values))]
        table = pd.DataFrame({"prompt": asked, "response": "no", "refused": pd.array(values, dtype="Float64")})
        table.to_parquet(folder / "prompts.parquet")
        return Measurement(f"classify/{name}", tmp_path)

    a, b = refused("a", [1.0, 0.0, 0.0, 0.0]), refused("b", [1.0, None, 1.0, 0.0])
    assert samples(a)["refusal"].values[:, 0].tolist() == [0.5, 0.0]
    assert named(numbers(a, b), "refusal").difference.value == pytest.approx(0.5)


def tried(home: Path, name: str, gains: dict[int, float], told: bool = True) -> Ranking:
    """An answer to `vanish` about one arm, on a base for each seed."""
    each = [{"seed": seed, "policy": "p", "base": f"b{seed}", "reward": "r", "arm": "few"} for seed in gains]
    for seed in gains:
        put(home, f"score/{name}{seed}", "Scores", metrics={"mean": 0.5})
    inputs = {"after": [f"score/{name}{seed}" for seed in gains]}
    folder = put(home, f"conclude/{name}", "Ranking", inputs=inputs, config={"about": {"trials": each}, "claims": []})
    row = {"policy": "p", "reward": "r", "arm": "few", "rank": "1", "gain": t_interval(list(gains.values())).json()}
    answer: dict[str, Any] = {"flow": "vanish", "rows": [row], "contrasts": []}
    answer["runs"] = [one | {"gain": gains[one["seed"]], "kl": None} for one in each] if told else []
    (folder / "answer.json").write_text(json.dumps(answer))
    return Ranking(f"conclude/{name}", home)


def test_answers_about_vanishing_gradients_are_compared_over_bases(tmp_path):
    a, b = tried(tmp_path, "a", {1: 0.25, 2: 0.5}), tried(tmp_path, "b", {1: 0.5, 2: 1.0})
    both, only_a, only_b = rows(a, b)
    assert (both[0].names, only_a, only_b) == (("p", "r", "few"), [], [])
    (number,) = both[0].numbers
    assert (number.name, number.how) == ("gain", "paired over 2 bases")
    assert number.difference == paired_t([0.5, 1.0], [0.25, 0.5])


def test_gains_that_an_answer_does_not_tell_run_by_run_get_no_interval(tmp_path):
    sides = [tried(tmp_path, name, {1: 0.25, 2: 0.5}, told=False) for name in "ab"]
    (number,) = rows(*sides)[0][0].numbers
    assert number.a == t_interval([0.25, 0.5])
    assert "are not known of both" in number.how


def gauged(home: Path, name: str, std: list[float]) -> Measurement:
    """What a policy can learn at prompts of these stds, of the last of which no gradient was taken."""
    table = pd.DataFrame({"prompt": [json.dumps(prompt) for prompt in PROMPTS[: len(std)]], "std": std, "mean": 0.5})
    table = table.assign(flat=table["std"] < 0.1, squared=4 * table["std"] ** 2, bound=np.nan, tighter=np.nan)
    table.loc[len(std) - 1, "squared"] = np.nan
    told = {key: number.json() for key, number in gauge.numbers(table).items()}
    folder = put(home, f"gauge/{name}", "Gauge", config={"low": 0.25})
    (folder / "measurement.json").write_text(json.dumps(told))
    table.to_parquet(folder / "prompts.parquet")
    return Measurement(f"gauge/{name}", home)


def test_what_can_be_learnt_is_compared_prompt_by_prompt(tmp_path):
    std = list(np.linspace(0.0, 1.0, 20))
    a, b = gauged(tmp_path, "a", std), gauged(tmp_path, "b", [min(1.0, one + 0.05) for one in std])
    drawn = samples(a)
    for name, sample in drawn.items():
        assert float(sample.statistic(sample.values)) == pytest.approx(a.numbers()[name]["value"]), name
    assert set(drawn) == {"flat", "zero", "mean", "std", "spearman", "pearson"}
    assert len(drawn["spearman"].units) == len(drawn["std"].units) - 1
    found = named(numbers(a, b), "std")
    assert found.difference.value == pytest.approx(0.0475)
    assert found.how == "paired over 20 prompts of one seed, whose own luck is not in the interval"
    assert named(numbers(a, b), "norm_low").how == "no interval: it is not kept prompt by prompt"
