"""The controlled experiment as a stage: its files, what it logs, and the numbers of the run beneath it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("torch")

from rmpipe import controlled
from rmpipe.artifact import Measurement
from rmpipe.controlled import Controlled
from tasks.control import control

CONFIG = Controlled(
    train=60, test=20, hidden=(), pretraining={"steps": 5, "learning_rate": 0.05},
    finetuning={"steps": 4, "learning_rate": 0.05}, looks=3,
)  # fmt: skip
SEED = 100


@pytest.fixture
def made(out: Path, log: Any) -> Measurement:
    return control.function(CONFIG, "", SEED, out=out, log=log)


def test_it_leaves_single_inputs_curves_and_numbers(made: Measurement, out: Path):
    found = controlled.run(CONFIG, SEED)
    assert list(made.table()) == ["input", "std", "norm", "gamma", "supervised_norm", "modified"]
    assert made.table().to_dict("records") == found.scatter
    assert json.loads((out / "curves.json").read_text()) == found.curves
    assert pd.read_parquet(out / "curve.parquet").to_dict("records") == found.curves
    numbers = made.numbers()
    assert numbers["supervised.gain_modified"] == {
        "value": found.numbers["supervised.gain_modified"], "low": None, "high": None,
    }  # fmt: skip
    assert made.metrics == {name: number["value"] for name, number in numbers.items() if number}


def test_it_says_what_became_of_modified_inputs(made: Measurement):
    gains = ", ".join(f"{method} {made.metrics[f'{method}.gain_modified']:+.2f}" for method in CONFIG.methods)
    assert made.summary.startswith(f"{gains} at modified inputs, std ")


def test_every_look_of_every_method_is_logged(made: Measurement, log: Any):
    assert log.told == [(done, 9) for done in range(1, 10)]
    logged = {(name, step): value for name, value, step, _ in log.curve}
    for row in json.loads((made.path / "curves.json").read_text()):
        assert logged[f"{row['method']}.std_modified", row["step"]] == row["std_modified"]
    assert not any(name.endswith((".method", ".step")) for name, _ in logged)


def test_a_number_that_is_not_known_is_none(out: Path, log: Any, monkeypatch: pytest.MonkeyPatch):
    found = controlled.run(CONFIG, SEED)
    found.numbers["supervised.recovered_modified"] = None
    monkeypatch.setattr(controlled, "run", lambda *arguments, **more: found)
    made = control.function(CONFIG, "", SEED, out=out, log=log)
    assert made.numbers()["supervised.recovered_modified"] is None
    assert "supervised.recovered_modified" not in made.metrics


def test_its_address_is_of_the_experiment_the_data_and_the_seed(tmp_path: Path):
    from rmpipe.store import Store
    from tasks.stage import planning

    with planning(Store(tmp_path)):
        here = control(CONFIG, "", SEED).address
        assert control(CONFIG, "", SEED).address == here
        others = [control(CONFIG, "other", SEED), control(CONFIG, "", SEED + 1), control(Controlled(), "", SEED)]
    assert len({here, *(other.address for other in others)}) == 4
