"""Pairs trained on alone: a seeded draw of the diagnosed ones, with what became of each beside its similarities."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from rmpipe.algorithm import Optimiser
from rmpipe.single import Single
from tasks.single import _row, single


def diagnosis_of(data) -> SimpleNamespace:
    table = data.split("reward").drop(columns="split")
    table = table.assign(prompt=[json.dumps(text) for text in table["prompt"]], ches=np.arange(len(table)) / 3)
    return SimpleNamespace(table=lambda: table)


def trained(out, log, base, data, seed=1, **asked):
    config = Single(steps=2, optimiser=Optimiser(learning_rate=1e-2), **asked)
    draft = single.function(config, base, diagnosis_of(data), seed, out=out, log=log)
    return draft, pd.read_parquet(out / "prompts.parquet"), json.loads((out / "runs.json").read_text())


def test_each_row_has_its_similarities_and_what_its_own_training_did(out, log, base, pairs):
    draft, table, runs = trained(out, log, base, pairs(12), pairs=5)
    assert list(table["id"]) == [run["id"] for run in runs]
    assert len(table) == 5
    assert (table["ches"] * 3).round().astype(int).tolist() == [int(key[1:]) for key in table["id"]]
    changes = [run["chosen"][-1] - run["chosen"][0] for run in runs]
    assert table["chosen_change"].to_numpy() == pytest.approx(changes)
    assert draft.metrics["displaced"] == np.mean([change < 0 for change in changes])


def test_the_seed_draws_the_pairs_and_all_are_taken_where_there_are_fewer(out, log, base, pairs):
    drawn = []
    for seed in (1, 2):
        log.scratch = out / f"scratch{seed}"
        log.scratch.mkdir()
        drawn.append(list(trained(out, log, base, pairs(12), seed, pairs=4)[1]["id"]))
    assert drawn[0] != drawn[1]
    log.scratch = out / "all"
    log.scratch.mkdir()
    draft, table, _ = trained(out, log, base, pairs(2), pairs=9)
    assert len(table) == 2
    assert all(np.isfinite(value) for value in draft.metrics.values())


def test_pairs_of_one_prompt_are_drawn_together(out, log, base, pairs):
    rows = pairs(12)
    data = SimpleNamespace(split=lambda name: rows.split(name).assign(prompt=["tell me"] * len(rows.split(name))))
    trained(out, log, base, data, pairs=5)
    number = json.loads((out / "measurement.json").read_text())["chosen"]
    assert number["low"] is number["high"] is None  # one prompt alone says nothing of others


def test_the_fall_on_the_way_is_told_though_it_rises_again_and_so_is_a_loss_that_rose():
    run = {"chosen": np.log([0.5, 0.1, 0.6]).tolist(), "rejected": [-1.0, -1.5, -3.0], "loss": [0.7, 0.8, 0.1]}
    run |= {"ranks": [], "unembedding": None}
    row = _row(run)
    assert row["decrease"] == pytest.approx(0.4)  # of pi(y+), from 0.5 to 0.1
    assert row["chosen_change"] == pytest.approx(np.log(1.2))
    assert row["rejected_change"] == -2
    assert (row["displaced"], row["steady"]) == (False, False)
    assert _row(run | {"loss": [0.7, 0.7, 0.1]})["steady"]
