"""Labels: every form of a file gives each policy its own labelled responses; what cannot be used is told with place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmpipe.artifact import Rollouts
from rmpipe.config import StudyError, identity
from rmpipe.foreseeing import Foreseeing
from rmpipe.labelling import Labelling, Pool, pool, pools, write

CHAT = [{"role": "user", "content": "hello"}]
LISTED = [
    {"prompt": "p", "responses": ["a", "b", "c"], "labels": [1, None, 2.5], "finished": [True, True, False]},
    {"prompt": "q", "responses": ["", "d", "e"], "labels": [3, 4, 5]},
    {"prompt": "r", "responses": ["f", "g"], "labels": [None, 6]},
    {"prompt": "s", "responses": ["h", "i"]},
]
FLAT = [
    {"prompt": row["prompt"], "response": text, "label": label}
    for row in LISTED
    for text, label in zip(row["responses"], row.get("labels", [None] * 2), strict=True)
]
FLAT[2]["finished"] = False


def written(folder: Path, rows: list[dict[str, Any]], name: str = "labels.jsonl") -> str:
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / name)


def of_one(path: str, **settings: Any) -> Pool:
    return pools(Labelling(path=path, **settings), ["mine"])["mine"]


def test_what_has_no_label_is_left_out_and_what_is_ragged_is_filled_up_with_what_counts_for_nothing(tmp_path: Path):
    found = of_one(written(tmp_path, LISTED))
    assert found.rows == [
        {"id": "1", "prompt": "p", "responses": ["a", "c", "a"], "finished": [True, False, True]},
        {"id": "2", "prompt": "q", "responses": ["", "d", "e"], "finished": [True, True, True]},
    ]
    assert found.labels == [[1, 2.5, None], [3, 4, 5]]
    told = "labels of 5 responses to 2 prompts, 1 more left out, with fewer than 2 labelled responses"
    assert (found.count, found.left, found.told()) == (5, 1, told)


def test_the_flat_form_and_the_lists_say_the_same(tmp_path: Path):
    flat = of_one(written(tmp_path, FLAT, "flat.jsonl"))
    listed = of_one(written(tmp_path, LISTED))
    assert (flat.labels, flat.left) == (listed.labels, listed.left)
    assert [row["responses"] for row in flat.rows] == [row["responses"] for row in listed.rows]
    assert [row["finished"] for row in flat.rows] == [row["finished"] for row in listed.rows]


def test_a_parquet_file_with_gaps_is_read_as_jsonl_is(tmp_path: Path):
    rows = [{**row, "prompt": CHAT if row["prompt"] == "p" else [CHAT[0], *CHAT]} for row in FLAT[:6]]
    pd.DataFrame(rows).to_parquet(tmp_path / "labels.parquet")
    found = of_one(str(tmp_path / "labels.parquet"))
    assert found == of_one(written(tmp_path, rows))
    assert (found.rows[0]["prompt"], found.count) == (CHAT, 5)


def test_a_label_belongs_to_a_text_and_counts_for_every_draw_of_it(tmp_path: Path):
    rows = [{"prompt": "p", "responses": ["a", "b", "a"], "labels": [1, 2, None]}]
    found = of_one(written(tmp_path, rows))
    assert (found.rows[0]["responses"], found.labels) == (["a", "b", "a"], [[1, 2, 1]])
    rows.append({"prompt": "p", "responses": ["b"], "labels": [3]})
    with pytest.raises(
        StudyError, match=r"row 2: label: 3, and row 1 has 2 for the same response; give it one label, or"
    ):
        of_one(written(tmp_path, rows))


def test_of_pairs_a_label_is_the_share_of_wins_less_losses(tmp_path: Path):
    rows = [
        {"prompt": "p", "chosen": chosen, "rejected": rejected, **more}
        for chosen, rejected, more in [
            ("a", "b", {}), ("a", "c", {"tie": True}), ("b", "c", {"tie": False}), ("a", "b", {}), ("a", "a", {}),
        ]
    ]  # fmt: skip
    found = of_one(written(tmp_path, rows))
    assert found.rows[0]["responses"] == ["a", "b", "c"]
    assert found.labels[0] == pytest.approx([2 / 3, -1 / 3, -1 / 2])
    assert found.told() == "labels of 3 responses to 1 prompts, by 5 pairs"


def test_of_pairs_a_response_was_cut_off_where_any_of_them_says_so(tmp_path: Path):
    """It is told of each side, `chosen` first, or at once of both; what is not told was not cut off."""
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "finished": [True, False]},
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "q", "chosen": "d", "rejected": "e", "finished": False},
        {"prompt": "q", "chosen": "f", "rejected": "g", "finished": [None, True]},
    ]
    found = of_one(written(tmp_path, rows))
    assert [row["responses"] for row in found.rows] == [["a", "b", "c", "a"], ["d", "e", "f", "g"]]
    assert [row["finished"] for row in found.rows] == [[True, False, True, True], [False, False, True, True]]
    assert found.labels == [[1, 0, -1, None], [1, -1, 1, -1]]


def test_each_policy_has_its_own_rows_and_others_are_passed_over(tmp_path: Path):
    rows = [
        {"policy": policy, "prompt": f"to {policy}", "responses": ["a", "b"], "labels": [0, label]}
        for label, policy in enumerate(["weak", "strong", "another", None], 1)
    ]
    found = pools(Labelling(path=written(tmp_path, rows), policy="weak"), ["weak", "strong"])
    assert found["weak"].labels == [[0, 1], [0, 4]]
    assert found["strong"].labels == [[0, 2]]


def test_rows_that_name_no_policy_are_of_the_only_one_or_of_the_one_that_is_said(tmp_path: Path):
    path = written(tmp_path, LISTED)
    assert not of_one(path).named
    assert pool(Labelling(path=path, policy="weak"), "weak") == of_one(path)
    with pytest.raises(
        StudyError, match=r"row 1: policy: missing, and there are 2 \(weak, strong\); name it in each row"
    ):
        pools(Labelling(path=path), ["weak", "strong"])
    with pytest.raises(StudyError, match=r"policy: no row is of 'strong'; known: weak"):
        pools(Labelling(path=path, policy="weak"), ["weak", "strong"])
    with pytest.raises(StudyError, match=r"policy: no 'weka' there; did you mean weak\?"):
        pools(Labelling(path=path, policy="weka"), ["weak", "strong"])
    named = written(tmp_path, [{**row, "policy": "weak"} for row in LISTED])
    with pytest.raises(StudyError, match=r"policy: no row is of 'weka'; did you mean weak\?"):
        pools(Labelling(path=named), ["weka"])


GOOD = {"prompt": "p", "responses": ["a", "b"], "labels": [1, 2]}
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([GOOD | {"labels": [1]}], "row 1: labels: expected a list of 2, one a response, got 1; mend the row"),
        ([GOOD | {"labels": [1, float("nan")]}], "row 1: labels.1: nan, which no mean could have; leave the row out"),
        ([GOOD, {"prompt": "p", "response": "a", "label": "good"}], "row 2: label: expected a number, got str; mend"),
        ([GOOD | {"labels": [True, False]}], "row 1: labels.0: expected a number, got bool; mend the row, with 1 and"),
        ([GOOD | {"labels": [None, None]}], "label: none; fill in a number for two responses to a prompt at least"),
        (
            [{"prompt": "p", "response": "a", "score": 1}],
            "label: no such column among prompt, response, score; fill in a number",
        ),
        (
            [GOOD | {"labels": [None, 1]}],
            "label: of 'mine' no prompt has 2 labelled responses, and 1 have one; labels of one response do not vary",
        ),
        ([{"prompt": "p", "labels": [1]}], "row 1: response: missing; every row needs a `response` with its `label`"),
        ([GOOD, PAIR], "row 1 has labels, row 2 has a pair; give pairs alone, or labels alone"),
        ([{"prompt": "p", "chosen": "a"}], "row 1: rejected: expected text, got nothing; remove the row or mend it"),
        ([PAIR | {"finished": [False]}], "row 1: finished: expected a list of 2, one a response, got 1; mend the row"),
        ([PAIR | {"finished": 0}], "row 1: finished: expected true or false, got 0; mend the row or leave it out"),
        ([PAIR | {"tie": 1}], "row 1: tie: expected true or false, got 1; mend the row or leave it out"),
        ([GOOD | {"finished": [True, "no"]}], "row 1: finished.1: expected true or false, got 'no'; mend the row"),
        ([GOOD | {"policy": 3}], "row 1: policy: expected a name, got int; mend the row or leave it out"),
        ([GOOD, GOOD | {"prompt": CHAT}], "prompt: row 1 has text and row 2 messages; use one form for all rows"),
        ([GOOD, GOOD], "row 2 is row 1 again; leave one out"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(tmp_path: Path, rows: list[dict[str, Any]], told: str):
    path = written(tmp_path, rows)
    with pytest.raises(StudyError) as caught:
        of_one(path)
    assert str(caught.value).startswith(f"{path}: {told}")


def test_a_text_alone_is_a_path_and_a_file_that_is_not_there_is_refused(tmp_path: Path):
    found = Foreseeing(labels="none.jsonl")  # type: ignore[arg-type]
    assert found.labels == Labelling(path="none.jsonl")
    assert Foreseeing(labels={"path": "x", "policy": "weak"}).labels == Labelling(path="x", policy="weak")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match=r"none.jsonl: nothing there; give a file of prompts, responses and labels"):
        Labelling(path="none.jsonl").content()


def test_what_is_said_without_labels_keeps_its_identity_and_a_path_moves_none():
    assert "labels" not in identity(Foreseeing())
    assert identity(Labelling(path="a")) == identity(Labelling(path="b"))
    assert identity(Labelling(path="a")) != identity(Labelling(path="a", policy="weak"))


@pytest.fixture
def drawn(tmp_path: Path) -> Rollouts:
    """Two prompts with three responses each, of which one was cut off."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    texts, ended = [["a", "b", "b"], ["c\u2028d", "", "e"]], [[True, False, True], [True] * 3]
    table = pd.DataFrame({"prompt": [CHAT, [CHAT[0], *CHAT]], "responses": texts, "finished": ended})
    table.to_parquet(folder / "rollouts.parquet")
    return Rollouts.at(folder)


