"""Preference pairs looked at: what a study must say to read them, whatever their columns are and wherever they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe import corpus
from rmpipe.config import StudyError
from rmpipe.corpus import preferences

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


def rows(count: int = 20, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", **more} for n in range(count)]


def written(file: Path, lines: list[dict[str, Any]]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def told(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_pairs_of_our_names_need_nothing_said(tmp_path: Path):
    file = written(tmp_path / "pairs.jsonl", rows())
    seen = preferences(file)
    assert seen.table == {"source": "local", "path": file}
    assert seen.told() == "20 pairs (3 held out), prompts as text"
    assert seen.remarks == ()


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("question", "answer_better", "answer_worse"),
        ("instruction", "response_chosen", "response_rejected"),
        ("query", "preferred", "dispreferred"),
        ("promt", "choosen", "rejectd"),
    ],
)
def test_other_names_of_columns_are_named_in_the_study(tmp_path: Path, prompt: str, chosen: str, rejected: str):
    theirs = [
        {"chosen_model": "m", "id": str(n), prompt: f"p{n}", chosen: f"a{n}", rejected: f"b{n}", "score": 1.0}
        for n in range(20)
    ]
    seen = preferences(written(tmp_path / "pairs.jsonl", theirs))
    assert seen.table["columns"] == {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    assert f"{chosen} is its chosen" in seen.remarks
    assert seen.frame is not None
    assert set(seen.frame["chosen"]) == {f"a{n}" for n in range(20)}


@pytest.mark.parametrize("beside", [False, True], ids=["inside alone", "and a prompt beside them"])
def test_whole_conversations_have_their_prompt_inside(tmp_path: Path, beside: bool):
    theirs = [
        {side: [told("user", f"p{n}"), told("assistant", side)] for side in ("chosen", "rejected")}
        | ({"prompt": f"p{n}"} if beside else {})
        for n in range(20)
    ]  # fmt: skip
    seen = preferences(written(tmp_path / "pairs.jsonl", theirs))
    assert seen.form == "whole conversations"
    assert seen.frame is not None
    assert list(seen.frame["chosen"]) == ["chosen"] * 20


def dialogues(count: int) -> list[dict[str, str]]:
    begin = "\n\nHuman: hi {}\n\nAssistant:"
    return [{"chosen": begin.format(n) + " yes", "rejected": begin.format(n) + " no"} for n in range(count)]


def test_dialogues_as_text_are_read_and_rows_without_a_shared_prompt_are_told_with_a_way_out(tmp_path: Path):
    assert preferences(written(tmp_path / "pairs.jsonl", dialogues(20))).form == "dialogues as text"
    unlike = [*dialogues(20), {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}]
    with pytest.raises(StudyError, match=r'row 21: prompt: missing.*\n.*source = "hh" leaves such rows out'):
        preferences(written(tmp_path / "pairs.jsonl", unlike))


@pytest.mark.parametrize("messages", [False, True])
def test_a_folder_of_dialogues_is_known_and_is_messages_for_a_chat_template(tmp_path: Path, messages: bool):
    for part in ("train", "test"):
        written(tmp_path / "hh" / "harmless-base" / f"{part}.jsonl", dialogues(9 if part == "train" else 2))
    for place in (tmp_path / "hh", tmp_path / "hh" / "harmless-base"):
        seen = preferences(str(place), messages=messages)
        table = {"source": "hh", "path": str(tmp_path / "hh")} | ({"form": "messages"} if messages else {})
        assert seen.table.items() >= table.items()
        assert seen.frame is not None
        assert isinstance(seen.frame["prompt"][0], str) != messages


def test_a_split_column_that_cannot_be_gone_by_is_not(tmp_path: Path):
    held = preferences(written(tmp_path / "held.jsonl", rows(split="test")))
    odd = preferences(written(tmp_path / "odd.jsonl", rows(split="phase two")))
    assert held.table["split_column"] == odd.table["split_column"] == ""
    assert "all its rows are held out" in held.remarks[0]
    assert "'phase two' is neither for training nor held out" in odd.remarks[0]


def test_prompts_on_both_sides_are_dropped_and_counted(tmp_path: Path):
    both = [*rows(20, split="train"), *rows(3, split="test")]
    seen = preferences(written(tmp_path / "pairs.jsonl", both))
    assert seen.table["leakage"] == "drop"
    assert seen.remarks == ("3 rows for training ask what a row held out asks, and are left out",)


def card(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> str:
    """A folder of the hub's form."""
    for name, lines in parts.items():
        written(folder / f"{name}.jsonl", lines)
    files = "\n".join(f"  - split: {name}\n    path: {name}.jsonl" for name in parts)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n")
    return str(folder)


