"""The controlled Persona study: its draw is that of the paper's code, and its cells are all told apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmpipe.accuracy import ranking_accuracy
from rmpipe.config import StudyError
from rmpipe.dataset import Dataset
from rmpipe.persona import SEEN_NO, SEEN_YES, PersonaSource, Phrasings
from rmpipe.preference import prepare
from rmpipe.shift import Shift

SHARED = Path(__file__).parents[3] / "shared" / "data" / "persona" / "agreeableness.jsonl"
ORIGINALS = pd.DataFrame([{"id": f"a#{n}", "prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(3)])


def statements(folder: Path, count: int, *, ours: bool = False) -> str:
    """A file of statements; the answer to every third is no."""
    path = folder / "statements.jsonl"
    names = ("prompt", "chosen") if ours else ("question", "answer_matching_behavior")
    answers = [" No" if n % 3 == 0 else " Yes" for n in range(1, count + 1)]
    rows = [dict(zip(names, (f"q{n}", answer), strict=True)) for n, answer in enumerate(answers, 1)]
    path.write_text("\n".join(json.dumps({"id": f"s{n}", **row} if ours else row) for n, row in enumerate(rows, 1)))
    return str(path)


def test_rows_and_phrases_are_those_that_the_published_code_draws(tmp_path: Path):
    source = PersonaSource(path=statements(tmp_path, 12), train=4, test=3, policy_fraction=0.01, ending="")
    rows, _ = source.rows(875)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [  # PersonaControlledDataModule, run
        ("q4", "In my view, the answer is yes", "Considering the statement, I say never"),
        ("q7", "A truthful reply is yes", "Considering the statement, I say no"),
        ("q1", "A truthful reply is sure", "Considering the statement, I say never"),
        ("q11", "A truthful reply is yes", "Considering the statement, I say no"),
        ("q2", "A truthful reply is yes", "My judgement: never"),
        ("q8", "A truthful reply is sure", "Considering the statement, I say no"),
        ("q10", "A truthful reply is sure", "My judgement: no"),
    ]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test"] * 3
    assert [row["id"] for row in rows] == [4, 7, 1, 11, 2, 8, 10]  # rows of the file, which has no ids


def test_both_forms_of_the_file_give_the_same_pairs(tmp_path: Path):
    told = {"train": 8, "test": 4}
    theirs, _ = PersonaSource(path=statements(tmp_path, 30), **told).rows(3)
    ours, _ = PersonaSource(path=statements(tmp_path, 30, ours=True), **told).rows(3)
    assert [{**row, "id": f"s{row['id']}"} for row in theirs] == ours


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.55])
def test_reward_models_are_trained_on_as_many_pairs_as_asked_whatever_policies_take(tmp_path: Path, fraction: float):
    source = PersonaSource(path=statements(tmp_path, 200), train=50, test=9, policy_fraction=fraction)
    pairs, _ = prepare(source, 1)
    counts = Counter(pairs["split"])
    assert (counts["reward"], counts["test"]) == (50, 9)
    assert counts["policy"] == round(fraction * (50 + counts["policy"])) >= 1


def test_phrases_are_the_study_s_to_say(tmp_path: Path):
    table = {
        "source": "persona", "path": statements(tmp_path, 60), "train": 10, "test": 5, "ending": " ",
        "yes": {"prefixes": ["Oh "], "tokens": ["aye", "yea"]}, "no": {"prefixes": [""], "tokens": ["nay"]},
    }  # fmt: skip
    pairs, _ = prepare(Dataset.parse(table, "dataset"), 1)
    assert set(pairs["chosen"]) == {"Oh aye", "Oh yea"}
    assert set(pairs["rejected"]) == {"nay"}
    assert pairs["prompt"].str.fullmatch(r"q\d+ ").all()


def test_too_few_statements_are_refused_with_what_is_needed(tmp_path: Path):
    path = statements(tmp_path, 120)
    told = r"has 80 rows .* and 154 are needed \(80 to train on, 40 held out, 34 for policies\); give more, or lower"
    with pytest.raises(StudyError, match=told):
        PersonaSource(path=path).rows(1)


def test_a_row_without_question_or_answer_is_named(tmp_path: Path):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"question": "q", "answer_matching_behavior": " Yes"}\n{"statement": "s"}\n{"question": "q"}')
    told = "odd.jsonl: row 2: question: expected text, got nothing.*\n.*row 3: answer_matching_behavior: expected text"
    with pytest.raises(StudyError, match=told):
        PersonaSource(path=str(path)).rows(1)


def test_every_unseen_yes_meets_every_unseen_no_for_each_prompt():
    rows = Shift.parse({"kind": "phrasings"}, "shifts.phrased").pairs(ORIGINALS, 0, None)
    cells = {row["group"]: (row["chosen"], row["rejected"]) for row in rows}
    assert cells == {
        "certainly / not really": ("My response would be certainly", "I lean toward not really"),
        "certainly / nope": ("My response would be certainly", "I lean toward nope"),
        "absolutely / not really": ("My response would be absolutely", "I lean toward not really"),
        "absolutely / nope": ("My response would be absolutely", "I lean toward nope"),
    }
    assert Counter((row["group"], row["prompt"]) for row in rows) == {
        (cell, prompt): 1 for cell in cells for prompt in ORIGINALS["prompt"]
    }


def test_ids_are_unique_and_lead_to_the_original():
    rows = Phrasings().pairs(ORIGINALS, 0, None)
    prompts = dict(zip(ORIGINALS["id"], ORIGINALS["prompt"], strict=True))
    assert len({row["id"] for row in rows}) == len(rows) == 12
    assert all(prompts[row["id"].rpartition("#")[0]] == row["prompt"] for row in rows)


def test_paraphrase_accuracy_is_the_mean_over_cells_ties_half():
    worth = {"certainly": 1, "absolutely": 2, "not really": 1, "nope": 0}
    rows = pd.DataFrame(Phrasings().pairs(ORIGINALS, 0, None))
    rewards = [rows[side].map(lambda text: next(worth[token] for token in worth if text.endswith(token))) for side in
               ("chosen", "rejected")]  # fmt: skip
    told = pd.Series(ranking_accuracy(*rewards, ties="half")).groupby(rows["group"]).mean()
    assert told["certainly / not really"] == 0.5
    assert told.mean() == 0.875 == np.mean(ranking_accuracy(*rewards, ties="half"))


def test_the_phrases_of_training_can_be_asked_about_by_whole_names():
    rows = Phrasings(yes=SEEN_YES, no=SEEN_NO, shift="in-distribution").pairs(ORIGINALS[:1], 0, None)
    assert len(rows) == len({row["group"] for row in rows}) == 16
    assert rows[0]["group"] == "In my view, the answer is yes / My judgement: no"


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/persona")
def test_the_paper_s_sizes_come_out_of_a_real_persona():
    pairs, _ = prepare(PersonaSource(path=str(SHARED)), 875)
    assert Counter(pairs["split"]) == {"reward": 80, "test": 40, "policy": 34}
    assert set(pairs["chosen"]) == set(SEEN_YES.phrases().values())
    assert set(pairs["rejected"]) == set(SEEN_NO.phrases().values())
    assert len(Phrasings().pairs(pairs[pairs["split"] == "test"], 875, None)) == 160


def test_a_right_and_a_wrong_token_each_as_the_study_says_by_the_answer(tmp_path: Path):
    table = {"source": "persona_tokens", "path": statements(tmp_path, 60), "policy_fraction": 0}
    pairs, _ = prepare(Dataset.parse(table, "dataset"), 1)
    yes, no = {"No", "Never", "Maybe", "Perhaps"}, {"Yes", "Yeah", "Sure", "Certainly", "Absolutely"}
    says_no = pairs["prompt"].str.extract(r"q(\d+)\n")[0].astype(int) % 3 == 0
    assert len(pairs) == 60
    assert set(pairs.loc[says_no, "chosen"]) == no == set(pairs.loc[~says_no, "rejected"])
    assert set(pairs.loc[says_no, "rejected"]) == yes == set(pairs.loc[~says_no, "chosen"])


def test_the_statements_of_one_answer_alone(tmp_path: Path):
    more = {"answer": "no", "yes": ["No"], "no": ["Yes"], "ending": " "}
    table = {"source": "persona_tokens", "path": statements(tmp_path, 12), **more}
    rows, _ = Dataset.parse(table, "dataset").rows(1)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [
        (f"q{n} ", "Yes", "No") for n in (3, 6, 9, 12)
    ]
