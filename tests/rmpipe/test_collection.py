"""Public data sets, read from small local copies of the same form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe.config import StudyError
from rmpipe.dataset import Dataset
from rmpipe.preference import prepare


def saved(folder: Path, **parts: list[dict[str, Any]]) -> str:
    """A folder of the hub's form: a data file a part."""
    folder.mkdir()
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "\n".join(f"  - split: {name}\n    path: {name}.jsonl" for name in parts)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n")
    return str(folder)


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def feedback(prompt: str, chosen: float = 8.0, rejected: float = 5.0) -> dict[str, Any]:
    sides = {"chosen": said(prompt, f"{prompt} well"), "rejected": said(prompt, f"{prompt} badly")}
    return {"prompt": prompt, "prompt_id": f"id-{prompt}", **sides, "score_chosen": chosen, "score_rejected": rejected}


def test_ultrafeedback_keeps_unequal_scores_and_no_translations(tmp_path):
    train = [feedback(f"ask {n}") for n in range(6)] + [feedback("even", 7, 7), feedback("Please TRANSLATE it")]
    path = saved(tmp_path / "uf", train_prefs=train, test_prefs=[feedback("held out")])
    source = Dataset.parse({"source": "ultrafeedback", "path": path, "policy_fraction": 0}, "dataset")
    pairs, _ = prepare(source, 1)
    assert sorted(pairs["prompt"]) == [*(f"ask {n}" for n in range(6)), "held out"]
    row = pairs[pairs["prompt"] == "held out"].iloc[0]
    assert (row["chosen"], row["rejected"], row["split"], row["id"]) == (
        "held out well", "held out badly", "test", "id-held out",
    )  # fmt: skip
    kept = Dataset.parse({"source": "ultrafeedback", "path": path, "translations": "keep"}, "dataset")
    assert any(row["prompt"] == "Please TRANSLATE it" for row in kept.rows(1)[0])


def test_alpacafarm_s_sides_are_told_by_the_preference_and_an_input_has_a_line_of_its_own(tmp_path):
    outputs = {"output_1": "one", "output_2": "two"}
    rows = [
        {"instruction": "add", "input": "1 + 1", "preference": 2, **outputs},
        {"instruction": "sing", "input": "", "preference": 1, **outputs},
    ]
    table = {"source": "alpacafarm", "path": saved(tmp_path / "af", preference=rows), "subset": None}
    taken = Dataset.parse(table, "dataset").rows(1)[0]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in taken] == [
        ("add\n1 + 1", "two", "one"),
        ("sing", "one", "two"),
    ]


def test_alpacafarm_is_read_from_the_file_that_its_script_reads_on_the_hub_as_in_a_folder(tmp_path, monkeypatch):
    told = {"instruction": "sing", "input": "", "output_1": "one", "output_2": "two", "preference": 1}
    (tmp_path / "alpaca_human_preference.json").write_text(json.dumps([told]))
    (tmp_path / "alpaca_farm.py").write_text("raise RuntimeError")
    table = {"source": "alpacafarm", "path": str(tmp_path)}
    assert [row["chosen"] for row in Dataset.parse(table, "dataset").rows(1)[0]] == ["one"]
    asked: list[Any] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: asked.append((*given, more)) or Nothing())
    for more in ({}, {"revision": "v1"}):
        Dataset.parse({"source": "alpacafarm", **more}, "dataset").rows(1)
    places = [f"hf://datasets/tatsu-lab/alpaca_farm@{at}/alpaca_human_preference.json" for at in ("main", "v1")]
    assert asked == [("json", {"data_files": place, "split": "train"}) for place in places]


class Nothing:
    """A data set without a row."""

    def to_list(self) -> list[Any]:
        return []


def test_rewardbench_is_read_by_subset(tmp_path):
    rows = [
        {"id": n, "subset": subset, "prompt": f"p{n}", "chosen": "right", "rejected": "wrong", "chosen_model": "m"}
        for n, subset in enumerate(("math-prm", "hep-python", "hep-go", "alpacaeval-easy"))
    ]
    path = saved(tmp_path / "rb", filtered=rows)
    source = Dataset.parse({"source": "rewardbench", "path": path, "subsets": ["hep"]}, "dataset")
    assert [row["id"] for row in source.rows(1)[0]] == ["hep-python-1", "hep-go-2"]


def test_rewardmath_s_sides_are_told_by_position(tmp_path):
    steps = {"eval_solution_A": ["one", "two"], "eval_solution_B": ["three"]}
    rows = [{"problem": "p", "chosen_position": position, **steps} for position in "AB"]
    source = Dataset.parse({"source": "rewardmath", "path": saved(tmp_path / "rm", test=rows)}, "dataset")
    assert [(row["chosen"], row["rejected"]) for row in source.rows(1)[0]] == [
        ("one two", "three"),
        ("three", "one two"),
    ]


@pytest.fixture
def second(tmp_path) -> str:
    """A folder of the form of RewardBench 2: a parquet file that no card names."""
    import pandas as pd

    rows = [
        {"id": str(n), "subset": subset, "prompt": f"p{n}", "chosen": [f"right {k}" for k in range(right)],
         "rejected": [f"wrong {k}" for k in range(3)], "num_correct": right, "total_completions": right + 3}
        for n, (subset, right) in enumerate((("Math", 1), ("Precise IF", 1), ("Ties", 2)))
    ]  # fmt: skip
    folder = tmp_path / "reward-bench-2" / "data"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "test-00000-of-00001.parquet")
    return str(folder.parent)


