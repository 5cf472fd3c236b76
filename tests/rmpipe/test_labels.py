"""Labelled inputs: read from what people have, gathered by prompt, split so that no prompt is in both splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmpipe import world
from rmpipe.config import StudyError, digest, identity
from rmpipe.labels import HubLabels, Labels, LocalLabels, WorldLabels, check, prepare
from rmpipe.text import encode

STORIES = Path(__file__).parents[3] / "shared" / "data" / "tinystories" / "stories.jsonl"
STORIES_MODEL = STORIES.parents[1] / "models" / "stories260k"


def inputs(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n}", "completion": f" label {n}", **more} for n in range(count)]


def local(folder: Path, rows: list[Any], **more: Any) -> LocalLabels:
    file = folder / "inputs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LocalLabels(path=str(file), **more)


def refused(labels: Labels) -> str:
    with pytest.raises(StudyError) as caught:
        check(labels)
    return str(caught.value)


def splits(frame: pd.DataFrame) -> dict[str, set[str]]:
    return {name: set(frame["prompt"][frame["split"] == name]) for name in ("policy", "test")}


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "folder"])
def test_every_form_of_file_gives_the_same_inputs(tmp_path: Path, form: str):
    rows = [{"prompt": f"p{n}", "references": [" one", f" two {n}"]} for n in range(20)]
    expected, _ = prepare(local(tmp_path, rows), 0)
    path = tmp_path / f"other.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif form == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        from datasets import Dataset

        Dataset.from_list(rows).save_to_disk(str(path))
    frame, summary = prepare(LocalLabels(path=str(path)), 0)
    assert summary["read"] == 20
    assert frame.to_dict("records") == expected.to_dict("records")


def test_a_completion_keeps_its_space_and_is_the_only_reference(tmp_path: Path):
    frame, _ = prepare(local(tmp_path, inputs(9)), 0)
    assert set(frame.columns) == {"id", "prompt", "references", "split"}
    assert frame.set_index("prompt")["references"]["p4"] == [" label 4"]
    assert frame.set_index("id").loc["5", "prompt"] == "p4"  # without an id, by its number


def test_rows_of_one_prompt_are_one_input_with_every_reference_once_and_in_order(tmp_path: Path):
    rows = [
        *inputs(9),
        {"prompt": "p3", "completion": " late"},
        {"prompt": "p3", "references": [" label 3", " later"], "completion": " late"},
        {"prompt": " p3", "completion": " of another text"},
    ]
    frame, summary = prepare(local(tmp_path, rows), 0)
    assert frame.set_index("prompt")["references"]["p3"] == [" label 3", " late", " later"]
    assert (summary["read"], summary["inputs"]) == (12, 10)
    assert summary["references"] == {"min": 1, "median": 1.0, "mean": 1.2, "max": 3}


def test_columns_are_renamed_and_ids_and_groups_kept(tmp_path: Path):
    rows = [{"id": f"r{n}", "question": f"q{n}", "answers": ["a"], "group": n % 2, "else": 1} for n in range(9)]
    frame, _ = prepare(local(tmp_path, rows, columns={"prompt": "question", "references": "answers"}), 0)
    assert set(frame.columns) == {"id", "prompt", "references", "group", "split"}
    assert tuple(frame.set_index("id").loc["r5", ["prompt", "group"]]) == ("q5", 1)


def test_groups_of_words_and_numbers_are_words(tmp_path: Path):
    rows = inputs(9)
    rows[1]["group"], rows[2]["group"] = 3, "rare"
    frame, _ = prepare(local(tmp_path, rows), 0)
    frame.to_parquet(tmp_path / "whole.parquet")
    assert frame.set_index("id")["group"].dropna().to_dict() == {"2": "3", "3": "rare"}


def test_ids_that_come_again_are_told_apart(tmp_path: Path):
    frame, summary = prepare(local(tmp_path, inputs(9, id="same")), 0)
    assert frame["id"].is_unique
    assert summary["ids numbered"] == 8


def test_messages_are_prompts_too(tmp_path: Path):
    rows = [{"prompt": [{"role": "user", "content": f"hi {n}", "x": 0}], "completion": "hello"} for n in range(9)]
    frame, _ = prepare(local(tmp_path, rows), 0)
    assert [{"role": "user", "content": "hi 3"}] in frame["prompt"].to_list()
    rows[4]["prompt"] = "hi"
    assert "prompt: row 5 has text and row 1 messages; use one form for all rows" in refused(local(tmp_path, rows))


def test_a_folder_of_the_hubs_form_is_read_with_its_own_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for name, rows in {"train": inputs(12), "validation": inputs(20)[12:]}.items():
        (tmp_path / "set" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = Labels.parse({"source": "hub", "path": str(tmp_path / "set"), "test_split": "validation"}, "dataset")
    assert prepare(labels, 0)[1]["kept"] == {"policy": 12, "test": 8}


def described(folder: Path, *words: str) -> HubLabels:
    """A folder whose card names its file, which `datasets` keeps under the folder's name."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": word, "completion": f" {word}"} for word in words]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: rows.jsonl\n---\n"
    )
    return HubLabels(path=str(folder))