def test_what_is_written_to_be_labelled_is_read_back_once_it_is(drawn: Rollouts, tmp_path: Path):
    file = tmp_path / "labels.jsonl"
    assert write({"weak": drawn, "strong": drawn}, file) == 12
    rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    assert rows[1] == {"policy": "weak", "prompt": CHAT, "response": "b", "label": None, "finished": False}
    with pytest.raises(StudyError, match="label: none; fill in"):
        pools(Labelling(path=str(file)), ["weak", "strong"])
    filled = [row | {"label": len(row["response"])} for row in rows]
    found = pools(Labelling(path=written(tmp_path, filled, "filled.jsonl")), ["weak", "strong"])
    assert found["weak"].labels == found["strong"].labels
    assert found["weak"].labels == [[1, 1, 1], [3, 0, 1]]
    assert found["weak"].rows[0]["finished"] == [True, False, True]


def test_fewer_prompts_and_responses_are_the_first_and_a_file_that_is_there_stays(drawn: Rollouts, tmp_path: Path):
    file = tmp_path / "few.jsonl"
    assert write({"weak": drawn}, file, prompts=1, responses=2) == 2
    assert [json.loads(line)["response"] for line in file.read_text().splitlines()] == ["a", "b"]
    before = file.read_text()
    with pytest.raises(StudyError, match=r"few.jsonl: there already; give another name"):
        write({"weak": drawn}, file)
    assert file.read_text() == before
    with pytest.raises(StudyError, match=r"cannot be written \(No such file or directory\); give another place"):
        write({"weak": drawn}, tmp_path / "none" / "few.jsonl")
