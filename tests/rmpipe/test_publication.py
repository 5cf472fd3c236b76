"""A model's folder for the hub: it loads back and scores as the artifact does, and its card says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from rmpipe import publication, world
from rmpipe.artifact import Artifact, RewardModel, open_artifact
from rmpipe.config import StudyError
from rmpipe.publication import PublicationError, upload, write
from rmpipe.reward import Kind
from rmpipe.source import UnreachableError
from rmpipe.store import Store

ANSWERS = {"template": "{prompt}{response} <react>", "yes": " liked", "no": " disliked"}
TRAINING = {"steps": 4, "batch_size": 8, "optimiser": {"name": "adamw", "learning_rate": 1e-3}}
PROMPT, RESPONSES = "tell me of the kettle", [" oh , the kettle is fine", " the kettle is red thanks"]
Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, base: Path) -> Make:
    """Makes artifacts of a small store by hand: `make("explicit")` is a reward model on a base, from labelled pairs."""
    home = tmp_path / "home"

    def put(stage: str, kind: str, config: dict[str, Any], inputs: dict[str, Any], **more: Any) -> str:
        identity = {"stage": stage, "version": 1, "config": config, "inputs": inputs}
        address = Store.address(identity)
        folder = home / "store" / address
        folder.mkdir(parents=True, exist_ok=True)
        record = {**identity, "kind": kind, "title": f"{stage} it", "labels": {"seed": "1"}, "summary": "made"}
        record |= {
            "created": "2026-01-01T00:00:00+0000",
            "code": {"rmpipe.x": "0"},
            "packages": {"torch": "2"},
            "study": "s",
        }
        (folder / "record.json").write_text(json.dumps(record | {"content": "c" * 64, "commit": None} | more))
        return address

    def whole(kind: str = "explicit", content: str = "") -> Artifact:
        weights = put("fetch", "Weights", {"content": content}, {})
        (home / "store" / weights / "reference.json").write_text(json.dumps({"path": str(base), "content": content}))
        if kind == "policy":
            return open_artifact(weights, home)
        pairs = put("prepare", "Preferences", {"source": "hub", "content": "some/pairs@main"}, {})
        made = put("relabel", "Preferences", {}, {"preferences": pairs})
        told = {"kind": kind, "base": "weak", "training": TRAINING} | (ANSWERS if kind == "generative" else {})
        address = put("train", "RewardModel", told, {"base": weights, "off_policy": made, "on_policy": None})
        folder = home / "store" / address
        (folder / "reward_model.json").write_text(json.dumps(Kind.parse(told, "").dump()))
        _trained(kind, base, folder / "model")
        return open_artifact(address, home)

    whole.put = put
    whole.home = home
    return whole


def _trained(kind: str, base: Path, folder: Path) -> None:
    """Weights that differ from the base's: a head, or a language model of other weights."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model: Any = world.new_model(4, hidden=32, layers=1, heads=2)
    if kind == "explicit":
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        model.config.pad_token_id = 0
    model.save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)


def metadata(folder: Path) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", (folder / "README.md").read_text(), re.DOTALL)
    assert found
    return yaml.safe_load(found[1])


def rewards(folder: Path, hub: str) -> list[float]:
    """What the lines of the card give, run as they stand, with the folder in the place of the hub's name."""
    (code,) = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(), re.DOTALL)
    found = []
    for response in RESPONSES:
        told: dict[str, Any] = {"prompt": PROMPT, "response": response}
        exec(code.replace(hub, str(folder)), told)
        found.append(told["reward"])
    return found


# -- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["explicit", "implicit", "generative"])
@pytest.mark.usefixtures("one_thread")
def test_the_lines_of_the_card_give_the_rewards_of_the_artifact(make: Make, kind: str, tmp_path: Path):
    artifact = make(kind)
    folder = write(artifact, "me/mine", tmp_path / "out")
    asked = Kind.parse(artifact.json("reward_model.json"), "")
    expected = asked.scorer(artifact.path, base=artifact.base)([PROMPT] * 2, RESPONSES)
    assert np.ptp(expected) > 0
    assert rewards(folder, "me/mine") == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", ["explicit", "implicit", "generative"])
@pytest.mark.usefixtures("one_thread")
def test_so_do_those_of_a_model_with_a_chat_template(make: Make, kind: str, tmp_path: Path):
    artifact = make(kind)
    template = "{% for turn in messages %}{{ bos_token }} <reply> {{ turn['content'] }}{% endfor %}"
    tokenizer = world.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(artifact.model)
    folder = write(artifact, "me/mine", tmp_path / "out")
    asked = Kind.parse(artifact.json("reward_model.json"), "")
    expected = asked.scorer(artifact.path, base=artifact.base)([PROMPT] * 2, RESPONSES)
    assert rewards(folder, "me/mine") == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)


