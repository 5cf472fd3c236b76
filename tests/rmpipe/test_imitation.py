"""Imitation: the inputs of the paper are labelled, all their references are learnt, and as many where only some may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe.algorithm import Finetuning, Optimiser
from rmpipe.imitation import Imitation, labelled, rows

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "partial_sft_subsample.json"


def imitation(**told: Any) -> Imitation:
    return Imitation(training=Finetuning(steps=1, optimiser=Optimiser(learning_rate=1e-3)), **told)


def inputs(count: int, references: int = 1) -> pd.DataFrame:
    texts = [[f" a{n}.{place}" for place in range(references)] for n in range(count)]
    return pd.DataFrame({"prompt": [f"p{n}" for n in range(count)], "references": texts})


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
def test_the_inputs_of_the_papers_code_are_labelled():
    told = json.loads(REFERENCE.read_text())
    count, seed = told["inputs"]["N"], told["inputs"]["seed"]
    for share in (0.01, 0.05):
        assert [f"s{place}" for place in labelled(count, share, seed)] == told["expected"][f"frac_{share}"]
    assert len(labelled(count, -1, seed)) == told["expected"]["frac_-1_count"]


def test_a_share_that_is_none_takes_all_in_their_own_order():
    for share in (0.0, -1.0, 1.5):
        assert labelled(5, share, 3).tolist() == [0, 1, 2, 3, 4]
    assert sorted(labelled(5, 1.0, 3).tolist()) == [0, 1, 2, 3, 4]


def test_fewer_labels_are_among_more_and_another_seed_takes_others():
    few, more = labelled(200, 0.05, 7), labelled(200, 0.2, 7)
    assert more[:10].tolist() == few.tolist()
    assert set(labelled(200, 0.05, 8).tolist()) != set(few.tolist())


def test_one_input_at_least_is_labelled():
    assert [imitation(share=share).count(30) for share in (0.001, 0.1, 0.99, 1.0)] == [1, 3, 29, 30]


def test_every_reference_of_an_input_that_is_labelled_is_learnt():
    table = inputs(10, references=3)
    found = rows(table, np.ones(10, bool), imitation(share=0.2), seed=4)
    chosen = labelled(10, 0.2, 4)
    assert found == [
        {"prompt": f"p{place}", "completion": f" a{place}.{which}"} for place in chosen for which in range(3)
    ]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.29])
def test_where_only_some_may_be_labelled_as_many_are_as_far_as_there_are(share: float):
    table, among = inputs(100), np.arange(100) % 4 == 0
    some = rows(table, among, imitation(share=share), seed=1)
    assert len(some) == min(25, len(rows(table, np.ones(100, bool), imitation(share=share), seed=1)))
    assert all(int(row["prompt"][1:]) % 4 == 0 for row in some)
    every = [f"p{place}" for place in labelled(100, 1.0, 1) if place % 4 == 0]
    assert [row["prompt"] for row in some] == every[: len(some)]  # in the order in which all would be


def test_nothing_is_learnt_where_none_may_be_labelled():
    assert rows(inputs(4), np.zeros(4, bool), imitation(), seed=1) == []


def test_messages_stay_messages():
    turns = np.array([{"role": "user", "content": "tell me"}])
    table = pd.DataFrame({"prompt": [turns], "references": [np.array([" oh"])]})
    (row,) = rows(table, np.ones(1, bool), imitation(), seed=1)
    assert row == {"prompt": [{"role": "user", "content": "tell me"}], "completion": " oh"}
    assert type(row["completion"]) is str
