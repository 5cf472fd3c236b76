"""`rmpipe prompts`: which prompts teach nothing, by study or address, and the others written for whoever trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from tests.conftest import TINY

ROWS = [
    {"prompt": "equal", "responses": ["a", "b"], "rewards": [3, 3]},
    {"prompt": "wide", "responses": ["c", "d"], "rewards": [0, 9]},
    {"prompt": "narrow", "responses": ["e", "f"], "rewards": [4, 4.01]},
    {"prompt": "middling", "responses": ["g", "h"], "rewards": [4, 6]},
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> tuple[Path, str]:
    """A folder with a store, and the address of what was measured in it of four prompts."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "home").mkdir()
    (folder / "home" / "mlflow.db").write_bytes(empty.read_bytes())
    (folder / "rolls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMPIPE_HOME", str(folder / "home"))
        assert main(["adopt", str(folder / "rolls.jsonl"), "--name", "mine"]) == 0
    (found,) = (folder / "home" / "store" / "measure").glob("[0-9a-f]*")
    return folder, f"measure/{found.name}"


@pytest.fixture
def address(measured: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RMPIPE_HOME", str(measured[0] / "home"))
    return measured[1]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["prompts", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_those_that_teach_nothing_are_counted_and_the_flattest_shown(address: str, capsys: Any):
    found = told(capsys, address)
    assert (found["nothing"], found["prompts"]) == (2, 4)
    assert [row["prompt"] for row in found["flattest"]] == ["equal", "narrow", "middling", "wide"]
    assert main(["prompts", address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mine on rolls: 2 of 4 sampled prompts teach nothing")
    assert lines[2] == "std 0.000  mean 3.000  equal"
    assert [line.split() for line in lines[3:5]] == [["3.000", "a"], ["3.000", "b"]]


def test_the_threshold_or_the_share_can_be_said(address: str, capsys: Any):
    assert told(capsys, address, "--threshold", "1")["nothing"] == 3
    assert told(capsys, address, "--low", "0.1")["nothing"] == 1
    assert main(["prompts", address, "--low", "2"]) == 2
    assert "--low: Input should be less than 1, got 2.0" in capsys.readouterr().err


def test_the_others_are_written_for_whoever_trains_on_them(address: str, tmp_path: Path, capsys: Any):
    found = told(capsys, address, "--out", str(tmp_path / "out"))
    rows = [json.loads(line) for line in Path(found["out"]).read_text().splitlines()]
    assert rows == [{"prompt": "wide"}, {"prompt": "middling"}]
    left = [json.loads(line) for line in Path(found["left_out"]).read_text().splitlines()]
    assert [(row["prompt"], row["mean"], row["why"]) for row in left] == [
        ("equal", 3.0, "all its rewards are equal"),
        ("narrow", 4.005, "its whitened reward's std is below 0.05"),
    ]
    assert main(["prompts", address, "--form", "verl", "--out", str(tmp_path / "v.jsonl")]) == 2
    assert "verl takes its prompts as .parquet" in capsys.readouterr().err


def test_what_is_no_measurement_of_rewards_is_refused(address: str, measured: Any, capsys: Any):
    (rollouts,) = (measured[0] / "home" / "store" / "adopt").glob("[0-9a-f]*")
    assert main(["prompts", f"adopt/{rollouts.name}"]) == 2
    assert "not a measurement of rewards over rollouts" in capsys.readouterr().err
    assert main(["prompts", address, "--policy", "weak"]) == 2
    assert f"--policy: {address} is of one cell already" in capsys.readouterr().err


def test_a_study_is_asked_for_one_of_its_cells(tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    study = str(tiny.file)
    found = told(capsys, study, "--policy", "weak", "--reward-model", "offset")
    assert found["measurement"] == tiny.address("measure", policy="weak", reward_model="offset")
    assert (found["prompts"], found["seed"]) == (8, "1")
    for words, said in [
        ([], "--policy: missing; one of weak, strong"),
        (["--policy", "weka"], "--policy weka: not in this study; did you mean weak?"),
        (["--policy", "weak", "--reward-model", "off", "--seed", "2"], "--seed 2: not in this study; known: 1"),
    ]:
        assert main(["prompts", study, *words]) == 2
        assert said in capsys.readouterr().err


def test_a_study_that_was_not_run_says_what_to_run_first(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "home"))
    study = tmp_path / "tiny.toml"
    study.write_text(TINY)
    assert main(["prompts", str(study), "--policy", "weak", "--reward-model", "off"]) == 1
    assert f"has not been made; first: rmpipe run {study} --only measure" in capsys.readouterr().err
    assert not (tmp_path / "home" / "store").exists()


def test_a_study_of_another_question_is_refused(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "home"))
    assert main(["prompts", "displace"]) == 2
    assert "its question, displace, measures no reward model under a policy" in capsys.readouterr().err