def asked(labels: HubLabels) -> list[str]:
    return [row["prompt"] for row in labels.rows(0)[0]]


def test_a_folder_is_kept_by_what_is_in_it_and_read_anew_only_where_that_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def kept() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.arrow")}

    assert asked(described(tmp_path / "one" / "set", "old", "rows")) == ["old", "rows"]
    first = kept()
    assert len(first) == 1
    assert asked(HubLabels(path=str(tmp_path / "one" / "set"))) == ["old", "rows"]
    assert kept() == first  # nothing was written again
    assert asked(described(tmp_path / "one" / "set", "new", "rows")) == ["new", "rows"]
    assert asked(described(tmp_path / "other" / "set", "other")) == ["other"]
    assert asked(described(tmp_path / "one" / "set", "old", "rows")) == ["old", "rows"]
    assert first.items() <= kept().items()
    assert len(kept()) == 3


def test_what_must_be_fetched_is_left_to_the_stage():
    assert check(HubLabels(path="some/set")) is None
    assert HubLabels(path="some/set", revision="v1").content() == "some/set@v1"
    unfetched = {"tokenizer": "some/tokenizer", "max_prompt_tokens": 4}
    assert len(check(WorldLabels(inputs=60, **unfetched))) == 60


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p"}, "row 10: references: missing; every row needs a completion, or a list of references"),
        ({"prompt": "p", "references": []}, "row 10: references: missing"),
        ({"prompt": "p", "references": "one"}, "row 10: references: expected a list of texts, got str"),
        ({"prompt": "p", "references": ["one", " "]}, "row 10: references.1: empty; remove the row"),
        ({"prompt": "p", "completion": 3}, "row 10: completion: expected text, got int"),
        ({"completion": "c"}, "row 10: prompt: expected text or a list of messages"),
        ({"prompt": "p", "completion": "c", "group": 0.5}, "row 10: group: expected a word or a whole number"),
        ({"prompt": "p", "completion": "c", "split": "tset"}, "row 10: split: 'tset' is neither for training nor"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_field_and_remedy(tmp_path: Path, row: dict, told: str):
    labels = local(tmp_path, [*inputs(9), row])
    assert refused(labels).startswith(f"{labels.path}: {told}")


def test_a_file_without_prompts_is_refused_with_the_nearest_column(tmp_path: Path):
    told = "column 'prompt' is missing; did you mean prompts?; dataset.columns can name it"
    assert refused(local(tmp_path, [{"prompts": "p", "completion": "c"}])).endswith(told)


def test_an_unknown_source_or_key_is_answered_with_the_nearest():
    with pytest.raises(StudyError, match=r"dataset.source: no source 'wrold'; did you mean world\?"):
        Labels.parse({"source": "wrold"}, "dataset")
    with pytest.raises(StudyError, match=r"dataset.input: unknown key; did you mean inputs\?"):
        Labels.parse({"source": "world", "input": 3}, "dataset")
    with pytest.raises(StudyError, match=r"dataset\.test_fraction: .*greater than 0"):
        Labels.parse({"source": "world", "test_fraction": 0}, "dataset")


def test_an_address_moves_with_what_is_kept_and_not_with_a_place(tmp_path: Path):
    one, other = local(tmp_path, inputs(9)), LocalLabels(path="elsewhere.jsonl")
    assert digest(identity(one)) == digest(identity(other))
    assert digest(identity(one.model_copy(update={"limit": 3}))) != digest(identity(one))


# -- splitting and leaving out ----------------------------------------------------------------------------------------


def test_no_prompt_is_in_both_splits_and_the_draw_is_the_seed_s(tmp_path: Path):
    rows = [{"prompt": form.format(n), "completion": f"c{n}"} for n in range(40) for form in ("what {}", "What {} ")]
    one, summary = prepare(local(tmp_path, rows), 1)
    assert summary["kept"] == {"policy": 68, "test": 12}
    policy, test = ({prompt.strip().lower() for prompt in prompts} for prompts in splits(one).values())
    assert (len(policy), len(test), len(policy & test)) == (34, 6, 0)
    again, other = prepare(local(tmp_path, rows[::-1]), 1)[0], prepare(local(tmp_path, rows), 2)[0]
    assert one["prompt"].to_list() == again["prompt"].to_list() != other["prompt"].to_list()


def test_the_first_inputs_of_a_split_are_a_seeded_draw_of_sorted_data(tmp_path: Path):
    rows = [{"prompt": f"{'early' if n < 200 else 'late'} {n:03}", "completion": "c"} for n in range(400)]
    frame, summary = prepare(local(tmp_path, rows, limit=30), 1)
    assert summary["kept"] == {"policy": 30, "test": 30}
    assert 5 <= frame[frame["split"] == "policy"]["prompt"].str.startswith("early").sum() <= 25


def test_the_datas_own_test_split_is_taken_and_a_leak_refused_or_dropped(tmp_path: Path):
    rows = [{**row, "split": "test" if n < 5 else "train"} for n, row in enumerate(inputs(25))]
    frame, _ = prepare(local(tmp_path, rows), 0)
    assert splits(frame)["test"] == {f"p{n}" for n in range(5)}
    rows.append({"prompt": "P2 ", "completion": "c", "split": "train"})
    told = 'row 26, for training, asks what row 3, held out, asks; remove them or set dataset.leakage = "drop"'
    assert told in refused(local(tmp_path, rows))
    kept, summary = prepare(local(tmp_path, rows, leakage="drop"), 0)
    assert summary["dropped"] == {"prompt in test": 1}
    assert splits(kept) == splits(frame)


def test_one_prompt_on_both_sides_is_a_leak_and_its_references_stay_apart(tmp_path: Path):
    rows = [{**row, "split": "test" if n < 5 else "train"} for n, row in enumerate(inputs(25))]
    rows.append({"prompt": "p2", "completion": " of training", "split": "train"})
    frame, summary = prepare(local(tmp_path, rows, leakage="drop"), 0)
    assert summary["dropped"] == {"prompt in test": 1}
    assert frame.set_index("prompt")["references"]["p2"] == [" label 2"]


def test_values_of_the_split_column_may_be_named(tmp_path: Path):
    rows = [{**row, "part": "b" if n < 5 else "a"} for n, row in enumerate(inputs(25))]
    assert prepare(local(tmp_path, rows, split_column="part", test_splits=("b",)), 0)[1]["kept"]["test"] == 5
    told = "dataset.test_splits: no row of .* is in c; name others"
    with pytest.raises(StudyError, match=told):
        prepare(local(tmp_path, rows, split_column="part", test_splits=("c",)), 0)


def test_inputs_of_too_many_tokens_are_dropped_by_their_longest_reference(tmp_path: Path):
    world.tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = inputs(12)
    rows[0] |= {"prompt": "one two three four five"}
    rows[1] |= {"references": [" short", " one two three four"]}
    limits = {"max_prompt_tokens": 4, "max_response_tokens": 3}
    frame, summary = prepare(local(tmp_path, rows, tokenizer=str(tmp_path / "tokenizer"), **limits), 0)
    assert summary["dropped"] == {"prompt too long": 1, "response too long": 1, "prompt in test": 0}
    assert set(frame["prompt"]) == {f"p{n}" for n in range(2, 12)}
    assert summary["tokens"]["references"]["max"] == 2
    assert refused(local(tmp_path, rows, **limits)).startswith("dataset.tokenizer: missing")


def test_lengths_are_of_the_longest_reference(tmp_path: Path):
    rows = [{"prompt": f"p{n}", "references": ["ab", "abcd" if n else "a" * 22]} for n in range(9)]
    summary = prepare(local(tmp_path, rows), 0)[1]
    assert summary["characters"]["references"] == {"min": 4, "median": 4.0, "mean": 6.0, "max": 22}
    assert "tokens" not in summary


def test_too_few_inputs_for_both_splits_are_refused(tmp_path: Path):
    told = (
        "no input is left for the test split (3 read, dropped: none): the split goes by prompt, and there are 3 prompts"
    )
    assert told in refused(local(tmp_path, inputs(3)))


# -- the world and what is at hand ------------------------------------------------------------------------------------


def test_the_world_is_a_source():
    frame, summary = prepare(WorldLabels(inputs=200), 3)
    assert summary["kept"] == {"policy": 170, "test": 30}
    rows = {row["prompt"]: row for row in world.labelled(3, 200)}
    assert all(rows[prompt]["group"] == group for prompt, group in zip(frame["prompt"], frame["group"], strict=True))
    with pytest.raises(StudyError, match=r"dataset\.inputs: .*less than or equal to 1536"):
        Labels.parse({"source": "world", "inputs": 1537}, "dataset")


@pytest.mark.skipif(not STORIES.exists(), reason="needs ../shared/data/tinystories")
def test_stories_are_labelled_inputs_as_they_are():
    frame, summary = prepare(LocalLabels(path=str(STORIES), limit=100), 1)
    assert summary["kept"] == {"policy": 100, "test": 100}
    assert frame["references"].map(len).eq(1).all()
    assert frame["references"].str[0].str.match(r"\s").mean() > 0.9  # prompt and story are one text


@pytest.mark.skipif(not STORIES_MODEL.exists(), reason="needs ../shared/data/models/stories260k")
def test_stories_within_a_models_reach_are_kept():
    limits = {"max_prompt_tokens": 80, "max_response_tokens": 200}
    frame, summary = prepare(LocalLabels(path=str(STORIES), tokenizer=str(STORIES_MODEL), **limits), 1)
    assert summary["tokens"]["prompt"]["max"] <= 80
    assert summary["tokens"]["references"]["max"] <= 200
    assert summary["dropped"]["response too long"] > 0
    from transformers import AutoTokenizer

    tokenizer, row = AutoTokenizer.from_pretrained(STORIES_MODEL), frame.iloc[0]
    assert len(encode(tokenizer, row["prompt"], row["references"][0])) <= 80 + 200 + 3
