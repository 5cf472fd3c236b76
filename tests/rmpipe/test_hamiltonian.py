"""Hamiltonian cycles as a data set: pairs that its ground truth agrees with, and graphs held out."""

from __future__ import annotations

import numpy as np
import pytest

from rmpipe import truth
from rmpipe.config import StudyError
from rmpipe.dataset import Dataset
from rmpipe.hamiltonian import HamiltonianSource
from rmpipe.preference import prepare


def test_a_study_finds_the_source_by_its_name():
    found = Dataset.parse({"source": "hamiltonian", "vertices": 6, "separators": [" ", " - "]}, "dataset")
    assert isinstance(found, HamiltonianSource)
    assert (found.vertices, found.separators, found.edge_probability) == (6, (" ", " - "), 0.2)


def test_the_ground_truth_of_the_same_name_tells_every_chosen_from_its_rejected():
    rows, name = HamiltonianSource(pairs=60).rows(2)
    assert (len(rows), name) == (60, "Hamiltonian cycles")
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        truth.find("hamiltonian")(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected")
    )
    assert chosen.dtype == np.float32
    assert (chosen == 1).all()
    assert (rejected == 0).all()


def test_the_ground_truth_reads_chat_messages_and_no_graph_at_all():
    row = HamiltonianSource(pairs=10).rows(2)[0][0]
    prompts = [[{"role": "user", "content": row["prompt"]}], "tell me of the kettle"]
    assert truth.hamiltonian(prompts, [row["chosen"]] * 2).tolist() == [1, 0]


def test_no_graph_is_in_two_splits():
    pairs, summary = prepare(HamiltonianSource(pairs=100, vertices=6), 4)
    assert summary["kept"] == {"reward": 55, "policy": 30, "test": 15}
    graphs = {
        split: {frozenset(prompt.split("Edges: ")[1].strip().split("<sep>")) for prompt in part["prompt"]}
        for split, part in pairs.groupby("split")
    }
    assert sum(map(len, graphs.values())) == len(set.union(*graphs.values())) == 100


def test_a_prompt_and_its_response_are_apart_by_default():
    row = HamiltonianSource(pairs=10).rows(0)[0][0]
    assert row["prompt"].endswith("\n")
    assert HamiltonianSource(pairs=10, ending="").rows(0)[0][0]["prompt"] == row["prompt"][:-1]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"vertices": 3}, r"dataset\.vertices: .*greater than or equal to 4"),
        ({"edge_probability": 1}, r"dataset\.edge_probability: .*less than 1"),
        ({"separators": ["", " - "]}, r"dataset\.separators\.0: "),
        ({"separators": [" ", "1"]}, r"dataset\.separators\.1: "),
        ({"ending": " 3"}, r"dataset\.ending: "),
    ],
)
def test_what_makes_no_readable_pair_is_refused(table: dict, told: str):
    with pytest.raises(StudyError, match=told):
        Dataset.parse({"source": "hamiltonian", **table}, "dataset")


def test_pairs_move_with_the_seed_alone():
    source = HamiltonianSource(pairs=20)
    assert source.rows(5) == source.rows(5)
    assert source.rows(5) != source.rows(6)
    assert source.content() == ""