def test_parts_of_a_folder_of_the_hub_s_form_are_chosen_by_their_names(tmp_path: Path):
    parts = {"train_sft": rows(2), "train_prefs": rows(12), "test_prefs": [PAIR, PAIR | {"prompt": "q"}]}
    seen = preferences(card(tmp_path / "data", parts))
    assert (seen.table["source"], seen.table["split"], seen.table["test_split"]) == ("hub", "train_prefs", "test_prefs")
    assert seen.frame is not None
    assert seen.frame["split"].eq("test").sum() == 2
    assert "train_prefs is taken" in seen.remarks[0]


def test_a_local_copy_of_a_known_data_set_is_known_by_its_columns(tmp_path: Path):
    steps = {"eval_solution_A": ["one"], "eval_solution_B": ["two"], "chosen_position": "A"}
    seen = preferences(card(tmp_path / "copy", {"test": [{"problem": f"p{n}", **steps} for n in range(9)]}))
    assert (seen.table["source"], seen.table["split"]) == ("rewardmath", "test")
    farm = {"instruction": "sing", "input": "", "output_1": "a", "output_2": "b", "preference": 1}
    seen = preferences(card(tmp_path / "farm", {"preference": [farm | {"input": str(n)} for n in range(12)]}))
    assert (seen.table["source"], seen.table["subset"]) == ("alpacafarm", "default")
    bench = {**PAIR, "chosen_model": "a", "rejected_model": "b"}
    lines = [bench | {"prompt": f"p{n}", "id": n, "subset": ("hep-go", "xstest")[n % 2]} for n in range(12)]
    seen = preferences(card(tmp_path / "bench", {"filtered": lines}))
    assert (seen.table["source"], seen.table["subsets"]) == ("rewardbench", ["hep-go", "xstest"])
    assert seen.told().startswith('known as "rewardbench", 12 pairs')


@pytest.mark.parametrize(
    ("place", "table"),
    [
        ("Anthropic/hh-rlhf", {"source": "hh", "form": "messages"}),
        ("allenai/reward-bench-2", {"source": "rewardbench2"}),
        ("huggingfaceh4/ultrafeedback_binarized", {"source": "ultrafeedback"}),
        ("somebody/pairs", {"source": "hub"}),
    ],
)
def test_a_hub_that_does_not_answer_leaves_what_is_known_by_name(monkeypatch, place: str, table: dict[str, str]):
    monkeypatch.setattr(corpus, "hub_answers", lambda: False)
    seen = preferences(place, messages=True)
    assert seen.table == {"path": place, **table}
    assert seen.frame is None
    assert seen.told().startswith("not looked at: the hub does not answer; ")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"prompt": "p", "completion": "c"}], "no column for chosen and rejected among prompt, completion"),
        ([], "no rows"),
    ],
)
def test_what_is_no_pair_is_refused_with_what_it_has(tmp_path: Path, lines: list[dict[str, str]], said: str):
    with pytest.raises(StudyError, match=f"--preferences: .*{said}"):
        preferences(written(tmp_path / "pairs.jsonl", lines))


def test_a_compressed_file_and_a_model_are_refused(base: Path, tmp_path: Path):
    with pytest.raises(StudyError, match="compressed; unpack it, or give the folder"):
        preferences(written(tmp_path / "pairs.jsonl.gz", rows()))
    with pytest.raises(StudyError, match="a model; give a file of pairs"):
        preferences(str(base))
