"""The seven data sets of the paper, read from small local copies of the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmpipe import grue
from rmpipe.config import StudyError, digest, identity
from rmpipe.labels import Labels, check, prepare

SEVEN = ("narrative_qa", "totto", "common_gen", "iwslt2017", "cnn_dailymail", "daily_dialog", "imdb")


def saved(folder: Path, config: str = "default", **parts: list[dict[str, Any]]) -> str:
    """A folder of the hub's form: a data file a part."""
    folder.mkdir()
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "\n".join(f"  - split: {name}\n    path: {name}.jsonl" for name in parts)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n---\n")
    return str(folder)


def converted(folder: Path, subset: str, **parts: list[dict[str, Any]]) -> str:
    """A folder of the form that the hub gives to what was a script: `SUBSET/SPLIT/0000.parquet`."""
    from datasets import Dataset

    for name, rows in parts.items():
        (folder / subset / name).mkdir(parents=True)
        Dataset.from_list(rows).to_parquet(folder / subset / name / "0000.parquet")
    return str(folder)


def taken(source: str, path: str, **more: Any) -> list[dict[str, Any]]:
    rows, _ = Labels.parse({"source": source, "path": path, **more}, "dataset").rows(1)
    return rows


def story(question: str, *answers: str, text: str = "It  rains.\nIt snows.") -> dict[str, Any]:
    summary = {"text": text, "tokens": text.split(), "url": "", "title": "T"}
    document = {"id": "d", "kind": "movie", "summary": summary, "text": "a whole book"}
    words = [{"text": answer, "tokens": answer.split()} for answer in answers]
    return {"document": document, "question": {"text": question, "tokens": []}, "answers": words}


def table(key: str, *references: str, target: str = "") -> dict[str, Any]:
    cells = "<page_title> A </page_title> <table> <cell> 3 </cell> </table>"
    return {"gem_id": key, "linearized_input": f"{cells} {key}", "target": target, "references": list(references)}


def test_a_story_is_asked_about_with_its_summary_and_not_with_the_book(tmp_path: Path):
    path = saved(tmp_path / "nqa", train=[story("Why?", "Rain.", "It rains ")], test=[story("How?", "So.")])
    rows = taken("narrative_qa", path)
    prompt = "It rains. It snows.\nQuestion: Why?\nAnswer:"
    assert rows[0] == {"prompt": prompt, "references": [" Rain.", " It rains"], "split": "train"}
    assert rows[1]["split"] == "test"
    assert taken("narrative_qa", path, words=3)[0]["prompt"].startswith("It rains. It\n")
    assert "a whole book" not in json.dumps(Labels.parse({"source": "narrative_qa", "path": path}, "d").raw("train"))


def test_a_table_has_the_references_that_there_are_or_else_its_target(tmp_path: Path):
    rows = {"train": [table("t-0", target="One.")], "validation": [table("v-0", "Two.", "Three.", target="Two.")]}
    found = taken("totto", converted(tmp_path, "totto", **rows))
    assert [row["references"] for row in found] == [[" One."], [" Two.", " Three."]]
    assert [(row["id"], row["split"]) for row in found] == [("t-0", "train"), ("v-0", "test")]
    assert found[0]["prompt"].endswith("</table> t-0\nSentence:")


def test_sentences_of_the_same_words_are_one_input_and_those_without_a_sentence_none(tmp_path: Path):
    def rows(*words: str) -> list[dict[str, Any]]:
        made = [(n, text) for n in range(9) for text in (f"The {words[n % len(words)]} is {n}.", f"See {n}!")]
        return [{"concept_set_idx": n, "concepts": [words[0], f"n{n}"], "target": text} for n, text in made]

    parts = {
        "train": [*rows("dog"), {"concept_set_idx": 9, "concepts": ["a"], "target": ""}],
        "validation": rows("cat"),
    }
    path = saved(tmp_path / "cg", **parts)
    frame, summary = prepare(Labels.parse({"source": "common_gen", "path": path}, "dataset"), 1)
    assert summary["kept"] == {"policy": 9, "test": 9}
    by_prompt = frame.set_index("prompt")["references"]
    assert by_prompt["Generate a sentence with: dog, n4.\nSentence:"] == [" The dog is 4.", " See 4!"]


def test_a_sentence_is_translated_from_english(tmp_path: Path):
    rows = [{"translation": {"de": "Guten Tag.", "en": "Good day."}}, {"translation": {"de": "", "en": "Hm."}}]
    found = taken("iwslt2017", converted(tmp_path, "iwslt2017-de-en", train=rows, test=rows[:1]))
    expected = {"prompt": "English: Good day.\nGerman:", "references": [" Guten Tag."]}
    assert found == [{**expected, "split": "train"}, {**expected, "split": "test"}]


def test_an_article_is_cut_to_its_first_words(tmp_path: Path):
    rows = [
        {"id": key, "article": text, "highlights": "One .\nTwo ."} for key, text in (("a", "It is so ."), ("b", " "))
    ]
    path = saved(tmp_path / "cnn", "3.0.0", train=rows, test=rows)
    found = taken("cnn_dailymail", path, words=2)
    assert [row["id"] for row in found] == ["a", "a"]  # there is nothing to say of an empty one
    assert (found[0]["prompt"], found[0]["references"]) == ("It is\nTL;DR:", [" One .\nTwo ."])


