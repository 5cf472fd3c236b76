"""The best teacher's alias: on the very version that taught, in whichever registered model, and on no other."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rmpipe.artifact import Report
from rmpipe.crown import alias
from rmpipe.lineage import Ledger


@dataclass
class Hall:
    """A store of records alone, with a ledger, in which studies end."""

    home: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.home)

    def record(self, address: str, kind: str, **more: Any) -> Path:
        folder = self.home / "store" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps({"kind": kind, "inputs": {}, "summary": ""} | more))
        return folder

    def register(self, name: str, address: str, content: str = "bytes") -> int:
        """A version of a registered model, in the order of these calls; `seed-1` is the last."""
        client, tags = self.ledger.client, {"rmpipe.address": address, "rmpipe.content": content}
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = (self.home / "store" / address).as_uri()
        version = client.create_model_version(name, source, tags=tags, await_creation_for=0).version
        client.set_registered_model_alias(name, "seed-1", version)
        return version

    def end(self, study: str, *rows: tuple[str, str, str, str], content: str = "bytes") -> Any:
        """A study's invocation with rows (policy, reward model, its address, rank); its run."""
        told = []
        for index, (policy, model, teacher, rank) in enumerate(rows):
            aligned = f"align/{study}{index}"
            self.record(aligned, "Policy", inputs={"teacher": teacher}, read={teacher: content})
            row = {"policy": policy, "reward_model": model, "algorithm": "rloo", "rank": rank}
            told.append(row | {"addresses": {"align": [aligned], "measure": []}})
        answer = {"study": study, "question": "Which?", "algorithms": ["rloo"], "rows": told, "sentences": ["So."]}
        return self.answer(answer)

    def answer(self, answer: dict[str, Any]) -> Any:
        """An invocation that ends in this answer; its run."""
        study = answer["study"]
        (self.record("rank/0", "Ranking") / "answer.json").write_text(json.dumps(answer))
        (self.record("report/0", "Report", inputs={"ranking": "rank/0"}) / "report.html").write_text("")
        run = self.ledger.open_study(study, "Which?")
        self.ledger.close_study(run, [], "FINISHED", Report("report/0", self.home))
        return self.ledger.client.get_run(run)

    def crowned(self) -> dict[str, str]:
        """`name@alias` -> the address of the version, of every alias but those of seeds."""
        models = self.ledger.client.search_registered_models()
        found = {f"{model.name}@{word}": (model.name, word) for model in models for word in model.aliases}
        client = self.ledger.client
        return {
            uri: client.get_model_version_by_alias(*key).tags["rmpipe.address"]
            for uri, key in found.items()
            if not key[1].startswith("seed-")
        }


@pytest.fixture
def hall(begun: Path) -> Hall:
    return Hall(begun)


