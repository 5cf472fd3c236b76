"""`rmpipe export` and `rmpipe import`: a finished study, or one reward model, in a store that had nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from rmpipe.lineage import Ledger, model_path


@pytest.fixture(scope="module")
def packed(tiny, tmp_path_factory) -> Path:
    """The whole report of the finished study, and its trained reward model alone."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMPIPE_HOME", str(tiny.home))
        assert main(["export", "report", str(folder / "whole"), "--whole", "--json"]) == 0
        assert main(["export", tiny.address("train", reward_model="off"), str(folder / "one"), "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def arrived(packed, places) -> Any:
    """A place that the whole report was brought to."""
    place = places()
    place.rmpipe("import", str(packed / "whole"))
    return place


@pytest.fixture
def new(places, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A place without a store; what `main` does, it does there."""
    place = places()
    monkeypatch.setenv("RMPIPE_HOME", str(place.home))
    return place


def run_of(home: Path, address: str) -> Any:
    record = json.loads((home / "store" / address / "record.json").read_text())
    return Ledger(home).client.get_run(record["run_id"])


def test_a_report_carried_whole_is_a_finished_study_on_arrival(tiny, arrived):
    assert arrived.contents() == tiny.contents()
    plan = json.loads(arrived.rmpipe("plan", "tiny.toml", "--json").output.read_text())
    assert (plan["to_run"], len(plan["stages"])) == (0, 41)
    assert {step["status"] for step in plan["stages"]} == {"hit"}
    assert arrived.leftovers() == []


def test_what_arrives_is_a_run_of_this_mlflow_with_its_numbers_and_models(tiny, arrived):
    for address, record in arrived.records().items():
        run = run_of(arrived.home, address)
        assert run.info.status == "FINISHED"
        assert run.data.tags["rmpipe.address"] == address
        assert run.data.tags["rmpipe.imported"] == f"made {record['created']}"
        for name, value in record["metrics"].items():
            assert run.data.metrics[name] == pytest.approx(value, nan_ok=True) or value != value
    address = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    run, theirs = run_of(arrived.home, address), run_of(tiny.home, address)
    assert run.data.params == theirs.data.params
    models = {arrived.records()[each]["model_id"] for each in arrived.records()[address]["inputs"].values()
              if isinstance(each, str) and "model_id" in arrived.records()[each]}  # fmt: skip
    assert models
    assert {read.model_id for read in run.inputs.model_inputs} == models
    teacher = Ledger(arrived.home).client.get_logged_model(
        arrived.records()[tiny.address("train", reward_model="off")]["model_id"]
    )
    assert {metric.key for metric in teacher.metrics} >= {"weak.variance", "weak.rloo.truth_gain"}


def test_one_reward_model_arrives_registered_and_leads_back_to_what_it_came_from(tiny, packed, new, capsys):
    address = tiny.address("train", reward_model="off")
    assert main(["import", str(packed / "one"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["arrived"] == [address]
    assert sorted(told["told"]) == sorted(json.loads((packed / "one" / "parcel.json").read_text())["ancestry"])
    (version,) = Ledger(new.home).client.search_model_versions("")
    assert version.tags["rmpipe.address"] == address
    assert model_path(f"models:/{version.name}@seed-1", new.home) == new.home / "store" / address / "model"

    assert main(["why", address]) == 0
    base = tiny.address("finetune", policy="weak")
    assert f"from base: <Weights {base} " in (said := capsys.readouterr().out)
    assert "its record only>" in said
    assert main(["why", base]) == 0
    assert f"from base: <Weights {tiny.address('pretrain', base='world')} " in capsys.readouterr().out

    assert main(["import", str(packed / "one")]) == 0
    assert capsys.readouterr().out == f"there    {address}\n0 arrived, 1 were there\n"


def test_a_plan_takes_no_ancestor_for_a_hit(packed, new, capsys):
    assert main(["import", str(packed / "one")]) == 0
    capsys.readouterr()
    assert main(["plan", str(new.file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [step["stage"] for step in plan["stages"] if step["status"] == "hit"] == ["train"]


def test_an_altered_byte_is_refused_with_its_name_and_nothing_is_begun(tiny, packed, new, tmp_path, capsys):
    shutil.copytree(packed / "one", tmp_path / "one")
    file = tmp_path / "one" / "store" / tiny.address("train", reward_model="off") / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main(["import", str(tmp_path / "one")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"rmpipe import: {file.parents[1]}: altered: model/model.safetensors; have it exported")
    assert not new.home.exists()


def test_what_cannot_be_exported_is_bad_input(tiny, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    assert main(["export", "report", str(packed / "one")]) == 2
    assert "one: something is there; give a folder that is new or empty" in capsys.readouterr().err
    assert main(["export", "telescope/1", str(tmp_path / "parcel")]) == 2
    assert "telescope/1: no such address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_export_says_what_it_wrote_and_how_to_bring_it_in(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    both = [tiny.address("prepare"), tiny.address("train", reward_model="off")]
    assert main(["export", *both, str(tmp_path / "parcel")]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("2 artifacts and the records of 4 more, ")
    assert last == f"bring it in   rmpipe import {tmp_path / 'parcel'}"


def test_a_run_left_open_by_an_import_that_was_killed_is_closed_by_the_next(packed, new, monkeypatch, capsys):
    """It dies once the artifact is in place, and before MLflow has all of it."""
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", lambda self, entry: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["import", str(packed / "one")]) == 130
    ((address, record),) = new.records().items()
    assert run_of(new.home, address).info.status == "RUNNING"
    assert main(["import", str(packed / "one")]) == 0
    assert run_of(new.home, address).info.status == "FINISHED"
    assert Ledger(new.home).client.get_logged_model(record["model_id"]).status == "READY"
    assert list(new.home.glob("journal/executions/*")) == []
