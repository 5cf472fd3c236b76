"""Evaluation sets: the study's own pairs, another's, and the study's own as another has rewritten them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from rmpipe.config import StudyError
from rmpipe.dataset import LocalSource
from rmpipe.preference import prepare
from rmpipe.shift import Shift, rewritten
from rmpipe.source import UnreachableError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "token_shift_ultrafeedback"
ORIGINALS = pd.DataFrame(
    [
        {"id": key, "prompt": f"prompt {key}", "chosen": f"good {key}", "rejected": f"bad {key}", "split": "test"}
        for key in ("c", "a", "b")
    ]
)


def lay(path: Path, rows: list[dict[str, object]]) -> dict[str, str]:
    """Rows in a file; the data set that reads them, as a study gives it."""
    path.write_text("\n".join(map(json.dumps, rows)))
    return {"source": "local", "path": str(path)}


def pair(key: object, **more: object) -> dict[str, object]:
    """A pair by its id."""
    return {"id": key, "prompt": f"ask {key}", "chosen": f"yes {key}", "rejected": f"no {key}", **more}


def shift(kind: str, **more: object) -> Shift:
    """As a study gives it."""
    return Shift.parse({"kind": kind, **more}, "shifts.it")


def test_the_study_s_own_pairs_come_as_they_are(tmp_path: Path):
    turns = [{"role": "user", "content": "hello"}]
    frame = ORIGINALS[:2].assign(prompt=[turns, turns])
    frame.to_parquet(tmp_path / "pairs.parquet")
    rows = shift("same").pairs(pd.read_parquet(tmp_path / "pairs.parquet"), 0, None)
    assert rows == [
        {"id": key, "prompt": turns, "chosen": f"good {key}", "rejected": f"bad {key}"} for key in ("c", "a")
    ]


def test_what_has_moved_is_said_by_the_kind_unless_the_study_says_it(tmp_path: Path):
    data = lay(tmp_path / "there.jsonl", [pair("a")])
    told = {
        kind: shift(kind, **({} if kind == "same" else {"data": data})) for kind in ("same", "elsewhere", "aligned")
    }
    assert [one.shift for one in told.values()] == ["in-distribution", "domain", "token"]
    assert [one.aligned for one in told.values()] == [True, False, True]
    assert shift("elsewhere", data=data, shift="token").shift == "token"


def test_pairs_from_elsewhere_are_those_held_out_there(tmp_path: Path):
    rows = [pair(1, split="train"), pair(2, split="test_prefs"), pair(3, split="test_prefs")]
    found = shift("elsewhere", data=lay(tmp_path / "there.jsonl", rows)).pairs(ORIGINALS, 0, None)
    assert sorted(row["id"] for row in found) == ["2", "3"]
    assert all(set(row) == {"id", "prompt", "chosen", "rejected"} for row in found)


def test_pairs_from_elsewhere_are_all_where_none_is_held_out_and_equal_responses_are_none(tmp_path: Path):
    rows = [pair(1), pair(None), pair(3) | {"chosen": "no 3"}]
    found = shift("elsewhere", data=lay(tmp_path / "there.jsonl", rows)).pairs(ORIGINALS, 0, None)
    assert sorted((row["id"], row["chosen"]) for row in found) == [("1", "yes 1"), ("2", "yes None")]


def test_the_most_pairs_are_drawn_by_the_seed(tmp_path: Path):
    data = lay(tmp_path / "there.jsonl", [pair(n) for n in range(30)])
    drawn = [
        [row["id"] for row in shift("elsewhere", data=data, limit=8).pairs(ORIGINALS, seed, None)] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(ids)) == 8 for ids in drawn)


def test_another_data_set_is_any_source_of_pairs():
    found = shift("elsewhere", data={"source": "world", "pairs": 20, "topics": ["harbour"]}).pairs(ORIGINALS, 4, None)
    assert len(found) == 20
    assert all(" harbour " in row["prompt"] for row in found)


@pytest.mark.parametrize("kind", ["elsewhere", "aligned"])
def test_what_the_other_data_set_lacks_is_said_before_anything_is_spent(tmp_path: Path, kind: str):
    data = lay(tmp_path / "there.jsonl", [pair("a"), {"id": "b", "prompt": "ask", "chosen": "yes", "rejected": " "}])
    with pytest.raises(StudyError, match=r"there\.jsonl: row 2: rejected: empty; remove the row"):
        shift(kind, data=data).check(0)
    with pytest.raises(StudyError, match=r"none\.jsonl: nothing there"):
        shift(kind, data=data | {"path": str(tmp_path / "none.jsonl")}).check(0)
    with pytest.raises(StudyError, match=r"paht: unknown key; did you mean path\?"):
        shift(kind, data=data | {"paht": "x"})


@pytest.mark.parametrize("kind", ["elsewhere", "aligned"])
def test_what_must_be_fetched_is_left_to_the_stage(kind: str, monkeypatch: pytest.MonkeyPatch):
    def load(*arguments: object, **more: object) -> None:
        raise ConnectionError("the network is down")

    monkeypatch.setattr("datasets.load_dataset", load)
    there = shift(kind, data={"source": "hub", "path": "some/set"})
    there.check(0)
    with pytest.raises(UnreachableError):
        there.pairs(ORIGINALS, 0, None)


def test_new_rows_elsewhere_move_the_content_and_another_place_does_not(tmp_path: Path):
    one, same, other = (
        shift("elsewhere", data=lay(tmp_path / f"{name}.jsonl", [pair(key)])).content()
        for name, key in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same != other
    assert shift("same").content() == ""


def test_rewritten_pairs_are_found_by_the_ids_of_those_they_rewrite(tmp_path: Path):
    rows = [pair("a", split="train"), pair("z"), pair("c", split="test")]
    found = shift("aligned", data=lay(tmp_path / "again.jsonl", rows)).pairs(ORIGINALS, 0, None)
    assert [(row["id"], row["chosen"]) for row in found] == [("c", "yes c"), ("a", "yes a")]


def test_rewritten_pairs_without_ids_or_with_none_of_the_study_s_are_refused(tmp_path: Path):
    with pytest.raises(StudyError, match=r"row 1: id: missing; rewritten pairs are found by the ids"):
        shift("aligned", data=lay(tmp_path / "without.jsonl", [pair(None)])).check(0)
    strange = shift("aligned", data=lay(tmp_path / "strange.jsonl", [pair("y"), pair("z")]))
    with pytest.raises(StudyError) as caught:
        strange.pairs(ORIGINALS, 0, None)
    assert str(caught.value) == (
        f"shifts: data.path: {tmp_path / 'strange.jsonl'}: none of its 2 ids is among the 3 of the test split; give the"
        " file whose rows have the ids of dataset"
    )


def test_a_file_that_rewrites_fewer_than_half_is_taken_for_that_of_other_pairs(tmp_path: Path):
    few = shift("aligned", data=lay(tmp_path / "few.jsonl", [pair("a"), pair("y"), pair("z")]))
    with pytest.raises(StudyError, match=r"few\.jsonl: 1 of its 3 ids is among the 3 .* or take its rows as pairs of"):
        few.pairs(ORIGINALS, 0, None)
    most = shift("aligned", data=lay(tmp_path / "most.jsonl", [pair("a"), pair("b"), pair("z")]))
    assert [row["id"] for row in most.pairs(ORIGINALS, 0, None)] == ["a", "b"]


def test_two_rewritten_rows_of_one_id_are_refused_and_named(tmp_path: Path):
    rows = [pair("a"), pair("b"), pair("a") | {"chosen": "yes again"}, pair(7), pair("7") | {"chosen": "oh"}]
    with pytest.raises(StudyError) as caught:
        shift("aligned", data=lay(tmp_path / "twice.jsonl", rows)).check(0)
    assert str(caught.value) == (
        f"{tmp_path / 'twice.jsonl'}: id: more than once 'a', '7'; give each row the id of the pair that it rewrites"
    )
    shift("elsewhere", data=lay(tmp_path / "twice.jsonl", rows)).check(0)  # found by nobody


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/token_shift_ultrafeedback")
@pytest.mark.parametrize("language", ["paraphrase", "french"])
def test_real_responses_rewritten_are_found_for_every_pair_held_out(language: str):
    pairs, _ = prepare(LocalSource(path=str(SHARED / "original.jsonl")), 1)
    originals = pairs[pairs["split"] == "test"].reset_index(drop=True)
    again = shift("aligned", data={"source": "local", "path": str(SHARED / f"{language}.jsonl")})
    again.check(1)
    rows = pd.DataFrame(again.pairs(originals, 1, None))
    assert rows["id"].equals(originals["id"])
    assert rows["prompt"].equals(originals["prompt"])
    for side in ("chosen", "rejected"):
        assert (rows[side] != originals[side]).mean() > 0.9


def test_a_row_is_found_by_its_id_or_by_what_stands_before_its_last_number_sign():
    assert rewritten(["a", "b#x"], ["a", "b#x"]) == ["a", "b#x"]
    assert rewritten(["a#1", "b#x#1", "a#2"], ["a", "b#x"]) == ["a", "b#x", "a"]
    assert rewritten(["a", "a#1"], ["a", "a#1"]) == ["a", "a#1"]  # as they are: none is numbered


def test_an_id_that_may_be_of_two_originals_or_is_of_none_is_refused():
    with pytest.raises(StudyError, match="'a#1' is the id of one original, and 'a' that of another"):
        rewritten(["a#1", "a#1#1"], ["a", "a#1"])
    with pytest.raises(StudyError, match="id: 'c#1' is of no original; give rows the ids of those they rewrite"):
        rewritten(["a", "c#1"], ["a"])


def test_only_what_costs_nothing_is_known_beforehand(tmp_path: Path):
    data = lay(tmp_path / "there.jsonl", [pair("a"), pair("b")])
    for one in (shift("same"), shift("elsewhere", data=data), shift("aligned", data=data), shift("phrasings")):
        assert one.beforehand(ORIGINALS, 0) == one.pairs(ORIGINALS, 0, None)
    assert shift("elsewhere", data={"source": "hub", "path": "some/set"}).beforehand(ORIGINALS, 0) is None
    assert shift("rewritten", path="some/model", instruction="paraphrase").beforehand(ORIGINALS, 0) is None
