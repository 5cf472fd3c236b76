"""`rmpipe doctor` as a person and a program read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from rmpipe import health


def test_a_place_where_a_study_ran_has_no_fault(tiny: Any):
    told = json.loads(tiny.rmpipe("doctor", "--json").output.read_text())
    assert told["faults"] == 0
    found = {each["check"]: each for each in told["findings"]}
    assert f"{len(tiny.records())} artifacts" in found["store"]["found"]
    assert "is whole" in found["mlflow data"]["found"]
    assert "is whole" in found["prefect data"]["found"]
    assert {"devices", "prefect start", "hub", "at work", "packages"} <= set(found)
    assert told["notes"] == sum(each["level"] == "note" for each in told["findings"])


def test_a_fault_ends_in_1_with_the_remedy_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("DEVICES", "PREFECT", "HUB"):  # seconds each
        monkeypatch.setattr(health, name, "raise ValueError('not now')")
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("fault  mlflow "))
    assert "http://127.0.0.1:9 (MLFLOW_TRACKING_URI) does not answer" in line
    assert "$ unset MLFLOW_TRACKING_URI" in said
    assert said.splitlines()[-1].startswith("faults: 3, notes: ")
