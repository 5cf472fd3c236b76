"""The remedy: the verdict its intervals bear out, how many labels, a table, and nothing said of what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from rmpipe import remedy
from rmpipe.remedy import PUBLISHED, rests_on, sentences, significant, table, units
from rmpipe.verdict import WIDTH
from tests.rmpipe.test_vanished import UNKNOWN, before, number, told, without


@pytest.fixture
def answer() -> dict[str, Any]:
    """With all of its parts, and with what it says of them."""
    whole = told()
    return whole | {"sentences": sentences(whole)}


def said(answer: dict[str, Any], start: str) -> str:
    """The one sentence that begins so."""
    (found,) = [text for text in sentences(answer) if text.startswith(start)]
    return found


# -- what vanishes ----------------------------------------------------------------------------------------------------


def test_the_first_sentence_is_the_verdict_with_its_numbers(answer):
    assert answer["sentences"][0] == (
        "small, rouge: the gradient vanishes where rewards hardly vary. Its norm is 0.013 [0.011, 0.014] at the prompts"
        " of low std (0.00 [0.00, 0.00]) and 1.2e+03 [1.1e+03, 1.4e+03] at the prompts of high std (0.17 [0.15, 0.19]),"
        " a difference of 1.2e+03 [1.1e+03, 1.4e+03]; Spearman with the std 0.90 [0.81, 0.99]; 0.30 [0.27, 0.33] of the"
        " prompts teach nothing (whitened std under 0.05)."
    )
    answer["vanished"][0]["norm_gap"] = None
    assert "high std (0.17 [0.15, 0.19]); Spearman" in sentences(answer)[0]


VANISHES = "the gradient vanishes where rewards hardly vary"
SHORTER = "the gradient is shorter where rewards vary less"
NOT_SHORTER = "the gradient is NOT shorter where rewards vary less"
OPEN = "whether the gradient is shorter where rewards vary less is not settled"


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (number(0.3, 0.1), VANISHES),
        (number(-0.3, 0.1), NOT_SHORTER),
        (number(0.3, 0.4), OPEN),
        (number(-0.1, 0.4), OPEN),
    ],
)
def test_over_several_runs_the_verdict_is_what_the_difference_of_norms_bears_out(answer, gap, verdict):
    apart = {"norm_low": number(0.0, 0.1), "norm_high": number(1.0, 0.1)}  # as would be said of two intervals
    answer["vanished"][0] |= apart | {"norm_gap": gap}
    assert sentences(answer)[0].startswith(f"small, rouge: {verdict}. Its norm is")


@pytest.mark.parametrize("gap", [None, number(0.5)])
@pytest.mark.parametrize(("low", "high"), [(number(0.2, 0.1), number(1.0, 0.5)), (number(2.0, 0.1), number(1.0, 0.1))])
def test_where_the_difference_of_norms_has_no_interval_nothing_is_settled_by_those_of_either_side(
    answer, gap, low, high
):
    answer["vanished"][0] |= {"norm_low": low, "norm_high": high, "norm_gap": gap}
    assert sentences(answer)[0].startswith(f"small, rouge: {OPEN}. Its norm is")


def test_norms_over_all_answers_are_said_to_be_exact_and_those_of_samples_are_not(answer):
    assert "exact" not in sentences(answer)[0]
    answer["answers"] = []
    assert "exact" not in sentences(answer)[0]
    answer["answers"] = [" yes", " no", " perhaps"]
    told = "a difference of 1.2e+03 [1.1e+03, 1.4e+03] (exact, over the answers yes, no and perhaps); Spearman"
    assert told in sentences(answer)[0]


@pytest.mark.parametrize(("low", "verdict"), [(0.0, VANISHES), (0.25, VANISHES), (0.26, SHORTER), (0.9, SHORTER)])
def test_a_gradient_vanishes_where_its_norm_is_a_quarter_of_the_others_at_most_and_else_is_but_shorter(
    answer, low, verdict
):
    norms = {"norm_low": number(4 * low), "norm_high": number(4.0), "norm_gap": number(4 - 4 * low, 0.1)}
    answer["vanished"][0] |= norms
    assert sentences(answer)[0].startswith(f"small, rouge: {verdict}. Its norm is")


def test_where_no_gradient_was_taken_of_a_half_only_the_rewards_are_told(answer):
    half = dict.fromkeys(name for name in UNKNOWN if name != "norm_high")
    answer["vanished"] = [before("small", "rouge") | half]
    first, second, *_ = sentences(answer)
    assert first == (
        "small, rouge: 0.30 [0.27, 0.33] of the prompts teach nothing (whitened std under 0.05). Reward std 0.13 [0.12,"
        " 0.14]; no gradient was taken of both halves."
    )
    assert "power" not in second


def test_the_power_and_the_bounds_are_told_as_far_as_they_are_known(answer):
    both = said(answer, "small, rouge: the norm grows")
    assert both == (
        "small, rouge: the norm grows with the std to the power 0.95 [0.85, 1.04]; the norm is 0.0021 [0.0019, 0.0023]"
        " of the published bound and 0.034 [0.031, 0.037] of that of Cauchy and Schwarz (root means)."
    )
    answer["vanished"][0]["exponent"] = number(0.95)
    assert "to the power 0.95; the norm is" in said(answer, "small, rouge: the norm grows")
    answer["vanished"][0]["exponent"] = number(-0.95, 0.1)
    assert "to the power -0.95 [-1.05, -0.85]; the norm is" in said(answer, "small, rouge: the norm falls")
    for open_ in (None, number(0.3, 0.4), number(-0.3, 0.4), number(0.3, 0.3)):
        answer["vanished"][0]["exponent"] = open_
        assert said(answer, "small, rouge: the norm").startswith("small, rouge: the norm is 0.0021 [")
    answer["vanished"][0]["bound"] = None
    assert not [text for text in sentences(answer) if text.startswith("small, rouge: the norm")]


# -- who gains --------------------------------------------------------------------------------------------------------


def test_who_gains_most_is_said_with_those_it_is_not_told_from(answer):
    assert said(answer, "small, rouge: sft_rft gains") == (
        "small, rouge: sft_rft gains most, 0.50 [0.45, 0.55], not told apart from few_rft."
    )
    answer["rows"][0]["not_told_from"] = []
    assert said(answer, "small, rouge: sft_rft gains").endswith(" most, 0.50 [0.45, 0.55].")


@pytest.mark.parametrize("gain", [0.0, -0.3])
def test_where_no_arm_gains_the_first_is_said_to_lose_least(answer, gain):
    answer["rows"][0] |= {"gain": number(gain, 0.1), "not_told_from": []}
    assert said(answer, "small, rouge: sft_rft ").startswith(f"small, rouge: sft_rft loses least, {gain:.2f} [")


def test_arms_are_told_by_where_they_leave_the_prompts_of_low_std(answer):
    gaps = {"rft": number(0.3, 0.1), "few_rft": number(0.3, 0.4), "sft": number(-0.3, 0.1), "sft_rft": None,
            "low_rft": number(0.2), "sifted": number(0.3, 0.1)}  # fmt: skip
    answer["rows"] = [row | {"gap": gaps[row["arm"]]} for row in answer["rows"] if row["policy"] == "small"]
    assert said(answer, "small, rouge: the prompts of low std") == (
        "small, rouge: the prompts of low std are, beside the others, left behind under rft (0.01 against 0.16) and"
        " sifted (0.00 against 0.15); ahead under sft (0.25 against 0.25); under 2 arms it is not settled."
    )
    answer["rows"] = [row for row in answer["rows"] if row["arm"] != "low_rft"]
    assert said(answer, "small, rouge: the prompts of low std").endswith("; under 1 arm it is not settled.")
    for row in answer["rows"]:
        row["gap"] = number(0.3, 0.4)
    said(answer, "small, rouge: whether the prompts of low std are left behind is not settled under any arm.")
    for row in answer["rows"]:
        row["gap"] = None
    assert not [text for text in sentences(answer) if "of low std are" in text]


def test_where_prompts_begin_is_told_after_who_gained_as_far_as_it_is_known(answer):
    start = "small, rouge: before any training the mean reward is"
    assert said(answer, start) == (
        f"{start} 0.06 [0.06, 0.07] at the prompts of low std, 0.25 [0.23, 0.28] at the others."
    )
    answer["vanished"][0] |= {"mean_low": number(0.0), "mean_high": number(-0.0123)}
    assert said(answer, start) == f"{start} 0.000 at the prompts of low std, -0.012 at the others."
    answer["vanished"][0]["mean_low"] = None
    assert not [text for text in sentences(answer) if text.startswith(start)]


# -- how many labels --------------------------------------------------------------------------------------------------


def advised(answer: dict[str, Any], **changes: Any) -> str:
    """What is said of labels, and the same in the table."""
    answer["advice"] = [answer["advice"][0] | changes]
    text = next(text for text in sentences(answer) if "label" in text.lower() or "finetuning" in text)
    flat = " ".join(table(answer | {"sentences": sentences(answer)}).split())
    assert text in flat
    return text.removeprefix("small, rouge: ")


def test_enough_labels_are_told_with_the_share_they_bring_and_what_there_is_without(answer):
    assert advised(answer) == (
        "2 inputs and 30 steps of supervised finetuning before reinforcement are enough: few_rft has 0.80 [0.70, 0.90]"
        " of the highest gain (sft_rft); without labels rft has 0.24 [0.14, 0.34]."
    )
    assert advised(answer, labels=number(1.0), alone=None) == (
        "1 input and 30 steps of supervised finetuning before reinforcement are enough: few_rft has 0.80 [0.70, 0.90]"
        " of the highest gain (sft_rft)."
    )


def test_labels_that_are_enough_by_themselves_are_not_said_to_come_before_anything(answer):
    assert advised(answer, arm="sft", labels=number(60.0)).startswith(
        "60 inputs and 30 steps of supervised finetuning without reinforcement are enough: sft has 0.80"
    )


def test_where_fewer_labels_may_be_too_few_that_is_said(answer):
    assert advised(answer, arm="sft_rft", labels=number(60.0), why="best", recovered=number(1.0, 0.0)) == (
        "no arm with fewer labels surely reaches 80% of what sft_rft gains; without labels rft has 0.24 [0.14, 0.34]."
        " Label 60 inputs and 30 steps of supervised finetuning, or run more seeds."
    )


def test_no_label_is_advised_where_none_is_needed_or_nothing_gains(answer):
    alone = {"arm": "rft", "labels": None, "sft_steps": 0}
    assert advised(answer, **alone) == "no label is needed: rft has 0.80 [0.70, 0.90] of the highest gain (sft_rft)."
    assert advised(answer, **alone, why="best", best="rft") == (
        "no label is needed: rft gains most, without any."
    )  # fmt: skip
    nothing = {"arm": None, "labels": None, "sft_steps": 0, "recovered": None, "why": "nothing"}
    assert advised(answer, **nothing) == "no arm surely gained, so no number of labels is advised."


def test_what_a_sieve_left_is_counted_and_what_was_not_gauged_is_said_to_be_unsifted(answer):
    start, end = "small, rouge: of the prompts that were gauged", "those that were not are trained on unsifted."
    assert said(answer, start) == f"{start} 6 are kept, 2 dropped; {end}"
    answer["sieves"][0] |= {"dropped": number(0.0)}
    assert said(answer, start) == f"{start} 6 are kept, none left out; {end}"
    answer["sieves"][0] |= {"dropped": number(2.0), "deferred": number(1.0)}
    assert said(answer, start) == f"{start} 6 are kept, 2 dropped and 1 deferred; {end}"


# -- what it rests on -------------------------------------------------------------------------------------------------


def places(*told: tuple[str, str, int]) -> dict[str, Any]:
    seeds = list(dict.fromkeys(seed for *_, seed in told))
    return {"places": [{"policy": policy, "base": base, "seed": seed} for policy, base, seed in told], "seeds": seeds}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([("p", "a", 1), ("p", "b", 2)], "Intervals are Student's over the means of 2 bases, uncorrected"),
        ([("p", "a", 1), ("p", "a", 2), ("p", "a", 3)], "ONE base: intervals are over 3 seeds, and another base may"),
        ([("p", "a", 1)], "ONE base and ONE seed: intervals are over prompts, and another base may do otherwise."),
        ([("p", "a", 1), ("q", "b", 1)], "ONE base and ONE seed: intervals are over prompts"),  # each policy has one
        (
            [("p", "a", 1), ("p", "b", 2), ("q", "c", 1), ("q", "c", 2)],
            "Of p: Intervals are Student's over the means of 2 bases, uncorrected for the number of comparisons. Of q:"
            " ONE base: intervals are over 2 seeds, and another base may do otherwise.",
        ),
        ([], "ONE seed: there are no intervals."),
    ],
)
def test_intervals_are_said_to_be_over_what_they_are_over(told, said):
    assert rests_on({"seeds": [1]} | places(*told) if told else {"places": [], "seeds": [1]}).startswith(said)


def test_of_experiments_alone_seeds_are_the_unit():
    assert rests_on({"places": [], "seeds": [1, 2, 3]}) == "Intervals are Student's over 3 seeds."


def test_the_last_two_sentences_are_what_intervals_rest_on_and_what_was_published(answer):
    assert answer["sentences"][-2:] == [rests_on(answer), PUBLISHED]


# -- as a terminal shows it -------------------------------------------------------------------------------------------


def test_the_table_has_every_arm_with_its_numbers_and_no_line_is_too_wide(answer):
    shown = table(answer)
    lines = shown.splitlines()
    assert lines[0] == "Before any training: flat prompts, gradient norm, and how it goes with the reward std"
    start = lines.index("small, rouge")
    head, *arms = lines[start + 1 : start + 8]
    assert head.split("  ")[0] == "rank"
    assert [line.split()[:2] for line in arms] == [
        ["1=", "sft_rft"], ["1=", "few_rft"], ["3", "low_rft"], ["3", "sft"], ["3", "rft"], ["3", "sifted"]
    ]  # fmt: skip
    assert arms[1].split()[-1] == "2"  # labels
    assert max(map(len, [head, *arms])) <= WIDTH
    assert " ".join(arms[0].split()) == "1= sft_rft 0.50 [0.45, 0.55] 0.40 [0.35, 0.45] 0.53 1.00 [0.90, 1.10] 1.00 60"
    notes = lines[lines.index(next(line for line in lines if line.startswith("In brackets"))) :]
    assert max(map(len, notes)) <= WIDTH
    assert "Claimed beforehand:" in notes
    assert notes[notes.index("Claimed beforehand:") + 1].startswith("a. Held: ")
    assert PUBLISHED not in " ".join(notes)


def test_a_column_of_which_nothing_is_known_is_left_out(answer):
    for row in answer["rows"]:
        row |= {"recovered": None, "recovered_low": None}
    head = table(answer).split("small, rouge\n")[1].splitlines()[0]
    assert "of all" not in head
    assert "high std" in head


@pytest.mark.parametrize(
    "kept",
    [(), ("vanished",), ("rows",), ("rows", "advice"), ("controlled",), ("vanished", "controlled"), ("sieves",)],
)
def test_an_answer_that_lacks_parts_is_told_without_them(answer, kept):
    part = without(answer, *kept)
    if kept == ("controlled",):
        part |= {"places": [], "arms": {}}
    part["sentences"] = sentences(part)
    shown = table(part)
    assert ("Before any training" in shown) == ("vanished" in kept)
    assert ("sft_rft gains most" in shown) == ("rows" in kept)
    assert ("digits: inputs whose" in shown) == ("controlled" in kept)
    assert shown.endswith("\n")


def test_an_answer_of_which_no_number_is_known_is_told(answer):
    """Whatever may be None is, and there is a sentence and a table nonetheless."""
    for row in answer["vanished"]:
        row |= {name: None for name, value in row.items() if isinstance(value, dict) and "value" in value}
    for row in answer["rows"]:
        row |= {name: None for name, value in row.items() if isinstance(value, dict) and "value" in value}
    for item in answer["controlled"]:
        item["before"] = dict.fromkeys(item["before"])
        for one in item["methods"]:
            one |= {"modified": None, "unmodified": None, "accuracy": None, "gap": None}
    for item in answer["contrasts"]:
        item["difference"] = None
    answer["sentences"] = sentences(answer)
    assert answer["sentences"][0].startswith("small, rouge: - of the prompts teach nothing")
    assert "sft_rft" in table(answer)


def test_an_experiment_is_told_with_its_norms_before(answer):
    assert said(answer, "digits: ") == (
        "digits: inputs whose label was changed gain supervised 1.50 [1.40, 1.60], expected_reinforce 0.05 [-0.05,"
        " 0.15]; the others supervised 0.40 [0.30, 0.50], expected_reinforce 0.50 [0.40, 0.60]; gradient norms before,"
        " 0.01 and 1."
    )


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (1234.0, "0.02 [0.02, 0.02]"),
        (1.0, "0.02 [0.02, 0.02]"),
        (0.1, "0.02 [0.02, 0.02]"),
        (0.099, "0.023 [0.022, 0.025]"),
        (0.01, "0.023 [0.022, 0.025]"),
        (0.0042, "0.0234 [0.0222, 0.0246]"),
        (1e-30, "0.02340000 [0.02217000, 0.02463000]"),
        (0.0, "0.02 [0.02, 0.02]"),
    ],
)
def test_rewards_have_two_decimals_and_those_of_a_small_scale_as_many_as_their_largest_has_two_digits(scale, shown):
    assert units(number(0.0234, 0.00123), scale) == shown


def test_rewards_are_told_without_what_is_not_known_and_nothing_is_not_below_0():
    assert (units(number(-0.0234)), units(number(-0.0034, 0.001)), units(None)) == ("-0.02", "0.00 [0.00, 0.00]", "-")
    assert units(number(0.002, 0.2)) == "0.00 [-0.20, 0.20]"


def test_gains_of_a_small_scale_are_told_with_the_decimals_of_the_largest(answer):
    small = {"gain": number(0.0042, 0.0012), "low": number(0.0011, 0.0004), "high": number(0.0052, 0.0014)}
    answer["rows"] = [answer["rows"][0] | small]
    assert said(answer, "small, rouge: sft_rft gains").startswith(
        "small, rouge: sft_rft gains most, 0.0042 [0.0030, 0.0054]"
    )
    assert "left behind under sft_rft (0.0011 against 0.0052)" in said(answer, "small, rouge: the prompts of low std")
    shown = table(answer)
    for text in ("0.0042 [0.0030, 0.0054]", "0.0011 [0.0007, 0.0015]", " 0.0052 "):
        assert text in shown
    answer["rows"].append(answer["rows"][0] | {"arm": "sft", "gain": number(0.42, 0.12)})
    assert said(answer, "small, rouge: sft_rft gains").startswith("small, rouge: sft_rft gains most, 0.00 [0.00, 0.01]")


def test_gradients_are_told_with_two_digits_that_count():
    assert significant(number(0.01234, 0.00123)) == "0.012 [0.011, 0.014]"
    assert significant(number(1234.5)) == "1.2e+03"
    assert significant(None) == "-"
    assert remedy.where({"policy": "p", "reward": "r"}) == "p, r"
