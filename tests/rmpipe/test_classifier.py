"""Scorers loaded whole: adapters merged into their bases, and models that code of their own reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmpipe import classifier  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.folder import check_adapter, check_base  # noqa: E402
from rmpipe.reward import Kind  # noqa: E402
from rmpipe.scoring import SequenceScorer  # noqa: E402

PROMPTS = ["tell me of the kettle", "the", "you can love it"]
RESPONSES = [" it is fine", " oh", " the red kettle is lovely"]


def alone(model, scorer: SequenceScorer) -> list[float]:
    """Each text in a batch of its own, through a model's own forward."""
    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0, 0].item() for ids in scorer.ids(PROMPTS, RESPONSES)]


# -- adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory, peft):
    """An adapter as a trainer leaves it, its weights away from zero: its folder, and the model before it is merged."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4)).eval()
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def adapter(trained, tmp_path) -> Path:
    """A copy that a test may alter."""
    return shutil.copytree(trained[0], tmp_path / "adapter")


def change(folder: Path, **told) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))


def behead(folder: Path) -> None:
    """As an adapter that was saved as a language model's is: without the head that was trained beside it."""
    from safetensors.torch import load_file, save_file

    kept = {key: value for key, value in load_file(folder / "adapter_model.safetensors").items() if "lora_" in key}
    save_file(kept, folder / "adapter_model.safetensors")
    change(folder, modules_to_save=None, task_type="CAUSAL_LM")


def test_an_adapter_scores_as_its_model_did_before_it_was_merged(trained):
    folder, model = trained
    scorer = SequenceScorer(folder)
    expected = alone(model, scorer)
    assert np.std(expected) > 0.1
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-4)
    assert not any("lora_" in name for name, _ in scorer.model.named_parameters())
    half = scorer.altered(dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half(PROMPTS, RESPONSES) == pytest.approx(expected, abs=0.1 * np.std(expected) + 0.1)


def test_an_adapter_from_the_hub_is_fetched_and_merged(trained, monkeypatch):
    folder, model = trained
    asked = []
    monkeypatch.setattr(
        "transformers.utils.peft_utils.find_adapter_config_file", lambda place, revision: f"{place}@{revision}"
    )
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda place, revision, ignore_patterns: asked.append((place, revision)) or folder,
    )
    scorer = SequenceScorer("some/adapter", revision="abc")
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(alone(model, scorer), abs=1e-4)
    assert set(asked) == {("some/adapter", "abc")}


def test_an_adapter_with_a_tokenizer_reads_by_it(adapter, base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<unk>"})
    tokenizer.save_pretrained(adapter)
    scorer = SequenceScorer(adapter)
    assert scorer.tokenizer.pad_token == "<unk>"
    assert scorer.model.config.pad_token_id == tokenizer.unk_token_id


def test_an_adapter_without_a_head_is_refused_unless_its_base_has_one(adapter, base, tmp_path):
    behead(adapter)
    told = r"no weights for a head in the adapter, nor in its base .*modules_to_save"
    with pytest.raises(StudyError, match=f"^path: {adapter}: {told}"):
        check_base(adapter)
    with pytest.raises(StudyError, match=told):
        SequenceScorer(adapter)
    model = classifier_of(base, tmp_path / "scorer", labels=1)
    check_base(adapter, str(tmp_path / "scorer"))
    scorer = SequenceScorer(adapter, base=str(tmp_path / "scorer"))
    assert torch.equal(scorer.model.score.weight, model.score.weight)


def test_a_head_that_the_base_only_seems_to_have_is_refused_when_it_is_loaded(adapter, base, tmp_path):
    behead(adapter)
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"architectures": None}
    (other / "config.json").write_text(json.dumps(config))
    change(adapter, base_model_name_or_path=str(other))
    check_base(adapter)
    with pytest.raises(StudyError, match="so that its rewards would be random"):
        SequenceScorer(adapter)


def classifier_of(base: Path, folder: Path, labels: int):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return model


def test_a_base_that_is_not_here_is_named_and_may_be_given(adapter, trained):
    change(adapter, base_model_name_or_path="/was/once/here")
    with pytest.raises(StudyError, match=r"^base_path: /was/once/here: no such folder"):
        check_base(adapter)
    base = json.loads((trained[0] / "adapter_config.json").read_text())["base_model_name_or_path"]
    scorer = SequenceScorer(adapter, base=base)
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(alone(trained[1], scorer), abs=1e-4)
    change(adapter, base_model_name_or_path=None)
    with pytest.raises(StudyError, match=r"^base_path: .* names no base; say where it is"):
        check_base(adapter)


def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    from rmpipe import world

    world.new_model(3, hidden=32, layers=2, heads=2).save_pretrained(tmp_path / "deeper")
    world.tokenizer().save_pretrained(tmp_path / "deeper")
    with pytest.raises(StudyError, match=r"does not fit its base .*/deeper .*give the one it was made on"):
        SequenceScorer(adapter, base=str(tmp_path / "deeper"))


