"""Models looked at: told by configuration, tokenizer and headers, refused where they cannot be used, never loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rmpipe import prospect
from rmpipe.config import StudyError
from rmpipe.prospect import language_model, reward_model


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer."""
    monkeypatch.setattr(prospect, "hub_answers", lambda: False)


def altered(base: Path, folder: Path, **settings) -> str:
    """A copy of a model that says something else of itself."""
    shutil.copytree(base, folder)
    told = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(told))
    return str(folder)


def test_a_language_model_is_told_without_its_weights(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path)
    monkeypatch.setattr(torch, "empty", None)  # what holds weights cannot be made
    seen = language_model(str(tmp_path), "--policy")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert seen.parameters == sum(weight.numel() for weight in model.parameters())
    assert (seen.architecture, seen.dtype, seen.context, seen.template) == ("LlamaForCausalLM", "bfloat16", 128, False)
    assert "holds 128 tokens, no chat template" in seen.told()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "writes no text; give a causal language model"),
        (
            {"model_type": "theirs", "auto_map": {"AutoConfig": "configuration_theirs.Theirs"}},
            r"read by code of its own \(configuration_theirs.py\), which no policy may run",
        ),
    ],
)
def test_what_cannot_be_a_policy_is_refused_with_what_to_give_instead(base: Path, tmp_path: Path, settings, told):
    with pytest.raises(StudyError, match=f"^--policy: .*{told}"):
        language_model(altered(base, tmp_path / "model", **settings), "--policy")


def test_an_adapter_is_no_policy_and_a_language_model_no_reward_model(base: Path, tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base)})
    )
    with pytest.raises(StudyError, match=r"^--policy: .*: an adapter and no whole model; merge it"):
        language_model(str(tmp_path), "--policy")
    with pytest.raises(StudyError, match=r"^--reward-model: .* is a language model and scores nothing"):
        reward_model(str(base), "--reward-model")
    with pytest.raises(StudyError, match=r"^--policy: .*config.json: a file; give the folder"):
        language_model(str(base / "config.json"), "--policy")
    with pytest.raises(StudyError, match=r"^--policy: \./none: nothing there"):
        language_model("./none", "--policy")


def test_a_classifier_says_what_its_outputs_are_called(base: Path, tmp_path: Path):
    labels = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "rude", "1": "plain", "2": "kind"}}
    seen = reward_model(altered(base, tmp_path / "three", **labels), "--reward-model")
    assert seen.outputs == ["rude", "plain", "kind"]
    assert not seen.needs_code
    one = labels | {"id2label": {"0": "LABEL_0"}}
    assert reward_model(altered(base, tmp_path / "one", **one), "--reward-model").outputs == ["LABEL_0"]


@pytest.mark.parametrize(
    ("kind", "own", "place", "needed"),
    [
        ("llama", "AutoModelForSequenceClassification", "modeling_theirs.Theirs", True),
        ("theirs", "AutoConfig", "owner/code--modeling_theirs.Theirs", True),
        ("llama", "AutoModelForCausalLM", "modeling_theirs.Theirs", False),
    ],
)
def test_code_of_its_own_is_named_and_not_run(
    base: Path, tmp_path: Path, kind: str, own: str, place: str, needed: bool
):
    settings = {"architectures": ["Theirs"], "model_type": kind, "auto_map": {own: place}}
    folder = altered(base, tmp_path / "model", **settings)
    (tmp_path / "model" / "modeling_theirs.py").write_text("raise SystemExit('it was run')")
    seen = reward_model(folder, "--reward-model")
    assert seen.needs_code == needed
    assert seen.code == ["modeling_theirs.py"]


def test_a_hub_that_does_not_answer_leaves_a_model_unseen(away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    seen = language_model("somebody/model", "--policy")
    assert seen.told() == "not looked at: the hub does not answer"
    assert (seen.context, seen.parameters, seen.outputs) == (None, 0, [])
