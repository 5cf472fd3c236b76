"""What a forecast says: who is first, who is refused and why, and the same in a table, rows and numbers."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import foretold
from rmpipe.forecast import LABELS, PREDICTORS
from rmpipe.verdict import WIDTH

FEW = "4 prompts have two labelled responses or more, and 10 are needed; label more"
THIN = "what it makes of the policy rests on 3% of the samples"
FORMULA = {"predictor": "rehearsed", "why": "its 3 steps are gone through on the samples"}


def row(name: str, value: float | None, rank: str = "1", **more: Any) -> dict[str, Any]:
    """Of a reward model that is foretold, or refused where there is no value."""
    told = None if value is None else {"value": value, "low": value - 0.1, "high": value + 0.1}
    place = {"truth": "gold", "policy": "weak", "algorithm": "rloo"}
    about = {"reward_model": name, "kind": "explicit", "trained": True, "formula": "rehearsed"}
    known = dict.fromkeys(PREDICTORS) | {"variance": {"value": 0.5, "low": 0.4, "high": 0.6}}
    refused = {"rank": "?", "refused": FEW} if value is None else {"rank": rank, "refused": None}
    return place | about | known | {"forecast": told, "not_told_from": []} | refused | more


def answer(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    spent = {"samples": 240, "labels": {"gold": 120}, "rlhf_samples": 4800}
    told = {"rows": list(rows), "formulas": {"rloo": FORMULA}, "paid": [], "spent": spent} | more
    return told | {"sentences": foretold.sentences(told)}


def first(*rows: dict[str, Any]) -> str:
    said: str = answer(*rows)["sentences"][0]
    return said


# -- sentences --------------------------------------------------------------------------------------------------------


def test_the_first_is_told_apart_from_the_others_or_tied_with_some():
    assert first(row("a", 0.9), row("b", 0.2, "2")) == (
        "weak, rloo: a (0.90 [0.80, 1.00]) is foretold to teach best, told apart from the others."
    )
    tied = first(row("a", 0.9, "1="), row("b", 0.85, "1="), row("c", 0.2, "3"))
    assert "foretold to teach best, not told apart from b; more prompts or labels may part them." in tied
    said = first(row("a", 0.9, not_told_from=["b"]), row("b", 0.2, "2"))
    assert "is foretold to teach best, but for b, which it is not told apart from." in said


def test_the_ground_truth_itself_is_nobody_to_choose():
    said = first(row("gold", 1.0), row("a", 0.6, "2"), row("b", 0.2, "3"))
    assert "a (0.60 [0.50, 0.70]) is foretold to teach best (the ground truth itself aside), told apart" in said
    assert "nobody but the ground truth itself" in first(row("gold", 1.0))


def test_the_highest_that_is_not_told_from_nothing_is_not_said_to_teach():
    said = first(row("a", 0.05, "1="), row("b", -0.2, "1="))
    assert said == "weak, rloo: nobody is told from teaching nothing; a (0.05 [-0.05, 0.15]) is highest."


def test_each_is_refused_for_its_own_reason():
    said = first(row("a", 0.9), row("b", 0.2, "2"), row("c", None, refused=THIN), row("d", None), row("e", None))
    assert said.endswith(f"; c: not told, as {THIN}; d and e: not told, as {FEW}.")
    assert first(row("c", None), row("d", None)) == f"weak, rloo: nothing is foretold: {FEW}."
    mixed = first(row("c", None), row("d", None, refused=THIN))
    assert mixed == f"weak, rloo: nothing is foretold: c: not told, as {FEW}; d: not told, as {THIN}."


@pytest.mark.parametrize("others", [[], [row("b", None)]])
def test_one_alone_is_not_told_apart_from_anybody(others: list[dict[str, Any]]):
    said = first(row("a", 0.9), *others)
    assert "is the only reward model that is foretold, so there is nothing to choose between" in said
    assert "told apart" not in said


def test_nobody_is_foretold_to_teach_where_the_best_lets_the_ground_truth_fall():
    assert "nobody is foretold to teach; the best, a (-0.50" in first(row("a", -0.5), row("b", -0.9, "2"))
    ends = {"low": None, "high": None}
    best = first(row("a", 0.9, forecast={"value": 0.9} | ends), row("b", 0.2, "2"))
    assert "a (0.90) is foretold to teach best" in best
    assert "nobody" in first(row("a", -0.5, forecast={"value": -0.5} | ends), row("b", -0.9, "2"))


def test_it_says_by_what_formula_what_it_rests_on_and_how_far_that_can_be_leant_on():
    said = answer(row("a", 0.9), row("b", 0.2, "2"))["sentences"]
    assert said[1] == "rloo: its 3 steps are gone through on the samples."
    assert "It rests on 240 samples and 120 labels of gold; RLHF on every one of them draws 4,800, and" in said[2]
    assert "this is 5.0% of it." in said[2]
    assert said[3:] == [foretold.REHEARSED]
    assert "and that teach" in foretold.REHEARSED
    rule = {"rloo": FORMULA | {"predictor": "tilted"}}
    assert answer(row("a", 0.9), formulas=rule)["sentences"][3:] == [foretold.FIRST]


def test_labels_of_ones_own_and_runs_that_were_paid_for_are_named():
    spent = {"samples": 240, "labels": {LABELS: 120}, "rlhf_samples": 4800}
    said = answer(row("a", 0.9, scaling="gains are scaled by a"), paid=["a"], spent=spent)["sentences"]
    assert "Gains are scaled by a." in said
    assert any("120 labels of your own" in text for text in said)


def test_gains_are_said_to_be_scaled_where_they_are_and_why_not_elsewhere():
    scaled, unscaled = {"scaling": "gains are scaled by a"}, {"scaling": "gains are not scaled: nothing came of a"}
    alike = answer(row("a", 0.9, **scaled), row("a", 0.9, policy="strong", **scaled))["sentences"]
    assert [text for text in alike if "scaled" in text] == ["Gains are scaled by a."]
    places = [("weak", unscaled), ("strong", scaled), ("other", unscaled)]
    mixed = answer(*(row("a", 0.9, policy=policy, **said) for policy, said in places))["sentences"]
    assert [text for text in mixed if "scaled" in text] == [
        "weak, rloo; other, rloo: gains are not scaled: nothing came of a.", "strong, rloo: gains are scaled by a.",
    ]  # fmt: skip


def test_of_pairs_no_gain_is_told_and_why_not():
    assert foretold.ORDER in answer(row("a", 0.9), pairs=True)["sentences"]
    assert foretold.ORDER not in answer(row("a", 0.9))["sentences"]
    gains = "standard deviations under the initial policy"
    number = {"value": 0.2, "low": 0.1, "high": 0.3}
    assert gains in " ".join(foretold.table(answer(row("a", 0.9, gain_foretold=number))).split())
    assert gains not in " ".join(foretold.table(answer(row("a", 0.9), pairs=True)).split())


def test_each_truth_policy_and_algorithm_has_a_sentence_and_a_block():
    told = answer(row("a", 0.9), row("a", 0.8, truth="tone"), row("a", 0.7, policy="strong"))
    assert [text.split(":")[0] for text in told["sentences"][:3]] == [
        "weak, rloo, by gold", "weak, rloo, by tone", "strong, rloo, by gold"]  # fmt: skip
    assert foretold.table(told).count("rank  reward model") == 3


# -- a table, rows and numbers ----------------------------------------------------------------------------------------


def test_the_table_has_a_line_a_reward_model_and_is_no_wider_than_a_terminal():
    told = answer(row("a", 0.9), row("b", 0.2, "2", trained=False), row("c", None))
    lines = foretold.table(told).splitlines()
    assert lines[0] == "weak, rloo"
    assert lines[1].split() == ["rank", "reward", "model", "forecast", "variance"]
    assert lines[2].split() == ["1", "a", "0.90", "[0.80,", "1.00]", "0.50", "[0.40,", "0.60]"]
    assert lines[3].startswith("2     b *")
    assert "not told" in lines[4]
    assert "* constructed, not trained." in " ".join(line.strip() for line in lines)
    assert max(map(len, lines)) <= WIDTH
    assert "* constructed" not in foretold.table(answer(row("a", 0.9)))


def test_what_was_paid_for_is_not_told_as_a_gain_that_was_foretold():
    gain = {"value": 0.31, "low": 0.2, "high": 0.4}
    paid = row("a", 0.9, gain_foretold=gain, calibrates=True)
    other = row("b", 0.2, "2", gain_foretold=gain | {"value": 0.07}, calibrates=False)
    first, second = foretold.table(answer(paid, other)).splitlines()[2:4]
    assert "paid for" in first
    assert "0.31" not in first
    assert "0.07 [0.20, 0.40]" in second


def test_a_flat_row_has_a_number_a_column_and_the_ends_of_the_forecast():
    told, refused = foretold.flat([row("a", 0.9), row("c", None)])
    assert (told["forecast"], told["variance"], told["ip"], told["refused"]) == (0.9, 0.5, None, "")
    assert (told["low"], told["high"]) == (pytest.approx(0.8), pytest.approx(1.0))
    assert (refused["forecast"], refused["low"], refused["refused"]) == (None, None, FEW)
    assert told.keys() == refused.keys()


def test_runs_compare_what_is_foretold_and_not_what_is_refused():
    assert foretold.metrics([row("a", 0.9), row("c", None)]) == {"gold.weak.rloo.a": 0.9}


def test_the_summary_says_of_how_many_places_and_who_is_first_most_often():
    rows = row("a", 0.9), row("b", 0.9, truth="tone"), row("b", 0.9, policy="strong")
    assert foretold.summary(answer(*rows)) == "3 places, first most often b"
    assert foretold.summary(answer(row("c", None))) == "1 place, nothing foretold"
    itself = [row("gold", 1.0, policy=policy) for policy in ("weak", "strong")]
    rest = row("b", 0.6, "2="), row("c", 0.5, "2="), row("c", 0.4, "2", policy="strong")
    assert foretold.summary(answer(*itself, *rest)) == "2 places, first most often c"