def test_pickles_other_adapters_and_a_missing_library_are_refused_before_anything_is_loaded(adapter, monkeypatch):
    change(adapter, peft_type="IA3")
    with pytest.raises(StudyError, match="a IA3 adapter, and LORA alone is merged"):
        check_adapter(adapter)
    change(adapter, peft_type="LORA")
    check_adapter(adapter)
    monkeypatch.setattr("rmpipe.folder.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"peft is not installed; pip install 'rmpipe\[peft\]'"):
        check_adapter(adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(StudyError, match=r"adapter_model.safetensors missing, and adapter_model.bin is a pickle"):
        SequenceScorer(adapter)


# -- code of its own --------------------------------------------------------------------------------------------------

CODE = """
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

Path({marker!r}).touch()


@dataclass
class Told(ModelOutput):
    logits: torch.Tensor | None = None
    score: torch.Tensor | None = None


class Gated(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        logits = self.regression(self.model(input_ids, attention_mask=attention_mask).last_hidden_state[:, -1])
        return Told(logits=logits, score=(logits * logits.softmax(-1)).sum(-1) if {says_score} else None)
"""


@pytest.fixture
def own(base, tmp_path, monkeypatch) -> Callable[..., Path]:
    """A model of three outputs that code of its own reads, which leaves a mark where it is run: `own().marker`."""
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")

    def make(score: bool = True, place: str = "") -> Path:
        folder = shutil.copytree(base, tmp_path / f"own_{score}")
        code = CODE.replace("{marker!r}", repr(str(tmp_path / "run"))).replace("{says_score}", str(score))
        (folder / "modeling_own.py").write_text(code)
        reference = f"{place}modeling_own.Gated"
        own = {"architectures": ["Gated"], "auto_map": {"AutoModelForSequenceClassification": reference}}
        told = {"num_labels": 3, "id2label": None, **own}
        config = json.loads((folder / "config.json").read_text()) | told
        (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value}))
        weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if "lm_head" not in key}
        torch.manual_seed(2)
        head = {"regression.weight": torch.randn(3, 32), "regression.bias": torch.randn(3)}
        save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def test_a_model_s_own_code_is_not_run_unasked(own, tmp_path):
    folder = own()
    told = r"^trust_remote_code: .*read by code of its own \(modeling_own.Gated\), which is not run unasked; read it"
    for load in (classifier.load, lambda path: Kind.parse({"kind": "pretrained", "path": str(path)}, "").check()):
        with pytest.raises(StudyError, match=told):
            load(folder)
    kind = Kind.parse({"kind": "pretrained", "path": str(folder), "trust_remote_code": True}, "")
    kind.check()
    assert (kind.tokenizer(), kind.context()) == (None, None)
    assert not (tmp_path / "run").exists()


def test_a_model_that_says_its_score_is_asked_for_no_output(own, tmp_path):
    kind = Kind.parse({"kind": "pretrained", "path": str(own()), "trust_remote_code": True}, "")
    scorer = kind.scorer(None)
    assert (tmp_path / "run").exists()
    rewards = scorer(PROMPTS, RESPONSES)
    with torch.inference_mode():
        told = [scorer.model(torch.tensor([ids])) for ids in scorer.ids(PROMPTS, RESPONSES)]
    expected = [(each.logits * each.logits.softmax(-1)).sum().item() for each in told]
    assert rewards == pytest.approx(expected, abs=1e-5)
    with pytest.raises(StudyError, match="one output a text, and output = 2; leave output out"):
        SequenceScorer(scorer.source, trust_remote_code=True, output=2)(PROMPTS, RESPONSES)


def test_a_model_of_its_own_code_and_several_outputs_wants_to_be_told_which(own):
    folder = own(score=False)
    with pytest.raises(StudyError, match="3 outputs a text; say which is the reward, output = 0 to 2"):
        SequenceScorer(folder, trust_remote_code=True)(PROMPTS, RESPONSES)
    scorer = SequenceScorer(folder, trust_remote_code=True, output=1)
    with torch.inference_mode():
        expected = [scorer.model(torch.tensor([ids])).logits[0, 1].item() for ids in scorer.ids(PROMPTS, RESPONSES)]
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)


def test_code_of_another_place_is_not_what_was_trusted(own):
    with pytest.raises(
        StudyError, match=r"^trust_remote_code: .* runs code of another place \(some/where, modeling_own"
    ):
        classifier.load(own(place="some/where--"), trust_remote_code=True)


def test_a_revision_pins_code_weights_and_tokenizer(monkeypatch):
    asked = {}

    def seen(name):
        def call(place, **told):
            asked[name] = (place, told["revision"], told.get("trust_remote_code"))
            return ({}, {}) if name == "configuration" else {} if name == "tokenizer configuration" else 1 / 0

        return call

    monkeypatch.setattr("transformers.utils.peft_utils.find_adapter_config_file", lambda place, revision: None)
    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", seen("configuration"))
    monkeypatch.setattr(
        "transformers.models.auto.tokenization_auto.get_tokenizer_config", seen("tokenizer configuration")
    )
    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", seen("model"))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", seen("tokenizer"))
    for load in (classifier.load, classifier.load_tokenizer):
        with pytest.raises(StudyError, match="division by zero"):
            load("some/model", revision="abc", trust_remote_code=True)
    read = ("some/model", "abc", None)
    run = ("some/model", "abc", True)
    assert asked == {"configuration": read, "tokenizer configuration": read, "model": run, "tokenizer": run}