def test_the_version_that_taught_is_crowned_not_the_one_that_was_built_last(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a")
    hall.register("pocket-reward-model-off", "train/b")
    run = hall.end("pocket", ("weak", "off", "train/a", "1"), ("weak", "on", "train/c", "2"))
    assert hall.crowned() == {"pocket-reward-model-off@best-teacher-of-weak": "train/a"}
    told = run.data.tags["rmpipe.best-teacher.weak.off"]
    assert told == "models:/pocket-reward-model-off@best-teacher-of-weak"


def test_of_two_builds_of_one_address_that_is_crowned_whose_bytes_taught(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a", "old bytes")
    hall.register("pocket-reward-model-off", "train/a", "new bytes")
    hall.end("pocket", ("weak", "off", "train/a", "1"), content="old bytes")
    assert hall.ledger.client.get_registered_model("pocket-reward-model-off").aliases["best-teacher-of-weak"] == 1


def test_a_reward_model_that_another_study_made_is_crowned_under_this_ones_name(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a")
    hall.register("pocket-reward-model-on", "train/b")
    hall.end("pocket", ("weak", "off", "train/a", "1"), ("weak", "on", "train/b", "2"))
    hall.end("contrast", ("weak", "off", "train/a", "2"), ("weak", "on", "train/b", "1"))
    assert hall.crowned() == {
        "pocket-reward-model-off@best-teacher-of-weak": "train/a",
        "pocket-reward-model-on@contrast-best-teacher-of-weak": "train/b",
    }
    hall.end("contrast", ("weak", "off", "train/a", "1"), ("weak", "on", "train/b", "2"))
    assert hall.crowned() == {
        "pocket-reward-model-off@best-teacher-of-weak": "train/a",
        "pocket-reward-model-off@contrast-best-teacher-of-weak": "train/a",
    }


def test_a_reward_model_that_was_removed_from_the_study_loses_its_crown(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a")
    hall.register("pocket-reward-model-on", "train/b")
    hall.end("pocket", ("weak", "off", "train/a", "1"), ("weak", "on", "train/b", "1="))
    assert len(hall.crowned()) == 2
    hall.end("pocket", ("weak", "on", "train/b", "1"))
    assert hall.crowned() == {"pocket-reward-model-on@best-teacher-of-weak": "train/b"}


def test_names_that_no_alias_may_have_are_made_fit(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a")
    hall.end("pocket", ("pythia-2.8b", "off", "train/a", "1"))
    assert hall.crowned() == {"pocket-reward-model-off@best-teacher-of-pythia-2-8b": "train/a"}
    assert alias("a.b", "pocket-reward-model-off", "c/d e") == "a-b-best-teacher-of-c-d-e"


def test_what_cannot_be_crowned_is_said_on_the_studys_run(hall: Hall, caplog: pytest.LogCaptureFixture):
    hall.register("pocket-reward-model-off", "train/a")
    run = hall.end("pocket", ("weak", "off", "train/a", "1"), ("strong", "on", "train/b", "1"))
    assert run.info.status == "FINISHED"
    expected = (
        "the best teacher of strong, on, has no alias: no version with the bytes that train/b had then is registered"
    )
    assert run.data.tags["rmpipe.warning.best-teacher"] == expected
    assert expected in caplog.text
    assert set(hall.crowned()) == {"pocket-reward-model-off@best-teacher-of-weak"}


def test_two_versions_of_one_name_that_are_equally_good_are_said(hall: Hall):
    hall.register("pocket-reward-model-off", "train/a")
    hall.register("pocket-reward-model-off", "train/b")
    run = hall.end("contrast", ("weak", "x", "train/a", "1="), ("weak", "y", "train/b", "1="))
    assert hall.crowned() == {"pocket-reward-model-off@contrast-best-teacher-of-weak": "train/a"}
    assert "weak, y, has no alias: another version of its name is as good" in str(run.data.tags)


def test_a_study_that_teaches_nobody_crowns_nobody_and_its_page_has_the_answer_all_the_same(hall: Hall):
    hall.record("evaluate/0", "Measurement", inputs={"reward_model": "train/a"}, labels={"policy": "weak", "seed": "1"})
    hall.register("pocket-reward-model-off", "train/a")
    hall.end("pocket", ("weak", "off", "train/a", "1"))
    assert set(hall.crowned()) == {"pocket-reward-model-off@best-teacher-of-weak"}
    number = {"value": 0.75, "low": 0.5, "high": 1.0}
    row = {"policy": "weak", "reward_model": "off", "set": "para", "shift": "token", "kind": "explicit", "rank": "1",
           "accuracy": number, "carried": None, "addresses": {"evaluate": ["evaluate/0"]}}  # fmt: skip
    run = hall.answer({"flow": "generalise", "study": "pocket", "question": "Which?", "rows": [row], "sentences": []})
    assert hall.crowned() == {}
    assert not [tag for tag in run.data.tags if tag.startswith(("rmpipe.best-teacher", "rmpipe.warning"))]
    file = Path(hall.ledger.client.download_artifacts(run.info.run_id, "ranking.json"))
    told = json.loads(file.read_text())
    shown = dict(zip(told["columns"], told["data"][0], strict=True))
    assert list(shown)[:6] == ["rank", "reward_model", "policy", "set", "shift", "accuracy"]
    assert (shown["set"], shown["accuracy"], shown["accuracy.low"]) == ("para", 0.75, 0.5)


def test_arms_of_another_question_crown_nobody_however_they_taught(hall: Hall):
    row = {"policy": "weak", "reward": "rouge", "arm": "rft", "rank": "1", "addresses": {"align": ["align/0"]}}
    told = {"flow": "vanish", "study": "pocket", "question": "Where?", "rows": [row], "sentences": []}
    run = hall.answer(told)
    assert run.info.status == "FINISHED"
    assert hall.crowned() == {}
