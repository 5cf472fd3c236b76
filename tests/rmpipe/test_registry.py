"""A reward model's numbers: by which names they stand with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmpipe.journal import Entry, Execution
from rmpipe.registry import Registry


@pytest.mark.parametrize(
    ("stage", "labels", "found", "expected"),
    [
        ("measure", {"policy": "weak"}, {"variance": 1.0}, ["weak.variance"]),
        ("align", {"policy": "weak", "algorithm": "rloo"}, {"kl": 1.0}, ["weak.rloo.kl"]),
        ("align", {"policy": "weak", "reward": "off", "arm": "rft", "algorithm": "rloo"}, {"kl": 1.0},
         ["weak.rft.rloo.kl"]),
        ("gauge", {"policy": "weak", "reward": "off"}, {"flat": 0.5}, ["weak.flat"]),
        (
            "evaluate",
            {"policy": "weak"},
            {"paraphrase.accuracy": 0.5, "test.loss": float("nan")},
            ["paraphrase.accuracy"],
        ),
    ],
)  # fmt: skip
def test_numbers_are_named_after_what_they_depend_on(monkeypatch, tmp_path: Path, stage, labels, found, expected):
    logged: list[str] = []
    entities = SimpleNamespace(Metric=lambda name, *_, **__: name)
    client: Any = SimpleNamespace(log_batch=lambda run, metrics: logged.extend(metrics))
    monkeypatch.setattr(Registry, "_describe", lambda self, model: None)
    about = {"stage": stage, "address": f"{stage}/0", "title": stage, "kind": "Measurement", "study": "pocket"}
    execution = Execution(
        **about, params={}, runtime={}, labels=labels, inputs=[], parent_run=None, surroundings={}, subject="m"
    )
    Registry(client, entities, tmp_path).add_numbers(Entry(execution, "run", "experiment", metrics=found))
    assert logged == expected
