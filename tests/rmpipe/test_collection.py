"""Public data sets, read from small local copies of the same form."""

from __future__ import annotations

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
