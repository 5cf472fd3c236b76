"""An audit of any scorer: what must not move its scores, what they must not be, and what is said of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rmpipe.audit import Auditing, audit, objection, sentence, table, verdict
from rmpipe.config import StudyError
from rmpipe.exam import Finding
from rmpipe.verdict import WIDTH

WORDS = ("kettle", "lovely", "the", "red", "oh", "you", "fine", "can", "love", "it", "is", "garden", "noon")


def drawn(count: int = 32) -> list[dict[str, Any]]:
    """Pairs of which the chosen response has more of the letter e a word."""
    draw = random.Random(2)

    def text() -> str:
        return "".join(f" {word}" for word in draw.choices(WORDS, k=draw.randint(2, 12)))

    rows = []
    for place in range(count):
        better, worse = sorted((text(), text()), key=worth, reverse=True)
        rows.append({"prompt": f"Say {place}.", "chosen": better, "rejected": worse})
    return rows


def worth(text: str) -> float:
    return text.count("e") / max(1, len(text.split())) + 1e-3 * sum(map(ord, text)) / (1 + len(text))


def sound(prompts: list[Any], responses: list[str]) -> np.ndarray:
    return np.array([worth(text) for text in responses], dtype=np.float32)


def examined(scorer: Callable[..., Any], rows: Any = None, **told: Any) -> dict[str, Finding]:
    findings = audit(Auditing(), lambda: scorer, drawn() if rows is None else rows, **told)
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: finding for finding in findings}


def failed(found: dict[str, Finding]) -> set[str]:
    return {check for check, finding in found.items() if finding.verdict == "fail"}


# -- what must not move -----------------------------------------------------------------------------------------------


def test_a_function_of_the_text_alone_passes_what_must_not_move_it():
    found = examined(sound)
    still = [finding for finding in found.values() if finding.group == "invariance"]
    assert {finding.check for finding in still} == {"again", "order", "repeated", "alone", "loading"}
    assert {(finding.verdict, finding.amount) for finding in still} == {("pass", 0.0)}
    assert not failed(found)
    assert found["accuracy"].amount == 1


@pytest.mark.parametrize(("noise", "expected"), [(0.005, "pass"), (0.05, "drift"), (0.5, "fail")])
def test_scores_pass_drift_or_fail_by_how_many_standard_deviations_they_move(noise, expected):
    rows, calls = drawn(), itertools.count()
    spread = np.std(sound([], [row[side] for side in ("chosen", "rejected") for row in rows]), ddof=1)

    def shaken(prompts, responses):
        return sound(prompts, responses).astype(float) + noise * spread * (next(calls) == 1)

    found = examined(shaken, rows)["again"]
    assert found.verdict == expected
    assert found.amount == pytest.approx(noise, rel=1e-3)
    assert bool(found.remedy) == (expected != "pass")


def test_a_score_that_depends_on_its_batch_fails():
    def batched(prompts, responses):  # as padding that is not masked: by how much shorter a text is than the longest
        longest = max(map(len, responses))
        return sound(prompts, responses) + np.array([(longest - len(text)) / 100 for text in responses])

    assert "alone" in failed(examined(batched))


class Rounded:
    """Scores of some texts move by so many sd in another batch; `told` makes it one of a dtype, or a judge."""

    def __init__(self, told: dict[str, Any], move: float, texts: float = 1.0):
        self.move, self.texts = move, texts
        vars(self).update(told)

    def __call__(self, prompts, responses):
        scores = sound(prompts, responses).astype(float)
        step = self.move * np.std(sound([], [row[side] for side in ("chosen", "rejected") for row in drawn()]), ddof=1)
        moved = np.array([sum(map(ord, text)) % 100 < 100 * self.texts for text in responses])
        sign = np.array([1 - 2 * (len(text) % 2) for text in responses])
        return scores + step * moved * sign * (len(responses) == 64) * (responses[0] == drawn()[0]["chosen"])


@pytest.mark.parametrize(
    ("told", "move", "texts", "expected"),
    [
        ({}, 0.2, 0.1, "fail"),
        ({"dtype": "float32"}, 0.2, 0.1, "fail"),
        ({"dtype": "bfloat16"}, 0.2, 0.1, "drift"),
        ({"dtype": "torch.float16"}, 0.005, 1, "pass"),
        ({"dtype": "bfloat16"}, 1, 0.1, "fail"),  # further than rounding goes
        ({"unparsed": 0}, 1, 0.1, "drift"),  # a few words turn
        ({"unparsed": 0}, 10, 1, "fail"),  # and most pairs
    ],
)
def test_rounding_drifts_in_another_batch_where_it_moves_little_and_turns_few_pairs(told, move, texts, expected):
    found = examined(Rounded(told, move, texts))
    assert found["order"].verdict == expected
    assert found["again"].verdict == found["loading"].verdict == "pass"
    assert ("float32" in found["order"].remedy) == (expected == "drift")


@pytest.mark.parametrize("told", [{"dtype": "bfloat16"}, {"unparsed": 0}])
def test_half_precision_excuses_nothing_that_is_random(told):
    calls = itertools.count()

    class Random(Rounded):
        def __call__(self, prompts, responses):
            return super().__call__(prompts, responses) + 0.2 * next(calls)

    assert "again" in failed(examined(Random(told, 0)))


def test_a_scorer_that_knows_which_response_is_asked_first_fails():
    def first(prompts, responses):
        half = len(responses) / 2
        return sound(prompts, responses) + 5 * (np.arange(len(responses)) < half)

    found = examined(first)
    assert {"flipped", "order", "equal"} <= failed(found)
    assert found["flipped"].amount == 1


def test_a_text_that_gets_no_score_a_second_time_counts_as_far_as_scores_lie_apart():
    calls = itertools.count()

    def lost(prompts, responses):
        scores = sound(prompts, responses)
        return np.where((next(calls) == 1) & (np.arange(len(scores)) == 3), np.nan, scores)

    rows = drawn()
    scores = sound([], [row[side] for side in ("chosen", "rejected") for row in rows])
    assert examined(lost, rows)["again"].amount == pytest.approx(np.ptp(scores) / np.std(scores, ddof=1), rel=1e-3)


# -- what scores must not be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [0.0, 1e4])
def test_a_constant_is_told_and_nothing_more_is_asked_of_it(constant):
    found = examined(lambda prompts, responses: constant + 1e-5 * constant * 1e-3 * sound(prompts, responses))
    assert failed(found) == {"spread"}
    assert set(found) == {"finite", "spread"}
    assert not failed(examined(lambda prompts, responses: np.full(len(responses), constant), constructed=True))


def test_what_is_not_finite_fails_and_pairs_without_it_are_still_looked_at():
    def broken(prompts, responses):
        return np.where(np.arange(len(responses)) % 64 < 4, np.inf, sound(prompts, responses))

    found = examined(broken)
    assert found["finite"].verdict == "fail"
    assert found["finite"].amount == pytest.approx(4 / 64)
    assert "of 28 pairs" in found["accuracy"].found


def test_a_scorer_that_refuses_is_told_with_its_own_remedy():
    def refusing(prompts, responses):
        raise StudyError("model: row 3 has 99 tokens, and 64 fit; set truncate = true")

    found = examined(refusing)
    assert failed(found) == set(found) == {"finite"}
    assert found["finite"].found == "It gives no scores: model: row 3 has 99 tokens, and 64 fit."
    assert found["finite"].remedy == "set truncate = true"


def test_an_accuracy_below_a_coins_fails_beyond_chance_only_and_not_what_is_constructed():
    def wrong(prompts, responses):
        return -sound(prompts, responses)

    assert failed(examined(wrong)) == {"accuracy"}
    assert examined(wrong, constructed=True)["accuracy"].verdict == "drift"
    assert examined(sound, right(3, of=8))["accuracy"].verdict == "pass"


def right(count: int, of: int) -> list[dict[str, Any]]:
    """Pairs of which a sound scorer has so many right."""
    return [row if place < count else {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            for place, row in enumerate(drawn(of))]  # fmt: skip


@pytest.mark.parametrize(("count", "expected"), [(8, "fail"), (9, "drift"), (10, "pass"), (14, "pass")])
def test_an_accuracy_fails_by_its_99_per_cent_interval_and_drifts_by_that_of_95(count, expected):
    assert examined(sound, right(count, of=32))["accuracy"].verdict == expected


@pytest.mark.parametrize(
    ("liked", "drifts"), [(lambda text: -len(text.split()), {"empty", "half"}), (lambda text: len(text), {"doubled"})]
)
def test_what_likes_an_empty_a_cut_or_a_doubled_response_drifts(liked, drifts):
    found = examined(lambda prompts, responses: np.array([liked(text) for text in responses], float), constructed=True)
    shares = {check: found[check].amount for check in ("empty", "half", "doubled")}
    assert shares == {check: float(check in drifts) for check in shares}
    assert {check for check in shares if found[check].verdict == "drift"} == drifts


def test_a_function_that_cannot_take_an_empty_response_drifts():
    found = examined(lambda prompts, responses: np.array([1 / len(text) for text in responses]))["empty"]
    assert (found.verdict, found.amount) == ("drift", 1)
    assert "ZeroDivisionError" in found.found


# -- what they must be better than ------------------------------------------------------------------------------------


@pytest.mark.parametrize("constructed", [False, True])
def test_any_rising_or_falling_function_of_length_is_the_length(constructed):
    found = examined(lambda prompts, texts: np.array([-(len(text) ** 0.5) for text in texts]), constructed=constructed)
    assert found["length"].amount == pytest.approx(1)
    assert found["length"].verdict == ("drift" if constructed else "fail")


def test_controls_stand_beside_the_accuracy_and_length_that_does_as_well_drifts():
    rows = [{**row, "chosen": "e" + "e" * place + row["rejected"]} for place, row in enumerate(drawn())]
    found = examined(sound, rows)
    assert (found["constant"].amount, found["length_alone"].amount) == (0.5, 1.0)
    assert found["constant"].verdict == found["random"].verdict == "none"
    assert found["length_alone"].verdict == "drift"
    assert 0.2 < found["random"].amount < 0.8
    assert examined(sound)["length_alone"].verdict == "pass"


def test_pairs_of_a_prompt_are_one_unit():
    rows = [
        {**row, "prompt": [{"role": "user", "content": f"Say {place // 16}."}]} for place, row in enumerate(drawn())
    ]
    assert examined(sound, rows)["accuracy"].found.startswith("It prefers the chosen response in 1.00 [0.16, 1.00]")


# -- what is said -----------------------------------------------------------------------------------------------------


def test_the_worst_comes_first_and_only_failures_object():
    findings = audit(Auditing(), lambda: lambda prompts, texts: -sound(prompts, texts), drawn())
    assert [finding.verdict for finding in findings] == sorted(
        (finding.verdict for finding in findings), key=("fail", "drift", "pass", "none").index
    )
    assert (verdict(findings), verdict(findings[1:]), verdict([])) == ("fail", verdict(findings[1:]), "pass")
    assert sentence(findings).startswith("fail: accuracy (0.00); ")
    assert objection(findings).startswith("It prefers the chosen response in 0.00 [0.00, 0.11] of 32 pairs")
    assert objection(findings[1:]) is None
    text = table(findings, "mine")
    assert text.startswith("mine: fail: accuracy (0.00); ")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "Remedy: set output" in " ".join(text.split())


def test_no_more_pairs_are_asked_about_than_were_to_be_and_none_is_refused():
    seen: set[str] = set()

    def watching(prompts, responses):
        seen.update(prompts)
        return sound(prompts, responses)

    audit(Auditing(pairs=5), lambda: watching, drawn())
    assert seen == {f"Say {place}." for place in range(5)}
    with pytest.raises(StudyError, match=r"^auditing: the data set holds no pairs out; raise dataset.test_fraction"):
        audit(Auditing(), lambda: sound, [])


def test_a_drift_below_the_tolerance_is_refused():
    with pytest.raises(ValidationError, match=r"drift: 0\.001 is below tolerance = 0\.01; raise it"):
        Auditing(drift=0.001)
