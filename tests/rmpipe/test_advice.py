"""Advice: which of CHES and length it is, in words, and no pairs are dropped that nothing speaks for dropping."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import advice
from rmpipe.attribution import ALONE
from rmpipe.diagnosis import LENGTH
from rmpipe.generalisation import EVERY

BELOW, AROUND, ABOVE = ({"value": v, "low": v - 0.2, "high": v + 0.2} for v in (-0.5, 0.0, 0.5))
BARE = {"value": -0.9, "low": None, "high": None}


WIDE = {"value": -0.3, "low": -0.7, "high": 0.1}


def item(name: str, spearman: Any, given: Any, equal: Any, length_given: Any = None, **keys: Any) -> dict[str, Any]:
    told = {"policy": "p", "training": ALONE, "subset": "", "similarity": name, "equal": 12, "within": 0.0, "bases": 2}
    told |= {"spearman": spearman, "given_length": given, "given_edit": None, "equal_length": equal, "pairs": 80}
    told["displaced"] = {"value": 0.4, "low": 0.3, "high": 0.5}
    return told | {"length_given": length_given} | keys


def answer(*found: dict[str, Any], **more: Any) -> dict[str, Any]:
    places = [{"policy": "p", "base": "a", "seed": 1}, {"policy": "p", "base": "b", "seed": 2}]
    return {"correlations": list(found), "rows": [], "ladders": [], "parts": [], "contrasts": [], "places": places,
            "singles": [], "advice": advised(by=None)} | more  # fmt: skip


def advised(**told: Any) -> dict[str, Any]:
    savings = [{"share": advice.DROPPED, "saved": ABOVE, "displaced": AROUND, "displaced_all": ABOVE}]
    plain = {"by": "ches", "refuted": None, "savings": savings, "measured": [], "of": 80, "training": ALONE}
    return plain | told


def tried(held_out: Any, **told: Any) -> dict[str, Any]:
    plain = {"training": "dpo", "lowest": "low", "random": "any", "pairs": 40, "chosen": BELOW, "accuracy": AROUND}
    return plain | {"held_out": held_out} | told


@pytest.mark.parametrize(
    ("ches", "length", "said"),
    [
        ((BELOW, AROUND, AROUND, BELOW), BELOW, "The difference in length explains it"),
        ((BELOW, BELOW, BELOW, AROUND), AROUND, "CHES goes with displacement, and the difference in length alone does"),
        ((BELOW, BELOW, None, AROUND), AROUND, "CHES goes with displacement, and the difference in length alone does"),
        ((BELOW, BELOW, BELOW, BELOW), BELOW, "CHES goes with displacement beyond what the difference in length"),
        ((AROUND, BELOW, BELOW, AROUND), AROUND, "CHES goes with displacement once the difference in length is taken"),
        ((BELOW, AROUND, AROUND, AROUND), BELOW, "CHES and the difference in length go with displacement, and cannot"),
        ((BELOW, AROUND, AROUND, AROUND), AROUND, "CHES goes with displacement, and whether beyond the difference in"),
        ((AROUND, AROUND, AROUND, AROUND), BELOW, "The difference in length goes with displacement, and whether"),
        ((AROUND, AROUND, AROUND, AROUND), AROUND, "Neither CHES nor the difference in length is settled"),
        ((ABOVE, ABOVE, ABOVE, ABOVE), ABOVE, "Neither CHES nor the difference in length is settled"),
        ((BARE, BARE, BARE, BARE), BARE, "Neither CHES nor the difference in length is settled"),
        ((None, None, None, None), None, "Neither CHES nor the difference in length is settled"),
    ],
)
def test_the_first_line_is_what_the_intervals_bear_out(ches, length, said):
    first = advice.sentences(answer(item("ches", *ches), item(LENGTH, length, None, None)))[0]
    assert first.startswith(said)


def test_where_hardly_a_pair_is_displaced_that_is_said_first_and_none_is_dropped():
    rare = {"displaced": {"value": 0.01, "low": 0.0, "high": 0.02}}
    found = [item("ches", BELOW, BELOW, BELOW, AROUND, **rare), item(LENGTH, AROUND, None, None, **rare)]
    first, *more = advice.sentences(answer(*found))
    assert first.startswith(
        "Hardly a preferred response falls (0.01 [0.00, 0.02] of them), so what is ranked is how far"
    )
    assert "displacement" not in first
    assert "Drop no pairs: hardly one is displaced." in more
    assert advice.best(found) is None


def test_pairs_are_not_dropped_by_what_ranks_them_alone_and_not_together():
    alone = [item("edit", BELOW, BELOW, BELOW), item("ches", BELOW, BELOW, BELOW)]
    together = {"training": "dpo", "subset": "random"}
    for edit, best in ((AROUND, "ches"), (BELOW, "edit")):
        assert (
            advice.best(
                [*alone, item("edit", edit, edit, edit, **together), item("ches", BELOW, AROUND, None, **together)]
            )
            == best
        )
    told = advice.sentences(
        answer(*alone, item(LENGTH, AROUND, None, None), item("edit", AROUND, AROUND, None, **together))
    )
    assert "Trained on together, dpo on random: edit similarity (minus the distance) 0.00 [-0.20, 0.20]." in told


def test_too_few_pairs_are_said_to_be_too_few():
    few = item("ches", None, None, None, pairs=4), item(LENGTH, None, None, None, pairs=4)
    assert advice.sentences(answer(*few))[0].startswith("4 pairs are too few to rank; train on 10 or more.")


@pytest.mark.parametrize(
    ("given", "length_given", "said"),
    [
        (BELOW, BELOW, "CHES goes with displacement beyond what the difference in length explains, and length beyond"),
        (BELOW, AROUND, "CHES goes with displacement, and the difference in length alone does not explain it"),
    ],
)
@pytest.mark.parametrize(("equal", "word"), [(WIDE, "not settled"), (AROUND, "not settled"), (ABOVE, "reversed")])
def test_few_pairs_of_equal_length_take_nothing_from_what_is_settled_given_length(
    given, length_given, said, equal, word
):
    ches = item("ches", BELOW, given, equal, length_given)
    first = advice.sentences(answer(ches, item(LENGTH, BELOW, None, None)))[0]
    assert first.startswith(said)
    assert f"; among pairs of equal length that is {word} (12 pairs). Spearman" in first
    near = advice.sentences(answer(ches | {"within": 0.1}, item(LENGTH, BELOW, None, None)))[0]
    assert f"; among pairs of equal length within 10% that is {word} (12 pairs)" in near
    assert advice.best([ches]) is None  # and yet pairs are not dropped for it


def test_what_the_edit_similarity_leaves_of_ches_is_told_in_the_answer_and_in_the_table():
    shown = answer(item("ches", BELOW, BELOW, None, given_edit=ABOVE), item(LENGTH, AROUND, None, None))
    shown["sentences"] = advice.sentences(shown)
    assert "CHES given the edit similarity 0.50 [0.30, 0.70]" in shown["sentences"][0]
    lines = advice.table(shown).splitlines()
    assert lines[1].split() == ["similarity", "Spearman", "given", "length", "given", "edit", "equal", "length"]
    assert "0.50 [0.30, 0.70]" in lines[2]


def test_pairs_are_dropped_by_what_is_clearest_of_those_borne_out():
    lower = BELOW | {"value": -0.7}
    found = [item("ches", BELOW, BELOW, BELOW), item("mine", lower, BELOW, None), item("edit", lower, lower, AROUND),
             item(LENGTH, lower, None, None)]  # fmt: skip
    assert advice.best(found) == "mine"
    assert advice.best(found[2:]) is None


def test_without_a_similarity_that_is_borne_out_the_advice_is_to_drop_none():
    said = advice.sentences(answer(item("ches", BELOW, AROUND, None, BELOW), item(LENGTH, BELOW, None, None)))
    assert any(text.startswith("Drop no pairs: no similarity is borne out in every test") for text in said)


SOUND = (item("ches", BELOW, BELOW, None, AROUND), item(LENGTH, AROUND, None, None))


def test_what_is_saved_is_an_expectation_until_sets_were_trained_on():
    (said,) = [text for text in advice.sentences(answer(*SOUND, advice=advised())) if text.startswith("Dropping")]
    assert "leaves pairs whose log pi(y+) ends 0.50 [0.30, 0.70] nats higher" in said
    assert "was not measured: add subsets lowest and random of one size" in said
    assert "They are listed in drop.parquet" in said


@pytest.mark.parametrize(
    ("gap", "word"), [(ABOVE, "settled"), (AROUND, "NOT settled"), (BARE, "NOT settled"), (None, "NOT settled")]
)
def test_what_was_measured_is_of_held_out_pairs_with_the_share_kept_and_the_cost(gap, word):
    told = advised(measured=[tried(gap)])
    (text,) = [text for text in advice.sentences(answer(*SOUND, advice=told)) if text.startswith("Measured")]
    assert text.startswith("Measured under dpo: log pi(y+) of the same held-out pairs after low (50% of the pairs")
    assert f"less that after any {advice.estimate(gap)}, {word}. Of each subset's own pairs, which are not" in text
    assert text.endswith("What it costs: accuracy on held-out pairs moves by 0.00 [-0.20, 0.20].")


def test_each_training_has_its_own_measurement():
    told = advised(measured=[tried(ABOVE), tried(AROUND, training="ipo")])
    said = [text for text in advice.sentences(answer(*SOUND, advice=told)) if text.startswith("Measured under")]
    assert [", settled." in text for text in said] == [True, False]


def test_pairs_are_not_dropped_where_that_was_measured_to_do_harm():
    measured = [tried(ABOVE), tried(BELOW, training="ipo")]
    assert advice.harmful(measured)
    assert not advice.harmful([tried(AROUND), tried(BARE), tried(None)])
    said = advice.sentences(answer(*SOUND, advice=advised(by=None, refuted="ches", measured=measured)))
    assert not any(text.startswith("Dropping") for text in said)
    place = next(index for index, text in enumerate(said) if text.startswith("Drop no pairs: those of highest CHES"))
    assert "-0.50 [-0.70, -0.30], settled" in said[place + 2]


def test_the_answer_rests_on_pairs_trained_on_alone_before_sets_and_on_all_policies_together():
    alone, sets = item("ches", BELOW, BELOW, None), item("ches", ABOVE, ABOVE, None, training="dpo", subset="all")
    assert advice.headline([sets, alone]) == [alone]
    every = item("ches", ABOVE, ABOVE, None, policy="every base")
    assert advice.headline([every, alone]) == [every]
    assert advice.headline([every | {"bases": 1}, alone]) == [alone]  # and what was finetuned from it is no other base
    assert advice.headline([]) == []


def test_where_nothing_tells_of_displacement_that_is_said_and_nothing_advised():
    said = advice.sentences(answer())
    assert said[0].startswith("Nothing was trained, so nothing is said of what displaces; add [single]")
    assert not any("rop" in text.split(":")[0] for text in said[:-1])
    row = {"policy": "p", "training": "dpo", "subset": "low", "chosen": ABOVE, "not_told_from": [], "refusal": None}
    assert advice.sentences(answer(rows=[row]))[0].startswith("Only pairs that a similarity had chosen were trained on")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ("pa1 pb2", "over the means of 2 bases, uncorrected for the number of comparisons."),
        ("pa1 pa2", "ONE base: intervals are over 2 seeds, and another base may order pairs otherwise."),
        ("pa1", "ONE base and ONE seed: intervals are over pairs, and another base may order them otherwise."),
        ("pa1 qa1", "ONE base and ONE seed: intervals are over pairs, and another base may order them otherwise."),
        ("pa1 qb1", "of comparisons. Of one policy alone: p over the pairs of one run, q over the pairs of one run."),
        ("pa1 pa2 qb1 qc2", "comparisons. Of one policy alone: p over 2 seeds of one base, q over 2 bases."),
    ],
)
def test_what_intervals_are_over_is_said_of_all_policies_and_of_each(places, said):
    each = [{"policy": policy, "base": base, "seed": int(seed)} for policy, base, seed in places.split()]
    found = advice.sentences(answer(places=each))
    assert found[-2].endswith(said)
    assert found[-1] == advice.PUBLISHED
    assert "ontrol" not in advice.PUBLISHED  # nothing is known of what was not published


def test_the_table_has_a_dash_for_what_is_not_known_and_no_sentence_wider_than_a_terminal():
    shown = answer(item("ches", BELOW, BELOW, None, AROUND), item(LENGTH, AROUND, None, None))
    shown["parts"] = [
        {"policy": "p", "training": ALONE, "subset": "", "similarity": "ches", "part": part, "change": change}
        for part, change in ((1, ABOVE), (4, BELOW))
    ]
    shown["sentences"] = advice.sentences(shown)
    lines = advice.table(shown).splitlines()
    assert lines[0] == "p, each pair trained on alone: what goes with the change of log pi(y+)"
    assert lines[2].split() == ["ches", "-0.50", "[-0.70,", "-0.30]", "-0.50", "[-0.70,", "-0.30]", "-", "-"]
    assert "ches        0.50 [0.30, 0.70]  -0.50 [-0.70, -0.30]" in lines
    assert max(map(len, lines)) <= advice.WIDTH


def test_the_table_of_several_policies_has_the_quarters_of_what_its_first_block_is_of():
    found, parts = [], []
    for policy, bases in ((EVERY, 1), ("p", 1), ("q", 1)):
        found += [
            item("ches", BELOW, BELOW, None, policy=policy, bases=bases),
            item(LENGTH, AROUND, None, None, policy=policy, bases=bases),
        ]
        keys = {"policy": policy, "training": ALONE, "subset": "", "similarity": "ches"}
        parts += [keys | {"part": part, "change": ABOVE if policy == "p" else BELOW} for part in (1, 2, 3, 4)]
    told = answer(*found, parts=parts)
    text = advice.table(told | {"sentences": []})
    assert "p, each pair trained on alone: change of log pi(y+) in" in text
    assert text.count("0.50 [0.30, 0.70]") >= 2