def test_rewardbench_2_sets_the_right_response_against_each_wrong_one_and_leaves_ties_out(second):
    source = Dataset.parse({"source": "rewardbench2", "path": second}, "dataset")
    rows = source.rows(1)[0]
    assert [row["id"] for row in rows] == [f"{name}-0-{k}" for name in ("Math-0", "Precise IF-1") for k in range(3)]
    assert {(row["prompt"], row["chosen"], row["rejected"]) for row in rows if row["prompt"] == "p0"} == {
        ("p0", "right 0", f"wrong {k}") for k in range(3)
    }
    pairs, summary = prepare(source.model_copy(update={"policy_fraction": 0.0, "test_fraction": 0.5}), 1)
    assert summary["dropped"] == {"prompt in test": 0}
    assert pairs.groupby("prompt")["split"].nunique().eq(1).all()  # all pairs of a prompt are on one side


def test_ties_that_are_asked_for_set_every_right_response_against_every_wrong_one(second):
    source = Dataset.parse({"source": "rewardbench2", "path": second, "subsets": ["Ties"]}, "dataset")
    rows = source.rows(1)[0]
    assert len(rows) == len({row["id"] for row in rows}) == 6
    assert {row["chosen"] for row in rows} == {"right 0", "right 1"}


def dialogue(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[place % 2]}: {turn}" for place, turn in enumerate(turns))


@pytest.fixture
def dialogues(tmp_path) -> str:
    """A folder of the form of hh-rlhf: a folder a subset, each with its parts as compressed lines."""
    pair = {"chosen": dialogue("hello", "yes?", "why?", "so."), "rejected": dialogue("hello", "yes?", "why?", "no.")}
    unlike = {"chosen": dialogue("one", "a"), "rejected": dialogue("another", "b")}
    silent = {"chosen": dialogue("one", "a"), "rejected": dialogue("one", "")}
    twice = {side: f"\n\nHuman: a\n\nHuman: b\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    held = {"chosen": dialogue("held", "x"), "rejected": dialogue("held", "y")}
    parts = {
        "harmless-base/train": [pair, unlike, silent, twice], "harmless-base/test": [held],
        "helpful-base/train": [{"chosen": dialogue("help", "x"), "rejected": dialogue("help", "y")}] * 2,
    }  # fmt: skip
    for name, rows in parts.items():
        file = tmp_path / "hh-rlhf" / f"{name}.jsonl.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(tmp_path / "hh-rlhf")


def test_what_both_sides_of_a_dialogue_share_is_the_prompt_and_rows_without_one_are_left_out(dialogues):
    rows = Dataset.parse({"source": "hh", "path": dialogues}, "dataset").rows(1)[0]
    asked = dialogue("hello", "yes?", "why?") + "\n\nAssistant:"
    assert rows == [
        {"prompt": asked, "chosen": " so.", "rejected": " no.", "split": "train"},
        {"prompt": dialogue("held") + "\n\nAssistant:", "chosen": " x", "rejected": " y", "split": "test"},
    ]


def test_dialogues_are_messages_where_a_chat_template_wants_them(dialogues):
    row = Dataset.parse({"source": "hh", "path": dialogues, "form": "messages"}, "dataset").rows(1)[0][0]
    assert row["prompt"] == said("hello", "yes?", "why?")
    assert (row["chosen"], row["rejected"]) == ("so.", "no.")


def test_a_subset_of_the_dialogues_is_its_folder_here_as_on_the_hub(dialogues, monkeypatch):
    table = {"source": "hh", "path": dialogues, "subset": "helpful-base", "test_split": None}
    asked_for = [row["prompt"] for row in Dataset.parse(table, "dataset").rows(1)[0]]
    assert asked_for == [dialogue("help") + "\n\nAssistant:"] * 2
    asked: list[Any] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: asked.append((*given, more)) or Nothing())
    Dataset.parse({"source": "hh", "test_split": None}, "dataset").rows(1)
    told = {"split": "train", "revision": None, "cache_dir": None}
    assert asked == [("Anthropic/hh-rlhf", None, "harmless-base", told)]  # None for a name: data_dir


def test_a_folder_whose_card_names_its_files_is_read_as_it_is_now(tmp_path):
    """`datasets` takes such a folder for the one of that name which it has read before."""
    rows = [{"problem": "p", "chosen_position": "A", "eval_solution_A": ["old"], "eval_solution_B": ["other"]}]
    path = Path(saved(tmp_path / "changing", test=rows))
    source = Dataset.parse({"source": "rewardmath", "path": str(path)}, "dataset")
    assert [row["chosen"] for row in source.rows(1)[0]] == ["old"]
    (path / "test.jsonl").write_text(json.dumps(rows[0] | {"eval_solution_A": ["new"]}) + "\n")
    assert [row["chosen"] for row in source.rows(1)[0]] == ["new"]
    (tmp_path / "elsewhere").mkdir()
    other = saved(tmp_path / "elsewhere" / "changing", test=[rows[0] | {"eval_solution_A": ["third"]}])
    source = Dataset.parse({"source": "rewardmath", "path": other}, "dataset")
    assert [row["chosen"] for row in source.rows(1)[0]] == ["third"]


def test_rows_of_another_form_are_refused_with_what_they_have(tmp_path):
    path = saved(tmp_path / "other", filtered=[{"question": "?"}])
    source = Dataset.parse({"source": "rewardbench", "path": path, "subsets": ["hep"]}, "dataset")
    with pytest.raises(
        StudyError, match=r"filtered\]: row 1: not a row of rewardbench \(KeyError: 'subset'\); it has question"
    ):
        source.rows(1)
