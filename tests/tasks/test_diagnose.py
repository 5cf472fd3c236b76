"""The diagnosis: a row a pair, resumed where a kill left it, refused with the pair's id and the similarity's name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from rmpipe import policy, similarity
from rmpipe.algorithm import paired_ids
from rmpipe.config import StudyError
from rmpipe.diagnosis import SIMILARITIES, Diagnosing
from rmpipe.preference import records
from rmpipe.similarity import Similarity, States
from tasks import diagnose as module
from tasks.diagnose import diagnose


class Same(Similarity):
    """A similarity of somebody's own that says one thing of every pair."""

    kind: str = "same"
    says: float | None = 1.0

    def of(self, pairs: States) -> Any:
        return np.full(len(pairs.chosen_ids), self.says if self.says is not None else np.nan)


class Short(Same):
    """One that forgets a pair."""

    kind: str = "short"

    def of(self, pairs: States) -> Any:
        return np.zeros(len(pairs.chosen_ids) + 1)


class Failing(Similarity):
    """One that divides by what is nothing."""

    kind: str = "failing"

    def of(self, pairs: States) -> Any:
        return 1 / 0


class Wordy(Similarity):
    """One that gives words."""

    kind: str = "wordy"

    def of(self, pairs: States) -> Any:
        return ["a"] * len(pairs.chosen_ids)


def diagnosed(out, log, base, preferences, **asked: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    diagnose.function(Diagnosing(**asked), base, preferences, out=out, log=log)
    return pd.read_parquet(out / "pairs.parquet"), json.loads((out / "measurement.json").read_text())


def test_a_row_a_pair_has_its_texts_lengths_likelihoods_and_every_similarity(out, log, base, pairs):
    data = pairs(20, held_out=3)
    table, numbers = diagnosed(out, log, base, data)
    assert list(table["id"]) == list(data.split("reward")["id"])
    assert [json.loads(text) for text in table["prompt"]] == list(data.split("reward")["prompt"])
    assert set(SIMILARITIES) <= set(table)
    assert (table["length"] == table["rejected_tokens"] - table["chosen_tokens"]).all()
    model = policy.load(base.model)
    rows = [
        (row["prompt_ids"], row["chosen_ids"])
        for row in paired_ids(model.tokenizer, records(data.split("reward")), None)
    ]
    assert table["chosen_logprob"].to_numpy() == pytest.approx(policy.likelihoods(model, rows).numpy(), abs=1e-4)
    assert numbers["ches.q50"]["value"] == pytest.approx(table["ches"].median())
    assert -1 <= numbers["ches.length"]["low"] < numbers["ches.length"]["high"] <= 1


def test_how_many_at_a_time_changes_no_number(out, log, base, pairs, monkeypatch):
    table, _ = diagnosed(out, log, base, pairs(9))
    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(policy, "LOGITS", 1)  # one response a pass
    log.scratch = out / "elsewhere"
    log.scratch.mkdir()
    other, _ = diagnosed(out, log, base, pairs(9), batch_size=2)
    assert other["id"].equals(table["id"])
    names = list(SIMILARITIES)
    assert other[names].to_numpy() == pytest.approx(table[names].to_numpy(), rel=1e-4, abs=1e-4)


def test_a_killed_run_goes_on_from_the_pairs_it_had(out, log, base, pairs, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    states, asked = similarity.states, []

    def dying(model, ids, **told):
        asked.append(len(ids))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return states(model, ids, **told)

    monkeypatch.setattr(similarity, "states", dying)
    with pytest.raises(KeyboardInterrupt):
        diagnosed(out, log, base, pairs(10))
    table, _ = diagnosed(out, log, base, pairs(10))
    assert asked == [4, 4, 2, 2]  # the last four were asked of again, and no others
    monkeypatch.setattr(similarity, "states", states)
    log.scratch = out / "afresh"
    log.scratch.mkdir()
    assert table.equals(diagnosed(out, log, base, pairs(10))[0])
    assert log.told[-1] == (10, 10)


def test_a_limit_takes_the_first_of_the_seeded_order_and_ids_may_be_numbers(out, log, base, pairs):
    table, _ = diagnosed(out, log, base, pairs(9, key=int), limit=4)
    assert list(table["id"]) == [0, 1, 2, 3]


def test_three_pairs_and_constant_similarities_have_numbers_but_no_correlation(out, log, base, pairs):
    table, numbers = diagnosed(out, log, base, pairs(3), similarities={"mine": Same()})
    assert len(table) == 3
    assert numbers["mine.q50"]["value"] == 1.0
    assert numbers["mine.length"] is numbers["ches.length"] is None
    _, numbers = diagnosed(out, log, base, pairs(3), similarities={"mine": Same()})
    assert numbers["mine.length"] is None


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (Same(says=None), r"diagnosing\.similarities\.mine: of pair p\d+ it gives nan; give a finite number of each"),
        (Short(), r"diagnosing\.similarities\.mine: of 5 pairs it gives \(6,\); give a number of each"),
        (
            Failing(),
            rf"^diagnosing\.similarities\.mine: {__name__}:Failing: of fails: ZeroDivisionError: division by zero;",
        ),
        (Wordy(), rf"mine: {__name__}:Wordy: of fails: ValueError: could not convert string to float: 'a'"),
    ],
)
def test_a_similarity_of_ones_own_that_gives_no_number_of_each_pair_is_named(out, log, base, pairs, mine, said):
    with pytest.raises(StudyError, match=said):
        diagnosed(out, log, base, pairs(5), similarities={"mine": mine})


def test_a_pair_that_is_too_long_is_named_by_its_id_whichever_chunk_it_is_in(out, log, base, pairs, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    data = pairs(10)
    data.table().loc[6, "rejected"] = " the kettle" * 4000
    with pytest.raises(StudyError, match=r"^pair p6: .* leave out long texts"):
        diagnosed(out, log, base, data)


def test_messages_are_prompts_too(out, log, base, pairs):
    data = pairs(3)
    chat = [np.array([{"role": "user", "content": text}]) for text in data.split("reward")["prompt"]]
    table = data.split("reward").assign(prompt=chat)
    told = SimpleNamespace(split=lambda name: table)
    found, _ = diagnosed(out, log, base, told)
    assert json.loads(found["prompt"][0]) == [dict(turn) for turn in chat[0]]
