"""`rmpipe doctor` as a person and a program read it."""

from __future__ import annotations

import json
import re
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


# -- a study ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(places: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask the doctor about the tiny study, which was never run: the exit code and what was said."""
    place = places()
    monkeypatch.setenv("RMPIPE_HOME", str(place.home))

    def run(*more: str) -> tuple[int, str]:
        capsys.readouterr()
        return cli.main(["doctor", str(place.file), "--jobs", "2", *more]), capsys.readouterr().out

    run.place = place  # type: ignore[attr-defined]
    return run


def test_a_study_is_estimated_by_stage_and_nothing_is_made(ask: Any):
    code, said = ask("--json")
    told = json.loads(said)
    assert (code, told["faults"]) == (0, 0)
    rows = {row["stage"]: row for row in told["estimate"]["kinds"]}
    assert (rows["align"]["stages"], rows["align"]["texts"]) == (6, 6 * 24)
    assert rows["train"]["backward"] == 4
    assert rows["rank"]["forward"] == 0
    assert all(row["seconds"] > 0 for row in rows.values())
    alone = sum(stage["seconds"] for stage in told["estimate"]["stages"].values())
    assert max(row["seconds"] for row in rows.values()) < told["estimate"]["seconds"] < alone + 20
    assert {"memory", "disk"} <= {each["check"] for each in told["findings"]}
    assert not (ask.place.home / "store").exists()


def test_a_study_that_would_only_answer_from_the_store_takes_no_time(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    assert cli.main(["doctor", str(tiny.file)]) == 0
    assert re.search(r"^nothing had to run: all \d+ stages are in the store$", capsys.readouterr().out, re.MULTILINE)


def test_for_a_person_it_is_a_table_with_a_total_that_says_how_it_was_got(ask: Any):
    code, said = ask("--set", "seeds=[1,2]")
    assert code == 0
    head = next(line for line in said.splitlines() if line.startswith("stage "))
    assert head.split() == ["stage", "stages", "texts", "tokens", "passes", "and", "back", "written", "seconds"]
    assert re.search(r"^(\d+) of \1 stages to run: about \d+ s on 2 jobs$", said, re.MULTILINE)
    assert "An estimate: " in said


def test_a_study_whose_data_are_not_what_they_should_be_is_a_fault_and_is_not_estimated(ask: Any, tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    code, said = ask("--set", f'dataset={{source="local",path="{tmp_path / "pairs.jsonl"}"}}')
    assert code == 1
    assert said.startswith("fault  study")
    assert "rejected" in said
    assert "nothing is estimated before" in said


def test_a_machine_with_too_little_memory_is_a_fault(ask: Any, monkeypatch: pytest.MonkeyPatch):
    from rmpipe.readiness import Room

    monkeypatch.setattr(Room, "of", classmethod(lambda cls, home: Room("memory", 1e6, 2e6, 7e8, 1e12)))
    code, said = ask()
    assert code == 1
    assert "fault  memory" in said