def test_a_policy_loads_back_with_its_weights(make: Make, tmp_path: Path, base: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write(make("policy"), "me/policy", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all((value == expected[name]).all() for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder)("tell me")["input_ids"]


def test_a_folder_in_use_is_left_alone(make: Make, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match="not empty"):
        write(make(), "me/mine", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_nothing_half_written_is_left_when_it_fails(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any) -> None:
        raise RuntimeError("no card")

    monkeypatch.setattr(publication.Leaflet, "card", fails)
    with pytest.raises(RuntimeError, match="no card"):
        write(make(), "me/mine", tmp_path / "out")
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


@pytest.mark.parametrize("name", ["mine", "me/", "/mine", "me/mine/more", "me/mi ne"])
def test_a_name_that_the_hub_would_not_take_is_refused(make: Make, name: str, tmp_path: Path):
    with pytest.raises(StudyError, match=r"--hub .*OWNER/NAME"):
        write(make(), name, tmp_path / "out")


def test_a_reward_model_of_no_weights_is_refused_with_the_reason(make: Make, tmp_path: Path):
    address = make.put("derive", "RewardModel", {"kind": "offset"}, {}, summary="offset: truth plus a constant")
    with pytest.raises(StudyError, match=rf"{address}: offset, made of no weights .*; give .*train/"):
        write(RewardModel(address, make.home), "me/mine", tmp_path / "out")


def test_what_is_no_model_and_what_is_on_the_hub_already_are_refused(make: Make, tmp_path: Path):
    address = make.put("sample", "Rollouts", {}, {})
    with pytest.raises(StudyError, match="a rollouts and no model"):
        write(open_artifact(address, make.home), "me/mine", tmp_path / "out")
    with pytest.raises(StudyError, match=r"on the hub as it is \(some/model@main\)"):
        write(make("policy", "some/model@main"), "me/mine", tmp_path / "out")


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_cards_front_matter_parses_and_says_from_what_it_is(make: Make, tmp_path: Path):
    folder = write(make("explicit", "some/model@v2"), "me/mine", tmp_path / "out")
    told = metadata(folder)
    assert told["base_model"] == "some/model"
    assert told["datasets"] == ["some/pairs"]
    assert told["library_name"] == "transformers"
    assert told["pipeline_tag"] == "text-classification"
    assert {"rmpipe", "trl", "reward-model", "explicit"} <= set(told["tags"])
    assert ModelCard.load(folder / "README.md").data.base_model == "some/model"


def test_the_card_has_what_was_found_about_it_with_intervals(make: Make, tmp_path: Path):
    artifact, put = make(), make.put
    scores = put("score", "Scores", {}, {"reward_model": artifact.address})
    labels = {"policy": "weak", "seed": "1"}
    measured = put("measure", "Measurement", {}, {"scores": scores}, labels=labels)
    numbers = {"variance": [0.9, 0.8, 1.0], "accuracy_on": [0.6, 0.5, 0.7], "accuracy_off": [0.8, 0.7, 0.9]}
    told = {name: dict(zip(("value", "low", "high"), each, strict=True)) for name, each in numbers.items()}
    (artifact.home / "store" / measured / "measurement.json").write_text(json.dumps(told))
    folder = write(artifact, "me/mine", tmp_path / "out")
    text = (folder / "README.md").read_text()
    assert "| weak | 0.90 [0.80, 1.00] | 0.60 [0.50, 0.70] | 0.80 [0.70, 0.90] |" in text
    assert "a tie earns one half" in text
    (result,) = metadata(folder)["model-index"]
    found = {each["dataset"]["split"]: each["metrics"][0]["value"] for each in result["results"]}
    assert found == {"test": 0.8, "responses of weak": 0.6}


def test_the_card_tells_the_lineage_and_nothing_of_where_this_machine_keeps_it(make: Make, tmp_path: Path, base: Path):
    artifact = make()
    folder = write(artifact, "me/mine", tmp_path / "out")
    text = (folder / "README.md").read_text()
    for address in (artifact.address, artifact.inputs["base"].address, artifact.inputs["off_policy"].address):
        assert f"`{address}`" in text
    assert "torch 2" in text
    for file in folder.rglob("*.*"):
        if file.suffix in (".md", ".json"):
            assert str(tmp_path) not in file.read_text()
            assert str(base.parent) not in file.read_text()


# -- the upload -------------------------------------------------------------------------------------------------------


class StandIn:
    """As HfApi is called; `fault` is what creating a repository raises."""

    calls: list[tuple[str, dict[str, Any]]]
    fault: Exception | None = None

    def __init__(self, **_: Any):
        pass

    def create_repo(self, repo_id: str, **told: Any) -> str:
        if StandIn.fault is not None:
            raise StandIn.fault
        StandIn.calls.append(("create", {"repo_id": repo_id, **told}))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **told: Any) -> None:
        StandIn.calls.append(("upload", told))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.calls, StandIn.fault = [], None
    monkeypatch.setattr("huggingface_hub.HfApi", StandIn)
    return StandIn


def test_nothing_is_uploaded_by_writing_alone(make: Make, hub: type[StandIn], tmp_path: Path):
    write(make(), "me/mine", tmp_path / "out")
    assert hub.calls == []


def test_an_upload_makes_the_repository_and_sends_the_folder(hub: type[StandIn], tmp_path: Path):
    assert upload(tmp_path, "me/mine", private=True) == "https://huggingface.co/me/mine"
    (create, made), (send, sent) = hub.calls
    assert (create, send) == ("create", "upload")
    assert made == {"repo_id": "me/mine", "repo_type": "model", "private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["folder_path"], sent["repo_type"]) == ("me/mine", tmp_path, "model")


def test_a_hub_that_does_not_answer_is_told_apart_from_one_that_refuses(hub: type[StandIn], tmp_path: Path):
    hub.fault = httpx.ConnectError("no route to host")
    with pytest.raises(UnreachableError, match=r"me/mine: the hub cannot be reached \(no route to host\)"):
        upload(tmp_path, "me/mine")
    hub.fault = PermissionError("403 Forbidden\nmore lines")
    with pytest.raises(PublicationError, match=r"did not take it \(403 Forbidden\); .*HF_TOKEN") as told:
        upload(tmp_path, "me/mine")
    assert "\n" not in str(told.value)
    assert str(tmp_path) in str(told.value)
