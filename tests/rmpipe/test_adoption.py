"""Adoption: every form of a file gives the same rollouts and rewards; what cannot be used is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe.adoption import Adopting, adopted
from rmpipe.config import StudyError

CHAT = [{"role": "user", "content": "hello"}]
LISTED = [
    {"prompt": "p", "responses": ["a", "b"], "rewards": {"one": [1, 2.5], "two": [0, 0]}, "truth": [3, 4]},
    {"prompt": "q", "responses": ["", "d"], "rewards": {"one": [3, 4], "two": [5, 6]}, "truth": [7, 8]},
]
FLAT = [
    {"prompt": prompt, "response": text, "reward": {"one": one, "two": two}, "truth": truth}
    for prompt, text, one, two, truth in [
        ("p", "a", 1, 0, 3), ("q", "", 3, 5, 7), ("q", "d", 4, 6, 8), ("p", "b", 2.5, 0, 4),
    ]
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rolls.jsonl") -> str:
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / name)


def test_the_flat_form_is_put_together_prompt_by_prompt(tmp_path: Path):
    listed = adopted(Adopting(path=written(tmp_path, LISTED, "listed.jsonl")))
    flat = adopted(Adopting(path=written(tmp_path, FLAT, "flat.jsonl")))
    assert [row["responses"] for row in flat.rows] == [["a", "b"], ["", "d"]]
    assert flat.rewards == listed.rewards == {
        "one": [[1, 2.5], [3, 4]], "two": [[0, 0], [5, 6]], "truth": [[3, 4], [7, 8]],
    }  # fmt: skip
    assert flat == listed
    assert (flat.truth, flat.content) == ("truth", listed.content)


def test_a_parquet_file_is_read_as_jsonl_is(tmp_path: Path):
    import pandas as pd

    rows = [{**row, "prompt": CHAT if row["prompt"] == "p" else [CHAT[0], *CHAT]} for row in LISTED]
    pd.DataFrame(rows).to_parquet(tmp_path / "rolls.parquet")
    found = adopted(Adopting(path=str(tmp_path / "rolls.parquet")))
    assert found == adopted(Adopting(path=written(tmp_path, rows)))
    assert found.rows[0]["prompt"] == CHAT


def test_rewards_without_a_name_are_called_as_said_or_as_the_file(tmp_path: Path):
    rows = [{"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2], "tokens": [3, 4], "id": 7}]
    path = written(tmp_path, rows)
    assert list(adopted(Adopting(path=path)).rewards) == ["rolls"]
    found = adopted(Adopting(path=path, name="mine"))
    assert found.rewards == {"mine": [[1, 2]]}
    assert found.truth is None
    assert found.rows == [{"id": "7", "prompt": "p", "responses": ["a", "b"], "tokens": [3, 4]}]


def test_whose_rewards_stand_for_what_people_want_can_be_said(tmp_path: Path):
    path = written(tmp_path, LISTED)
    assert adopted(Adopting(path=path, truth="two")).truth == "two"
    rows = [{"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2], "gold": [0, 1], "truth": "42"}]
    found = adopted(Adopting(path=written(tmp_path, rows), name="mine", truth="gold"))
    assert (list(found.rewards), found.truth) == (["mine", "gold"], "gold")
    assert adopted(Adopting(path=path, name="mine")).truth is None  # an answer in words is no reward


def test_rollouts_have_one_content_whatever_their_rewards(tmp_path: Path):
    one = adopted(Adopting(path=written(tmp_path, LISTED)))
    other = [{**row, "rewards": [1, 2]} for row in LISTED]
    two = adopted(Adopting(path=written(tmp_path, other, "other.jsonl")))
    assert one.content == two.content
    assert one.content_of("one") != two.content_of("other")
    assert one.content_of("truth") == two.content_of("truth")


def test_a_file_that_has_changed_is_read_again(tmp_path: Path):
    path = written(tmp_path, LISTED)
    assert len(adopted(Adopting(path=path)).rows) == 2
    written(tmp_path, LISTED[:1])
    assert len(adopted(Adopting(path=path)).rows) == 1


GOOD = {"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2]}


def test_a_list_of_responses_that_is_there_twice_is_a_row_too_many(tmp_path: Path):
    path = written(tmp_path, [LISTED[1], *LISTED, LISTED[0]])
    with pytest.raises(StudyError) as caught:
        adopted(Adopting(path=path))
    assert str(caught.value) == (
        f"{path}: row 3 is row 1 again; leave one out, or where the policy did say the same twice, give all responses "
        "of a prompt in one row"
    )
    other = [row | {"responses": row["responses"][::-1]} for row in LISTED]
    assert len(adopted(Adopting(path=written(tmp_path, [*LISTED, *other]))).rows[0]["responses"]) == 4


def test_what_a_policy_said_twice_is_read_and_a_flat_file_that_is_there_twice_is_not(tmp_path: Path):
    for places, told in (((0, 0, 1, 2), ["", "d"]), ((0, 0, 1, 1), ["", ""])):  # the other says one thing whatever
        found = adopted(Adopting(path=written(tmp_path, [FLAT[place] for place in places])))
        assert [row["responses"] for row in found.rows] == [["a", "a"], told]
    with pytest.raises(StudyError, match="row 5 is row 1 again, and so is every row; leave one out, or where the pol"):
        adopted(Adopting(path=written(tmp_path, FLAT * 2)))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [GOOD | {"rewards": [1]}],
            "row 1: rewards: expected a list of 2 numbers, one a response, got 1; mend the row",
        ),
        (
            [GOOD | {"rewards": {"m": [1, float("nan")]}}],
            "row 1: rewards.m.1: nan, which no mean could have; leave the row out, or score it again",
        ),
        (
            [GOOD, GOOD | {"prompt": "q", "rewards": [1, True]}],
            "row 2: rewards.1: expected a number, got bool; mend the row, with 1 and 0 for yes and no",
        ),
        (
            [{"prompt": "p", "response": "a", "reward": "high"}],
            "row 1: reward: expected a number, got str; mend the row, with 1 and 0 for yes and no",
        ),
        ([GOOD | {"responses": ["a", 3]}], "row 1: responses.1: expected text, got int; remove the row or mend it"),
        ([GOOD | {"tokens": [1, 2.5]}], "row 1: tokens: expected whole numbers from 0, got 2.5; mend the row or leave"),
        (
            [{"prompt": "p", "rewards": [1]}],
            "row 1: responses: missing; every row needs a list of responses, or one `response` with its `reward`",
        ),
        ([{"prompt": "p", "responses": ["a", "b"]}], "row 1: rewards: missing; every row needs one a response"),
        (
            [{"prompt": "p", "response": "a", "reward": 1}, {"prompt": "q", "response": "a", "reward": 1}],
            "responses: one to each prompt, and rewards of one response do not vary; draw two a prompt at least",
        ),
        (
            [GOOD, GOOD | {"prompt": "r"}, {"prompt": "q", "responses": ["a"] * 3, "rewards": [1, 2, 3]}],
            "responses: 2 to 2 of 3 prompts, 3 to 1 of 3 prompts (the prompt of row 3 has 3 in all its rows); give",
        ),
        ([GOOD, GOOD | {"rewards": [3, 4]}, GOOD | {"prompt": "q"}], "responses: 4 to 1 of 2 prompts, 2 to 1 of"),
        (
            [GOOD | {"rewards": {"m": [1, 2]}}, GOOD | {"prompt": "q", "rewards": {"n": [1, 2]}}],
            "rewards: row 1 has m, row 2 has n; give every row the same",
        ),
        ([GOOD, GOOD | {"tokens": [1, 2], "prompt": "q"}], "tokens: row 1 has none, row 2 has tokens; give every row"),
        (
            [GOOD | {"rewards": {"truth": [1, 2]}, "truth": [1, 2]}],
            "row 1: truth: told twice, among the rewards and in a column of its own; leave one of them out",
        ),
        ([GOOD, GOOD | {"prompt": CHAT}], "prompt: row 1 has text and row 2 messages; use one form for all rows"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(tmp_path: Path, rows: list[dict[str, Any]], told: str):
    path = written(tmp_path, rows)
    with pytest.raises(StudyError) as caught:
        adopted(Adopting(path=path))
    assert str(caught.value).startswith(f"{path}: {told}")


def test_a_ground_truth_that_is_not_there_is_named_with_the_nearest(tmp_path: Path):
    with pytest.raises(StudyError, match=r"truth: no rewards and no column 'tru'; did you mean truth\?"):
        adopted(Adopting(path=written(tmp_path, LISTED), truth="tru"))


def test_named_rewards_cannot_be_called_otherwise(tmp_path: Path):
    with pytest.raises(StudyError, match=r"row 1: rewards: named already \(one, two\), not to be called mine"):
        adopted(Adopting(path=written(tmp_path, LISTED), name="mine"))
