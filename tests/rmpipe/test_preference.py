"""Preference pairs: read from what people have, checked by row and field, split so that no prompt is in two splits."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import world
from rmpipe.config import StudyError
from rmpipe.dataset import Dataset, HubSource, LocalSource, WorldSource
from rmpipe.pair import pair_of
from rmpipe.preference import check, mix, pairs_from_samples, prepare, records
from rmpipe.preference import relabel as relabelled

CHAT = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


def pairs(count: int, **more) -> list[dict]:
    return [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}", **more} for i in range(count)]


def written(folder: Path, rows: list, name: str = "pairs.jsonl") -> str:
    file = folder / name
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(file)


def local(folder: Path, rows: list, **more) -> LocalSource:
    return LocalSource(path=written(folder, rows), **more)


def refused(dataset: Dataset) -> str:
    with pytest.raises(StudyError) as caught:
        check(dataset)
    return str(caught.value)


def splits(frame: pd.DataFrame) -> dict[str, set[str]]:
    keys = frame["prompt"].map(lambda prompt: json.dumps(prompt, sort_keys=True))
    return {name: set(keys[frame["split"] == name]) for name in ("reward", "policy", "test")}


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "folder"])
def test_every_form_of_file_gives_the_same_pairs(tmp_path: Path, form: str):
    rows = pairs(20)
    expected, _ = prepare(local(tmp_path, rows), 0)
    path = tmp_path / f"other.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        written(tmp_path, ["\n", *rows, "  \n"], path.name)  # blank lines are no rows
    elif form == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        from datasets import Dataset as Table

        Table.from_list(rows).save_to_disk(str(path))
    frame, summary = prepare(LocalSource(path=str(path)), 0)
    assert summary["read"] == 20
    wanted = ["prompt", "chosen", "rejected", "split"]
    assert frame[wanted].to_dict("records") == expected[wanted].to_dict("records")


def test_a_folder_of_the_hubs_form_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", pairs(20), "train.jsonl")
    frame, summary = prepare(HubSource(path=str(tmp_path / "set")), 0)
    assert summary["kept"] == {"reward": 11, "policy": 6, "test": 3}
    assert set(frame["chosen"]) == {f"good {i}" for i in range(20)}
    with pytest.raises(StudyError, match=r"^dataset.path: .*/set cannot be loaded .* that has the split 'test'$"):
        prepare(HubSource(path=str(tmp_path / "set"), split="test"), 0)


def test_columns_are_renamed_and_ids_and_margins_kept(tmp_path: Path):
    rows = [{"id": f"r{i}", "question": f"q{i}", "chosen": "a", "rejected": "b", "margin": i, "x": 0} for i in range(9)]
    frame, _ = prepare(local(tmp_path, rows, columns={"prompt": "question"}), 0)
    assert set(frame.columns) == {"id", "prompt", "chosen", "rejected", "split", "margin"}
    by_id = frame.set_index("id")
    assert (by_id.loc["r4", "prompt"], by_id.loc["r4", "margin"]) == ("q4", 4)


def test_pairs_of_one_id_are_told_apart_by_names_that_no_other_has(tmp_path: Path):
    rows = pairs(7)
    for row, key in zip(rows, ("a", "a", "a.2", "b", "b", "b", "a"), strict=True):
        row["id"] = key
    frame, summary = prepare(local(tmp_path, rows), 0)
    by_prompt = frame.set_index("prompt")["id"]
    assert summary["ids numbered"] == 4
    assert "ids numbered" not in prepare(local(tmp_path, pairs(7)), 0)[1]
    assert [by_prompt[f"p{n}"] for n in range(7)] == ["a", "a.3", "a.2", "b", "b.2", "b.3", "a.4"]


def test_rows_without_an_id_are_called_by_their_number(tmp_path: Path):
    frame, _ = prepare(local(tmp_path, pairs(9)), 0)
    assert frame.set_index("id").loc["3", "prompt"] == "p2"


def test_a_text_may_hold_other_ends_of_lines(tmp_path: Path):
    rows = [{"prompt": f"p{i}\u2028q", "chosen": "a\x85b\x0c", "rejected": "c"} for i in range(9)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    frame, _ = prepare(LocalSource(path=str(path)), 0)
    assert set(frame["chosen"]) == {"a\x85b\x0c"}
    assert len(frame) == 9


def test_the_world_is_a_source():
    frame, summary = prepare(WorldSource(pairs=60), 3)
    assert summary["read"] == 60
    assert set(frame["prompt"]) <= {row["prompt"] for row in world.preferences(3, 60)}


# -- prompts inside of responses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hello", CHAT], ids=["as text", "as messages"])
def test_a_prompt_that_stands_beside_whole_conversations_too_is_taken_out_of_them(prompt: Any):
    whole = {side: [*CHAT, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    assert pair_of({"prompt": prompt, **whole}) == {"prompt": CHAT, "chosen": "chosen", "rejected": "rejected"}


def test_a_prompt_inside_of_both_responses_is_taken_out(tmp_path: Path):
    def text(i: int) -> str:
        return f"\n\nHuman: hi {i}\n\nAssistant: hm\n\nHuman: and?\n\nAssistant:"

    rows = [{"chosen": f"{text(i)} yes", "rejected": f"{text(i)} no"} for i in range(9)]
    frame, _ = prepare(local(tmp_path, rows), 0)
    row = frame.set_index("id").loc["5"]
    assert (row["prompt"], row["chosen"], row["rejected"]) == (text(4), " yes", " no")


def test_a_conversation_shared_by_both_responses_is_the_prompt(tmp_path: Path):
    def chat(i: int, answer: str) -> list[dict]:
        turns = [("system", "s"), ("user", f"hi {i}"), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in turns]

    rows = [{"chosen": chat(i, "yes"), "rejected": chat(i, "no")} for i in range(9)]
    for path in (written(tmp_path, rows), str(tmp_path / "pairs.parquet")):
        if path.endswith("parquet"):
            pd.DataFrame(rows).to_parquet(path)
        frame, _ = prepare(LocalSource(path=path), 0)
        row = frame.set_index("id").loc["5"]
        assert row["prompt"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hi 4"}]
        assert (row["chosen"], row["rejected"]) == ("yes", "no")


def test_messages_are_prompts_and_one_message_is_a_response(tmp_path: Path):
    rows = [
        {
            "prompt": [*CHAT[:1], {"role": "user", "content": f"hello {i}"}],
            "chosen": [{"role": "assistant", "content": "hi"}],
            "rejected": "go away",
        }
        for i in range(30)
    ]
    frame, _ = prepare(local(tmp_path, rows), 0)
    assert frame["prompt"][0][0] == CHAT[0]
    assert set(frame["chosen"]) == {"hi"}
    assert {name: len(prompts) for name, prompts in splits(frame).items()} == {"reward": 17, "policy": 9, "test": 4}


# -- refusing ---------------------------------------------------------------------------------------------------------


def test_a_place_where_nothing_lies_is_told(tmp_path: Path):
    path = str(tmp_path / "none.jsonl")
    assert refused(LocalSource(path=path)).startswith(f"{path}: nothing there; paths are read from the study file")
    assert "not a folder that datasets.save_to_disk wrote whole (" in refused(LocalSource(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": "p", \n', "row 4: not JSON (Expecting property name"),
        ("[1, 2]\n", "row 4: expected an object, got [1, 2]"),
    ],
)
def test_a_line_that_is_no_row_is_told_with_its_number(tmp_path: Path, line: str, told: str):
    dataset = local(tmp_path, [*pairs(2), "\n", line])
    assert refused(dataset).startswith(f"{dataset.path}: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [('[{"prompt": ', "not JSON"), ('{"prompt": "p"}', "expected a list of rows"), ("[1]", "expected a list of rows")],
)
def test_a_json_file_that_is_no_list_of_rows_is_told(tmp_path: Path, text: str, told: str):
    path = tmp_path / "pairs.json"
    path.write_text(text)
    message = refused(LocalSource(path=str(path)))
    assert message.startswith(f"{path}: {told}")
    assert message.endswith("use .jsonl for one row a line")


def test_a_column_that_is_missing_is_told_with_the_nearest(tmp_path: Path):
    rows = [{"prompt": "p", "choosen": "a", "rejected": "b"}]
    dataset = local(tmp_path, rows)
    told = f"{dataset.path}: column 'chosen' is missing; did you mean choosen?; dataset.columns can name it"
    assert refused(dataset) == told
    named = LocalSource(path=dataset.path, columns={"chosen": "choosn"})
    told = f"{dataset.path}: column 'choosn', named in dataset.columns.chosen, is not there; did you mean choosen?"
    assert refused(named) == told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"chosen": " "}, "chosen: empty; remove the row"),
        ({"rejected": ""}, "rejected: empty; remove the row"),
        ({"prompt": ""}, "prompt: empty; remove the row"),
        ({"prompt": []}, "prompt: empty; remove the row"),
        ({"prompt": " \n"}, "prompt: empty; remove the row"),
        ({"prompt": [{"role": "user", "content": "\t"}]}, "prompt: empty; remove the row"),
        ({"chosen": [{"role": "assistant", "content": " "}]}, "chosen: empty; remove the row"),
        ({"rejected": "\ud800"}, "rejected: not Unicode text (surrogates not allowed); remove the row or mend it"),
        ({"margin": "much"}, "margin: expected a number, got str; mend the row or leave the column out"),
        ({"rejected": None}, "rejected: expected text, got nothing; remove the row or mend it"),
        ({"chosen": 3}, "chosen: expected text, got int; remove the row or mend it"),
        ({"prompt": 3}, "prompt: expected text or a list of messages with role and content, got int"),
        ({"prompt": [{"text": "a"}]}, "prompt: expected text or a list of messages with role and content, got list"),
        ({"chosen": CHAT}, "chosen: 2 messages where one response is expected; leave `prompt` out if it is inside"),
        ({"prompt": None}, "prompt: missing, and chosen and rejected do not share one that ends a turn; name its"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_with_its_field_and_the_remedy(tmp_path: Path, row: dict, told: str):
    rows = pairs(9)
    rows[6] |= row
    dataset = local(tmp_path, rows)
    assert refused(dataset).startswith(f"{dataset.path}: row 7: {told}")


def test_the_first_five_faults_are_told_and_the_rest_counted(tmp_path: Path):
    dataset = local(tmp_path, [*pairs(3), *pairs(7, chosen="")])
    lines = refused(dataset).splitlines()
    assert lines[:5] == [f"{dataset.path}: row {row}: chosen: empty; remove the row" for row in (4, 5, 6, 7, 8)]
    assert lines[5:] == [f"{dataset.path}: 7 rows of 10 cannot be used; the first are above"]


def test_a_file_without_rows_and_one_without_enough_are_told(tmp_path: Path):
    dataset = local(tmp_path, ["\n"])
    assert refused(dataset) == f"{dataset.path}: no rows; give one with a row at least"
    dataset = local(tmp_path, pairs(1))
    assert refused(dataset).startswith(f"{dataset.path}: no pair is left for the policy split (1 read, dropped: ")


def test_pairs_of_one_prompt_are_refused_with_the_reason(tmp_path: Path):
    rows = [{"prompt": "same", "chosen": f"a{n}", "rejected": "b"} for n in range(20)]
    dataset = local(tmp_path, rows)
    told = "(20 read, dropped: none): the split goes by prompt, and there is 1 prompt to split; give more"
    assert told in refused(dataset)


def test_prompts_of_two_forms_are_refused_with_a_row_of_each(tmp_path: Path):
    dataset = local(tmp_path, [*pairs(6), *pairs(6, prompt=CHAT)])
    told = "prompt: row 1 has text and row 7 messages; use one form for all rows"
    assert refused(dataset) == f"{dataset.path}: {told}"


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl", "pairs.json"])
def test_a_file_of_other_bytes_than_its_name_promises_is_told(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"PAR1 \xff\x00 no such thing PAR1")
    form = {"parquet": "not a whole parquet file (", "jsonl": "not UTF-8 (", "json": "not UTF-8 ("}
    assert refused(LocalSource(path=str(tmp_path / name))).startswith(f"{tmp_path / name}: {form[name[6:]]}")


def test_a_parquet_file_that_was_cut_off_is_told(tmp_path: Path):
    file = tmp_path / "pairs.parquet"
    pd.DataFrame(pairs(50)).to_parquet(file)
    file.write_bytes(file.read_bytes()[:-40])
    told = refused(LocalSource(path=str(file)))
    assert told.startswith(f"{file}: not a whole parquet file (")
    assert told.endswith("); write it again")
    assert "\n" not in told


@pytest.mark.parametrize("broken", ["data-00000-of-00001.arrow", "state.json"])
def test_a_saved_folder_with_a_broken_file_is_told(tmp_path: Path, broken: str):
    from datasets import Dataset as Table

    folder = tmp_path / "saved"
    Table.from_list(pairs(20)).save_to_disk(str(folder))
    (folder / broken).write_bytes((folder / broken).read_bytes()[:40])
    assert refused(LocalSource(path=str(folder))).startswith(f"{folder}: not a folder that datasets.save_to_disk wrote")


def test_a_missing_text_in_parquet_is_nothing_rather_than_a_number(tmp_path: Path):
    file = tmp_path / "pairs.parquet"
    pd.DataFrame([*pairs(9), *pairs(1, chosen=None)]).to_parquet(file)
    assert refused(LocalSource(path=str(file))).startswith(f"{file}: row 10: chosen: expected text, got nothing")


def test_columns_that_are_not_ours_are_told(tmp_path: Path):
    told = refused(local(tmp_path, pairs(9), columns={"choosen": "chosen"}))
    assert told == "dataset.columns.choosen: no column of ours; did you mean chosen?"
    dataset = local(tmp_path, pairs(9, part="train"), split_column="prat")
    told = f"dataset.split_column: {dataset.path} has no column 'prat'; did you mean part?"
    assert refused(dataset) == told


@pytest.mark.parametrize("content", [None, "config.json", "tokenizer.json"])
def test_a_tokenizer_that_is_none_is_told_before_any_compute(tmp_path: Path, content: str | None):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    if content:
        (folder / content).write_text("junk")
    told = refused(local(tmp_path, pairs(20), tokenizer=str(folder)))
    assert told.startswith(f"dataset.tokenizer: {folder} cannot be loaded (")
    assert "\n" not in told


def test_a_prompt_that_the_chat_template_refuses_is_told(tmp_path: Path):
    tokenizer = world.tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system, please') }}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    dataset = local(tmp_path, pairs(20), tokenizer=str(tmp_path / "tokenizer"))
    told = f"{dataset.path}: row 1: prompt: the chat template of {tmp_path / 'tokenizer'} refuses it (no system, please"
    assert refused(dataset).startswith(told)


# -- dropping ---------------------------------------------------------------------------------------------------------


def test_equal_responses_and_duplicates_are_dropped_and_counted(tmp_path: Path):
    rows = [*pairs(10), *pairs(2), {"prompt": "same", "chosen": "a", "rejected": "a"}]
    frame, summary = prepare(local(tmp_path, rows), 0)
    assert summary["dropped"] == {"equal responses": 1, "duplicates": 2, "prompt in test": 0}
    assert len(frame) == sum(summary["kept"].values()) == 10
    assert "same" not in set(frame["prompt"])


def test_equal_conversations_are_equal_responses(tmp_path: Path):
    def chat(i: int, answer: str) -> list[dict]:
        return [{"role": "user", "content": f"hi {i}"}, {"role": "assistant", "content": answer}]

    rows = [{"chosen": chat(i, "yes"), "rejected": chat(i, "no")} for i in range(9)]
    same = chat(9, "yes")
    frame, summary = prepare(local(tmp_path, [*rows, {"chosen": same, "rejected": same}]), 0)
    assert summary["dropped"] == {"equal responses": 1, "prompt in test": 0}
    assert len(frame) == 9


def test_what_was_dropped_is_told_in_words_where_too_little_is_left(tmp_path: Path):
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "a"} for n in range(60)]
    dataset = local(tmp_path, rows)
    told = "no pair is left for the reward split (60 read, dropped: 60 for equal responses)"
    assert refused(dataset) == f"{dataset.path}: {told}; give more data or larger limits"


def test_equal_responses_are_refused_when_asked_for(tmp_path: Path):
    rows = [*pairs(10), {"prompt": "same", "chosen": "a", "rejected": "a"}]
    dataset = local(tmp_path, rows, equal="refuse")
    told = 'row 11: chosen and rejected are equal; remove it or set dataset.equal = "drop"'
    assert refused(dataset) == f"{dataset.path}: {told}"


def test_pairs_of_too_many_tokens_are_dropped_and_counted(tmp_path: Path):
    world.tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = pairs(10)
    rows[0] |= {"prompt": "one two three four five"}
    rows[1] |= {"rejected": "one two three four"}
    limits = {"max_prompt_tokens": 4, "max_response_tokens": 3}
    frame, summary = prepare(local(tmp_path, rows, tokenizer=str(tmp_path / "tokenizer"), **limits), 0)
    assert summary["dropped"] == {"prompt too long": 1, "response too long": 1, "prompt in test": 0}
    assert set(frame["id"]) == {str(number) for number in range(3, 11)}
    assert refused(local(tmp_path, rows, **limits)).startswith("dataset.tokenizer: missing")


def test_a_limit_is_of_each_split(tmp_path: Path):
    _, summary = prepare(local(tmp_path, pairs(40), limit=5), 0)
    assert summary["kept"] == {"reward": 5, "policy": 5, "test": 5}


def sorted_by_topic(folder: Path, **more) -> LocalSource:
    topics = [{**row, "prompt": f"{'early' if i < 200 else 'late'} {i:03}"} for i, row in enumerate(pairs(400))]
    return local(folder, topics, **more)


def test_the_first_rows_of_each_split_are_a_seeded_draw_of_sorted_data(tmp_path: Path):
    for dataset in (sorted_by_topic(tmp_path), sorted_by_topic(tmp_path, limit=30)):
        one, again, other = (prepare(dataset, seed)[0] for seed in (1, 1, 2))
        assert one.equals(again)
        for split in ("reward", "policy", "test"):
            first = one[one["split"] == split]["prompt"][:30]
            early = first.str.startswith("early").sum()
            assert 5 <= early <= 25  # all or none of them where rows stay in the file's order
            assert list(first) != sorted(first)
            assert list(first) != list(other[other["split"] == split]["prompt"][:30])


def test_a_draw_does_not_depend_on_the_order_of_the_file(tmp_path: Path):
    rows = pairs(40)
    one, _ = prepare(local(tmp_path, rows, limit=5), 1)
    other, _ = prepare(local(tmp_path, rows[::-1], limit=5), 1)
    assert one["prompt"].tolist() == other["prompt"].tolist()


def test_lengths_are_told(tmp_path: Path):
    rows = [{"prompt": f"p{i}", "chosen": "a b " if i else "a " * 12, "rejected": "abcde"} for i in range(10)]
    _, summary = prepare(local(tmp_path, rows), 0)
    assert summary["characters"] == {
        "prompt": {"min": 2, "median": 2.0, "mean": 2.0, "max": 2},
        "chosen": {"min": 4, "median": 4.0, "mean": 6.0, "max": 24},
        "rejected": {"min": 5, "median": 5.0, "mean": 5.0, "max": 5},
        "chosen longer": 0.1,
    }
    assert "tokens" not in summary


def test_lengths_are_told_in_tokens_too_when_a_tokenizer_is_named(tmp_path: Path):
    world.tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = [
        {"prompt": [{"role": "user", "content": f"p{i}"}], "chosen": "a b" if i else "a " * 12, "rejected": "abc"}
        for i in range(10)
    ]
    frame, summary = prepare(local(tmp_path, rows, tokenizer=str(tmp_path / "tokenizer")), 0)
    assert summary["characters"]["prompt"]["max"] == 2  # of the messages' contents
    assert summary["tokens"]["chosen"] == {"min": 2, "median": 2.0, "mean": 3.0, "max": 12}
    assert summary["tokens"]["prompt"]["min"] > 1  # as the model reads it
    assert set(frame.columns) == {"id", "prompt", "chosen", "rejected", "split"}


# -- splitting --------------------------------------------------------------------------------------------------------


def test_no_prompt_is_in_two_splits(tmp_path: Path):
    rows = [{"prompt": f"p{i % 40}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(200)]
    for seed in range(5):
        frame, _ = prepare(local(tmp_path, rows), seed)
        parts = splits(frame)
        assert {name: len(prompts) for name, prompts in parts.items()} == {"reward": 22, "policy": 12, "test": 6}
        assert len(set.union(*parts.values())) == 40
        assert len(frame) == 200


def test_prompts_that_differ_in_case_or_outer_space_are_one(tmp_path: Path):
    rows = [
        {"prompt": form.format(i), "chosen": f"a{form}", "rejected": "b"}
        for i in range(40)
        for form in ("what {}", "What {}", " what {}\n")
    ]
    frame, _ = prepare(local(tmp_path, rows), 0)
    for split in ("reward", "policy", "test"):
        counts = frame[frame["split"] == split]["prompt"].str.strip().str.lower().value_counts()
        assert set(counts) == {3}


def test_splits_move_with_the_seed_alone(tmp_path: Path):
    rows = pairs(60)
    one, _ = prepare(local(tmp_path, rows), 1)
    again, _ = prepare(local(tmp_path, rows[::-1]), 1)
    other, _ = prepare(local(tmp_path, rows), 2)
    assert splits(one) == splits(again) != splits(other)


def test_shares_are_those_asked_for(tmp_path: Path):
    _, summary = prepare(local(tmp_path, pairs(100), policy_fraction=0.5, test_fraction=0.1), 0)
    assert summary["kept"] == {"reward": 40, "policy": 50, "test": 10}


def test_the_datas_own_test_split_is_taken(tmp_path: Path):
    rows = [{**row, "split": "test" if i < 5 else "train"} for i, row in enumerate(pairs(25))]
    frame, summary = prepare(local(tmp_path, rows), 0)
    assert summary["kept"] == {"reward": 14, "policy": 6, "test": 5}
    assert splits(frame)["test"] == {f'"p{i}"' for i in range(5)}
    ignored, summary = prepare(local(tmp_path, rows, split_column=None), 0)
    assert summary["kept"] == {"reward": 13, "policy": 8, "test": 4}
    assert splits(ignored)["test"] != splits(frame)["test"]


def test_a_training_row_that_asks_what_a_test_row_asks_is_refused_or_dropped(tmp_path: Path):
    rows = [{**row, "split": "test" if i < 5 else "train"} for i, row in enumerate(pairs(25))]
    rows.append({"prompt": "P2 ", "chosen": "a", "rejected": "b", "split": "train"})
    dataset = local(tmp_path, rows)
    told = 'row 26, for training, asks what row 3, held out, asks; remove them or set dataset.leakage = "drop"'
    assert refused(dataset) == f"{dataset.path}: prompt: {told}"
    frame, summary = prepare(LocalSource(path=dataset.path, leakage="drop"), 0)
    assert summary["dropped"] == {"prompt in test": 1}
    assert "26" not in set(frame["id"])
    assert len(frame) == 25


@pytest.mark.parametrize("held", ["test", "validation", "eval", "test_prefs", "Test", "dev", "held-out"])
@pytest.mark.parametrize("train", ["train", "train_prefs", None])
def test_what_data_call_their_held_out_rows_is_known(tmp_path: Path, held: str, train: str | None):
    rows = [{**row, "split": held if i < 5 else train} for i, row in enumerate(pairs(25))]
    frame, summary = prepare(local(tmp_path, rows), 0)
    assert summary["kept"] == {"reward": 14, "policy": 6, "test": 5}
    assert splits(frame)["test"] == {f'"p{i}"' for i in range(5)}


def test_a_split_of_another_name_is_refused_unless_the_study_says_what_it_is(tmp_path: Path):
    rows = [{**row, "split": "gold" if i < 5 else "train"} for i, row in enumerate(pairs(25))]
    dataset = local(tmp_path, rows)
    told = "row 1: split: 'gold' is neither for training nor held out; known: dev, eval, "
    first = refused(dataset).splitlines()[0]
    assert first.startswith(f"{dataset.path}: {told}")
    assert first.endswith('; name those held out in dataset.test_splits, or split afresh by split_column = ""')
    frame, _ = prepare(local(tmp_path, rows, test_splits=["gold"]), 0)
    assert splits(frame)["test"] == {f'"p{i}"' for i in range(5)}
    afresh, summary = prepare(local(tmp_path, rows, split_column=""), 0)
    assert summary["kept"] == {"reward": 13, "policy": 8, "test": 4}
    assert splits(afresh)["test"] != splits(frame)["test"]
    told = refused(local(tmp_path, rows, test_splits=["silver"]))
    assert told == f"dataset.test_splits: no row of {dataset.path} is in silver; name others"


def test_data_that_hold_out_every_row_are_told_how_to_be_split_afresh(tmp_path: Path):
    told = refused(local(tmp_path, pairs(25, split="test")))
    assert told.endswith('or split afresh by dataset.split_column = ""')


def test_the_parts_of_a_saved_dictionary_are_its_splits(tmp_path: Path):
    from datasets import Dataset as Table
    from datasets import DatasetDict

    rows = pairs(25)
    DatasetDict(train_prefs=Table.from_list(rows[5:]), test_prefs=Table.from_list(rows[:5])).save_to_disk(
        str(tmp_path / "saved")
    )
    frame, summary = prepare(LocalSource(path=str(tmp_path / "saved")), 0)
    assert summary["kept"] == {"reward": 14, "policy": 6, "test": 5}
    assert splits(frame)["test"] == {f'"p{i}"' for i in range(5)}


def test_a_hub_data_sets_own_test_part_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = pairs(25)
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", rows[5:], "train.jsonl")
    written(tmp_path / "set", rows[:5], "test.jsonl")
    frame, _ = prepare(HubSource(path=str(tmp_path / "set"), test_split="test"), 0)
    assert splits(frame)["test"] == {f'"p{i}"' for i in range(5)}


def test_a_pair_that_is_both_for_training_and_held_out_is_a_leak_and_no_duplicate(tmp_path: Path):
    rows = [{**row, "split": "test" if i < 5 else "train"} for i, row in enumerate(pairs(25))]
    dataset = local(tmp_path, [{**rows[0], "split": "train"}, *rows])
    assert "row 1, for training, asks what row 2, held out, asks" in refused(dataset)


# -- labels -----------------------------------------------------------------------------------------------------------


def frame_of(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{"prompt": f"p{i}", "chosen": a, "rejected": b} for i, (a, b) in enumerate(rows)])


def length(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def test_labels_are_swapped_where_the_truth_says_so_and_ties_dropped():
    frame, counts = relabelled(frame_of(("aaa", "b"), ("a", "bb"), ("aa", "bb"), ("", "bbbb")), length)
    assert counts == {"swapped": 2, "ties": 1}
    columns = ["prompt", "chosen", "rejected", "chosen_score", "rejected_score", "swapped"]
    assert frame[columns].values.tolist() == [
        ["p0", "aaa", "b", 3.0, 1.0, False],
        ["p1", "bb", "a", 2.0, 1.0, True],
        ["p3", "bbbb", "", 4.0, 0.0, True],
    ]
    assert frame.index.tolist() == [0, 1, 2]


def test_ties_may_be_kept_as_they_are():
    frame, counts = relabelled(frame_of(("aaa", "b"), ("aa", "bb")), length, ties="keep")
    assert counts == {"swapped": 0, "ties": 1}
    assert frame[["chosen", "rejected", "swapped"]].values.tolist() == [["aaa", "b", False], ["aa", "bb", False]]


def test_labelling_leaves_the_given_table_alone():
    frame = frame_of(("a", "bb"))
    relabelled(frame, length)
    assert frame.to_dict("records") == [{"prompt": "p0", "chosen": "a", "rejected": "bb"}]


def test_the_better_of_two_samples_is_chosen():
    prompts = ["p", "q", CHAT, "t", "e"]
    responses = [["a", "b"], ["c", "d"], ["f", "g"], ["h", "i"], ["j", "j"]]
    frame, counts = pairs_from_samples(prompts, responses, np.array([[2, 1], [-1, 0.5], [1, 3], [1, 1], [0, 1]]))
    assert counts == {"ties": 1, "equal": 1, "pairs": 3}
    columns = ["id", "prompt", "chosen", "rejected", "chosen_score", "rejected_score", "split"]
    assert frame[columns].values.tolist() == [
        ["on-policy-0", "p", "a", "b", 2.0, 1.0, "reward"],
        ["on-policy-1", "q", "d", "c", 0.5, -1.0, "reward"],
        ["on-policy-2", CHAT, "g", "f", 3.0, 1.0, "reward"],
    ]


def test_samples_that_cannot_be_told_make_no_pair_and_are_counted():
    nan, texts = float("nan"), [["a", "b"]] * 3
    pairs, counts = pairs_from_samples(["x", "y", "z"], texts, [[nan, 0.0], [1.0, nan], [0.0, 1.0]])
    assert pairs["prompt"].to_list() == ["z"]
    assert counts == {"ties": 0, "equal": 0, "untold": 2, "pairs": 1}


@pytest.mark.parametrize("ties", ["keep", "drop"])
def test_pairs_that_the_truth_cannot_tell_are_left_out_and_counted_where_there_are_any(ties):
    frame = pd.DataFrame({"prompt": list("pqr"), "chosen": ["?", "b", "c"], "rejected": ["x", "?", "dd"]})
    known = partial(map, lambda text: float("nan") if "?" in text else len(text))
    pairs, counts = relabelled(frame, lambda _, texts: [*known(texts)], ties)
    assert pairs[["prompt", "chosen"]].to_numpy().tolist() == [["r", "dd"]]
    assert counts == {"swapped": 1, "ties": 0, "untold": 2}
    assert "untold" not in relabelled(frame, lambda _, texts: [1.0] * len(texts), "keep")[1]


def test_samples_that_make_no_pair_are_told_with_the_remedy():
    with pytest.raises(StudyError, match=r"^collect: every two samples .*; raise temperature or prompts$"):
        pairs_from_samples(["p", "q"], [["a", "a"], ["b", "c"]], [[0.0, 1.0], [2.0, 2.0]])


# -- mixing -----------------------------------------------------------------------------------------------------------


def of(name: str, count: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{name}{i}" for i in range(count)]})


def test_a_mixture_is_of_the_papers_rows():
    # numpy.random.RandomState(0).permutation(6) is 5 2 1 3 0 4: the first three on-policy, the rest off-policy
    assert mix(of("on", 6), of("off", 9), 0.5, 0)["id"].tolist() == ["on5", "on2", "on1", "off3", "off0", "off4"]


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [(0.0, None, (0, 9)), (1.0, None, (6, 0)), (0.25, None, (1, 5)), (0.5, 4, (2, 2)), (0.5, 100, (3, 3))],
)
def test_a_mixture_has_the_share_asked_for(share: float, count: int | None, expected: tuple[int, int]):
    ids = mix(of("on", 6), of("off", 9), share, 3, count)["id"].tolist()
    assert (sum(i.startswith("on") for i in ids), sum(i.startswith("off") for i in ids)) == expected
    assert len(set(ids)) == len(ids)


def test_a_count_bounds_every_share_alike():
    sizes = {len(mix(of("on", 6), of("off", 9), share, 3, 5)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert sizes == {5}
    assert len(mix(None, of("off", 9), 0.0, 3, 5)) == 5
    assert mix(None, of("off", 9), 0.0, 3, 5).equals(mix(of("on", 6), of("off", 9), 0.0, 3, 5))
    with pytest.raises(ValueError, match="on-policy"):
        mix(None, of("off", 9), 0.5, 3)


def test_rows_come_back_from_parquet_as_they_were(tmp_path: Path):
    rows = [{"prompt": CHAT, "chosen": "a", "rejected": "b"}]
    pd.DataFrame(rows).to_parquet(tmp_path / "pairs.parquet")
    assert records(pd.read_parquet(tmp_path / "pairs.parquet")) == rows


def test_a_mixture_moves_with_the_seed_alone():
    one, again, other = (mix(of("on", 30), of("off", 30), 0.5, seed)["id"].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(StudyError, match=r"pairs\.jsonl: not UTF-8 .*; save it as UTF-8"):
        prepare(Dataset.parse({"source": "local", "path": str(file)}, "dataset"), 0)
