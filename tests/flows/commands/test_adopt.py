"""`rmpipe adopt`: rewards from elsewhere are measured once, with their lineage, and lead on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rmpipe
from flows.cli import main
from rmpipe.lineage import Ledger


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Any:
    """A folder with a file of twelve prompts, and a store that it was adopted into; what was said of it."""
    folder = tmp_path_factory.mktemp("adopt")
    (folder / "home").mkdir()
    (folder / "home" / "mlflow.db").write_bytes(empty.read_bytes())
    draw = np.random.default_rng(0)
    with (folder / "rolls.jsonl").open("w") as file:
        for n in range(12):
            truth = draw.normal(size=4)
            noisy = truth + draw.normal(size=4)
            row = {"prompt": f"p{n}", "responses": [f"{'la ' * (k + 1)}{n}" for k in range(4)],
                   "rewards": {"noisy": noisy.tolist(), "flat": [0.5] * 4 if n < 3 else (truth + n).tolist()},
                   "truth": truth.tolist()}  # fmt: skip
            file.write(f"{json.dumps(row)}\n")
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("RMPIPE_HOME", str(place / "home"))
    return place


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["adopt", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_is_measured_once_and_the_second_time_nothing_is_made(here: Path, capsys: Any):
    first = told(capsys, "rolls.jsonl")
    assert first["said"] == "7 of 7 stages ran"
    assert (first["prompts"], first["responses"], first["lengths"]) == (12, 4, "characters")
    second = told(capsys, "rolls.jsonl")
    assert second == first | {"said": "nothing had to run"}
    numbers = {model["name"]: model["numbers"] for model in first["reward_models"]}
    assert numbers["flat"]["flat_share"]["value"] == pytest.approx(3 / 12)
    assert numbers["truth"]["accuracy_on"]["value"] == 1
    assert 0.5 < numbers["noisy"]["accuracy_on"]["low"] < 1
    assert numbers["noisy"]["covariance"]["value"] > 0
    assert [model["truth"] for model in first["reward_models"]] == [False, False, True]


def test_a_person_reads_a_table_and_where_to_go_on(here: Path, capsys: Any):
    measured = told(capsys, "rolls.jsonl")["reward_models"][0]["measurement"]
    assert main(["adopt", "rolls.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "reward model"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["noisy", "flat", "truth *"]
    assert f"prompts   rmpipe prompts {measured}" in lines
    text = " ".join(lines)
    assert "lengths in characters" in text
    assert "preferring the longer response" in text


def test_the_handles_of_the_store_and_mlflow_know_it_as_ours(here: Path, capsys: Any):
    first = told(capsys, "rolls.jsonl")
    (found,) = rmpipe.find("measure", reward_model="noisy", policy="rolls")
    assert found.address == first["reward_models"][0]["measurement"]
    assert found.inputs["rollouts"].address == found.inputs["scores"].inputs["rollouts"].address == first["rollouts"]
    assert found.inputs["scores"].rewards().shape == (12, 4)
    assert found.preview()["prompt"].iloc[0]
    client = Ledger(here / "home").client
    run = client.get_run(found.run)
    assert run.info.status == "FINISHED"
    assert run.data.tags["rmpipe.input.rollouts"] == first["rollouts"]
    assert run.data.metrics["variance"] == pytest.approx(found.numbers()["variance"]["value"])
    assert "texts.json" in {file.path for file in client.list_artifacts(found.run)}
    assert main(["compare", found.address, rmpipe.find("measure", reward_model="flat")[0].address]) == 0
    assert "accuracy_on" in capsys.readouterr().out


def test_without_a_ground_truth_it_is_said_what_nobody_can_tell(here: Path, capsys: Any):
    rows = [json.loads(line) for line in Path("rolls.jsonl").read_text().splitlines()]
    rows = [{**row, "rewards": row["rewards"]["noisy"], "truth": None} for row in rows]
    Path("plain.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told(capsys, "rolls.jsonl")
    found = told(capsys, "plain.jsonl", "--name", "noisy")
    assert found["said"] == "1 of 3 stages ran"  # the same rollouts and rewards, measured without a truth
    assert "accuracy_on" not in found["reward_models"][0]["numbers"]
    assert main(["adopt", "plain.jsonl", "--name", "noisy"]) == 0
    assert "Nothing stands for what people want (--truth)" in capsys.readouterr().out


def test_what_cannot_be_used_is_refused_before_anything_is_kept(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "home"))
    file = tmp_path / "rolls.jsonl"
    file.write_text('{"prompt": "p", "responses": ["a", "b"], "rewards": [1]}')
    assert main(["adopt", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"rmpipe adopt: {file}: row 1: rewards: expected a list of 2 numbers, one a response, got 1; mend the row\n"
    )
    assert not (tmp_path / "home").exists()
