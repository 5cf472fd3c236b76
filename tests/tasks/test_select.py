"""Selection: what is kept is trained on, what is held out stays whole, and what is dropped is told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rmpipe.config import StudyError
from rmpipe.subset import Lowest, Other, Random
from tasks.select import select
from tests.tasks.conftest import preferences


def selected(out, config, pairs, held_out=None, diagnosis=None):
    told = None if diagnosis is None else SimpleNamespace(table=lambda: diagnosis)
    draft = select.function(config, pairs, held_out or pairs, told, 1, out=out, log=None)
    return draft, pd.read_parquet(out / "preferences.parquet"), pd.read_parquet(out / "dropped.parquet")


def diagnosis_of(data, values: list[float]) -> pd.DataFrame:
    mine = data.split("reward")[: len(values)]
    return mine[["id", "chosen", "rejected"]].assign(chosen_tokens=4.0, rejected_tokens=4.0, ches=values)


def test_those_kept_are_whole_rows_of_the_data_beside_all_that_is_held_out(out, pairs):
    data = pairs(4, held_out=3)
    draft, table, dropped = selected(out, Lowest(count=2), data, diagnosis=diagnosis_of(data, [3.0, 0.0, 1.0, 2.0]))
    assert list(table["id"]) == ["p1", "p2", "p4", "p5", "p6"]
    assert table.set_index("id").loc["p2"].to_dict() == data.table().set_index("id").loc["p2"].to_dict()
    assert list(dropped["id"]) == ["p0", "p3"]
    assert set(dropped["why"]) == {"not lowest by ches"}
    told = json.loads((out / "summary.json").read_text())
    assert (told["kept"], told["dropped"], told["rule"]["kind"]) == (2, {"not lowest by ches": 2}, "lowest")
    assert draft.metrics == pytest.approx({"pairs.reward": 2, "dropped": 2, "ches.kept": 0.5, "ches.dropped": 2.5})


@pytest.mark.parametrize("key", [int, lambda n: "same"])
def test_ids_that_are_numbers_or_come_again_part_no_pairs_and_double_none(out, pairs, key):
    data = pairs(4, held_out=1, key=key)
    _, table, _ = selected(out, Lowest(count=2), data, diagnosis=diagnosis_of(data, [3.0, 0.0, 1.0, 2.0]))
    expected = data.table().iloc[[1, 2, 4]]
    assert table[["chosen", "rejected"]].to_numpy().tolist() == expected[["chosen", "rejected"]].to_numpy().tolist()


def test_pairs_that_were_not_diagnosed_are_not_kept(out, pairs):
    data = pairs(8)
    _, table, dropped = selected(out, Random(share=1), data, diagnosis=diagnosis_of(data, [0.0, 0.0, 0.0]))
    assert list(table["id"]) == ["p0", "p1", "p2"]
    assert len(dropped) == 0


OTHER = Other(data={"source": "world", "pairs": 10})


def test_another_data_set_is_trained_on_whole_and_asked_about_the_study_s_held_out_pairs(out, pairs):
    gold, data = pairs(3, held_out=2), pairs(4, held_out=1, key="d{}".format)
    draft, table, dropped = selected(out, OTHER, gold, held_out=data)
    assert list(table["id"]) == ["p0", "p1", "p2", "d4"]
    assert len(dropped) == 0
    assert draft.summary == "3 of 3 pairs, other"


@pytest.mark.parametrize("chat", [False, True])
def test_another_data_set_s_pairs_whose_prompts_are_held_out_are_left_out_with_the_reason(out, pairs, chat):
    gold, data = pairs(3), pairs(4, held_out=1, key="d{}".format)
    given = [gold.table().copy(), data.table().copy()]
    given[0].loc[1, "prompt"] = f" {data.split('test')['prompt'][0].upper()}"
    for table in given if chat else ():
        table["prompt"] = [np.array([{"role": "user", "content": text.strip()}]) for text in table["prompt"]]
    gold, data = map(preferences, given)
    draft, table, dropped = selected(out, OTHER, gold, held_out=data)
    assert list(table["id"]) == ["p0", "p2", "d4"]
    assert dropped[["id", "why"]].to_numpy().tolist() == [["p1", "its prompt is held out"]]
    assert draft.metrics == {"pairs.reward": 2, "dropped": 1}


def test_another_data_set_of_held_out_prompts_alone_is_refused(out, pairs):
    data = pairs(4, held_out=1)
    gold = preferences(data.split("test").assign(split="reward"))
    with pytest.raises(StudyError, match="every prompt of its data is one of those held out"):
        selected(out, OTHER, gold, held_out=data)


def test_what_is_written_of_another_data_set_says_nothing_of_where_it_lay(out, pairs, tmp_path):
    config = Other(data={"source": "local", "path": str(tmp_path / "gold.jsonl")})
    selected(out, config, pairs(3), held_out=pairs(4, held_out=1, key="d{}".format))
    assert str(tmp_path) not in (out / "summary.json").read_text()


def test_fewer_pairs_than_a_step_takes_are_refused_and_those_of_equal_length_are_counted(out, pairs):
    data = pairs(4, held_out=1)
    rows = diagnosis_of(data, [3.0, 0.0, 1.0, 2.0]).assign(chosen_tokens=9.0, rejected_tokens=[9.0, 8.5, 9.5, 4.0])
    told, config = SimpleNamespace(table=lambda: rows), Lowest(share=0.7, equal_length=0.1)
    with pytest.raises(
        StudyError, match=r"lowest by ches: 2 of 4 pairs \(3 are of equal length\) left, but a training ta"
    ):
        select.function(config, data, data, told, 1, 3, out=out, log=None)
    for names, size in ((None, "NAME"), (("dpo",), "dpo")):
        mine = config.model_copy(update={"trainings": names})
        with pytest.raises(StudyError, match=rf"ask for more, or lower trainings\.{size}\.training\.batch_size"):
            select.function(mine, data, data, told, 1, 3, out=out, log=None)
    assert (
        "2 of 4 pairs (3 are of equal length)"
        in select.function(config, data, data, told, 1, 2, out=out, log=None).summary
    )