def test_every_turn_with_enough_before_it_is_to_be_said(tmp_path: Path):
    rows = [{"dialog": [f" turn {n} ." for n in range(length)], "act": [], "emotion": []} for length in (7, 5)]
    path = converted(tmp_path, "default", train=rows, test=rows)
    found = [row for row in taken("daily_dialog", path) if row["split"] == "train"]
    assert [row["references"] for row in found] == [[" turn 5 ."], [" turn 6 ."]]
    assert found[1]["prompt"] == "A: turn 1 .\nB: turn 2 .\nA: turn 3 .\nB: turn 4 .\nA: turn 5 .\nB:"
    assert taken("daily_dialog", path, context=2)[0]["prompt"] == "A: turn 0 .\nB: turn 1 .\nA:"


def test_a_review_begins_the_prompt_and_only_positive_ones_are_for_training(tmp_path: Path):
    rows = [{"text": f"one two three four {label}", "label": label} for label in (0, 1)]
    path = saved(tmp_path / "imdb", train=rows, test=rows)
    found = taken("imdb", path)
    assert [(row["group"], row["split"]) for row in found] == [
        ("positive", "train"), ("negative", "test"), ("positive", "test"),
    ]  # fmt: skip
    assert (found[0]["prompt"], found[0]["references"]) == ("one two", [" three four 1"])
    short = taken("imdb", path, words=1, continuation=2, training="all")[0]
    assert (short["prompt"], short["references"], short["group"]) == ("one", [" two three"], "negative")


def test_what_is_asked_may_be_said_in_other_words(tmp_path: Path):
    path = converted(tmp_path, "iwslt2017-de-en", train=[{"translation": {"de": "So {english}.", "en": "{so}"}}])
    form = "Translate to German: {english} ="
    rows = taken("iwslt2017", path, form=form, test_split=None)
    assert (rows[0]["prompt"], rows[0]["references"]) == ("Translate to German: {so} =", [" So {english}."])
    with pytest.raises(StudyError, match=r"dataset\.form: \{english\} missing; a prompt says 'English: \{english\}"):
        Labels.parse({"source": "iwslt2017", "form": "German:"}, "dataset")


@pytest.mark.parametrize("source", SEVEN)
def test_rows_of_another_form_are_refused_with_what_they_have(tmp_path: Path, source: str):
    kind = Labels.member(source, "dataset")
    other, subset = [{"prompt": "p"}], kind.model_fields["subset"].default
    if issubclass(kind, grue.Converted):
        path = converted(tmp_path, subset, train=other)
    else:
        path = saved(tmp_path / "other", subset or "default", train=other)
    told = rf"\[train\]: row 1: not a row of {source} \(KeyError: .*\); it has prompt; give the data set itself"
    with pytest.raises(StudyError, match=told):
        taken(source, path)


def test_a_review_of_no_kind_is_refused(tmp_path: Path):
    path = saved(tmp_path / "imdb", train=[{"text": "one two", "label": -1}])
    with pytest.raises(StudyError, match=r"row 1: not a row of imdb \(KeyError: -1\)"):
        taken("imdb", path)


def test_columns_cannot_be_renamed_where_they_are_known():
    with pytest.raises(StudyError, match=r"dataset\.columns: the columns of this data set are known; leave them out"):
        Labels.parse({"source": "imdb", "columns": {"prompt": "text"}}, "dataset")


# -- on the hub -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SEVEN)
def test_each_is_known_without_a_network_and_left_to_the_stage(source: str):
    labels = Labels.parse({"source": source}, "dataset")
    assert check(labels) is None
    assert labels.content() == f"{labels.path}@{labels.revision or 'main'}"
    assert digest(identity(labels)) == digest(identity(Labels.parse({"source": source, "path": "a/copy"}, "dataset")))


def test_each_asks_the_hub_for_its_parts(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: asked.append((*given, more)) or Nothing())
    for source in SEVEN:
        Labels.parse({"source": source}, "dataset").rows(1)
    whole = {
        "deepmind/narrativeqa": (None, "test"), "allenai/common_gen": (None, "validation"),
        "abisee/cnn_dailymail": ("3.0.0", "test"), "stanfordnlp/imdb": (None, "test"),
    }  # fmt: skip
    files = {
        "GEM/totto": ("totto", "validation"), "IWSLT/iwslt2017": ("iwslt2017-de-en", "test"),
        "li2017dailydialog/daily_dialog": ("default", "test"),
    }  # fmt: skip
    expected = [
        (path, subset, {"split": split, "revision": None, "cache_dir": None})
        for path, (subset, held) in whole.items() for split in ("train", held)
    ]  # fmt: skip
    for path, (subset, held) in files.items():
        folder = f"hf://datasets/{path}@refs/convert/parquet/{subset}"
        expected += [
            ("parquet", {"data_files": f"{folder}/{split}/*.parquet", "split": "train"}) for split in ("train", held)
        ]
    assert sorted(map(repr, asked)) == sorted(map(repr, expected))


class Nothing:
    """A data set without a row."""

    column_names: tuple[str, ...] = ()

    def to_list(self) -> list[Any]:
        return []

    def flatten(self) -> Nothing:
        return self

    def remove_columns(self, names: list[str]) -> Nothing:
        return self
