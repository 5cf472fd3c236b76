"""Audits find faults that users of reward models have met, each planted here as a small model or kind of its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from rmpipe import audit as audits  # noqa: E402
from rmpipe.artifact import Audit, Preferences, RewardModel  # noqa: E402
from rmpipe.audit import Auditing  # noqa: E402
from rmpipe.reward import Kind  # noqa: E402
from rmpipe.scoring import SequenceScorer  # noqa: E402
from tasks.audit import audit  # noqa: E402
from tasks.derive import save_kind  # noqa: E402

WORDS = "abcdefghijklmnop"
CUSTOM = """
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
import torch

class Careless(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model, self.score = LlamaModel(config), torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **told):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(hidden[:, -1]))
"""


# -- models -----------------------------------------------------------------------------------------------------------


def save_tokenizer(folder: Path, words: str = WORDS, template: str | None = None) -> None:
    """One token a letter, in the order given; 0 <pad>, 1 <bos>, 2 <eos>, 3 <unk>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, model_max_length=64, **names)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def configuration(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=4 + len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.5, **more,
    )  # fmt: skip


def save(folder: Path, labels: int = 1) -> Path:
    """A reward model of random weights; of two outputs the second says the opposite of the first."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(1)
    model = LlamaForSequenceClassification(configuration(num_labels=labels, attention_dropout=0.5))
    if labels == 2:
        with torch.no_grad():
            model.score.weight[1] = -model.score.weight[0]
    folder.mkdir()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


def pretrained(**told: Any) -> Kind:
    """Somebody's model."""
    return Kind.parse({"kind": "pretrained", **told}, "")


def drawn(count: int) -> list[dict[str, Any]]:
    draw = random.Random(4)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 12)))

    return [{"id": str(n), "prompt": text(), "chosen": f" {text()}", "rejected": f" {text()}"} for n in range(count)]


def labelled(scorer: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of which a scorer prefers the chosen response, but in one of four."""
    prompts, chosen, rejected = ([row[field] for row in rows] for field in ("prompt", "chosen", "rejected"))
    right = scorer(prompts, chosen) > scorer(prompts, rejected)
    return [
        row if good == (place % 4 > 0) else {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        for place, (row, good) in enumerate(zip(rows, right, strict=True))
    ]


def audited(kind: Kind, rows: list[dict[str, Any]], home: Path, policy: Any = None) -> dict[str, Any]:
    """The rows of an audit by check, as the store would hold them; its own handle under ""."""
    model, pairs = RewardModel("derive/planted", home), Preferences("prepare/planted", home)
    for artifact in (model, pairs):
        artifact.path.mkdir(parents=True, exist_ok=True)
        (artifact.path / "record.json").write_text(json.dumps({"inputs": {}}))
    save_kind(kind, model.path)
    pd.DataFrame(rows).assign(split="test").to_parquet(pairs.path / pairs.main)
    made = Audit("audit/planted", home)
    made.path.mkdir(parents=True, exist_ok=True)
    audit.function(Auditing(), model, pairs, policy, out=made.path, log=None)
    return {"": made} | {row["check"]: SimpleNamespace(**row) for row in made.table().to_dict("records")}


# -- a sound one ------------------------------------------------------------------------------------------------------


def test_of_a_sound_reward_model_nothing_fails_and_the_files_say_so(folder, tmp_path):
    rows = labelled(SequenceScorer(folder), drawn(32))
    found = audited(pretrained(path=str(folder)), rows, tmp_path)
    still = ("again", "order", "repeated", "alone", "padding", "loading", "equal", "attention", "accuracy", "flipped")
    assert {check: found[check].verdict for check in still} == dict.fromkeys(still, "pass")
    assert found[""].failed == []
    assert found[""].objection() is None
    told = found[""].json("audit.json")
    assert told["checks"]["accuracy"] == {"verdict": "pass", "amount": 0.75, "unit": "accuracy"}
    assert (told["verdict"], told["pairs"]) == ("drift", 32)
    assert told["sentence"].startswith("drift: end_of_sequence (")


# -- faults that users met --------------------------------------------------------------------------------------------


def test_code_that_reads_padding_drifts_where_others_pad_and_is_read_here_without(tmp_path, monkeypatch):
    import sys

    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = save(tmp_path / "model")
    (folder / "careless.py").write_text(CUSTOM)
    told = json.loads((folder / "config.json").read_text())
    told |= {"auto_map": {"AutoModelForSequenceClassification": "careless.Careless"}, "num_labels": 1}
    (folder / "config.json").write_text(json.dumps(told))
    kind = pretrained(path=str(folder), trust_remote_code=True)
    found = audited(kind, labelled(kind.scorer(None), drawn(32)), tmp_path)
    assert found["padded"].verdict == "drift"
    assert found["padded"].amount > 0.5
    assert "read without padding" in found["padded"].remedy
    assert (found["alone"].verdict, found[""].failed) == ("pass", [])


def test_the_wrong_output_of_several_fails(tmp_path):
    folder = save(tmp_path / "model", labels=2)
    rows = labelled(SequenceScorer(folder, output=1), drawn(32))
    found = audited(pretrained(path=str(folder), output=0), rows, tmp_path)
    assert found[""].failed == ["accuracy"]
    assert "set output" in found["accuracy"].remedy
    assert found[""].objection().startswith("audit/planted fails its audit (accuracy): It prefers")
    assert audited(pretrained(path=str(folder), output=1), rows, tmp_path)[""].failed == []


def test_labels_that_are_turned_round_fail(folder, tmp_path):
    rows = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            for row in labelled(SequenceScorer(folder), drawn(32))]  # fmt: skip
    found = audited(pretrained(path=str(folder)), rows, tmp_path)
    assert found[""].failed == ["accuracy"]
    assert "dataset.columns" in found["accuracy"].remedy


class Tokens(Kind):
    """How many letters there are, as a trained reward model may have learnt."""

    kind: Literal["tokens"] = "tokens"

    def describe(self) -> str:
        return "tokens"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        return lambda prompts, responses: np.array([0.3 * len(text.split()) - 2 for text in responses], np.float32)


def test_a_reward_that_is_the_length_fails_unless_it_was_made_so(tmp_path):
    rows = labelled(Tokens().scorer(None), drawn(32))
    assert audited(Tokens(), rows, tmp_path)[""].failed == ["length"]
    control = audited(Kind.parse({"kind": "truth", "function": "length"}, ""), rows, tmp_path)
    assert (control["length"].verdict, control[""].failed) == ("drift", [])


class Endless(Kind):
    """A model that was trained on texts with an end, and is asked about texts without."""

    kind: Literal["endless"] = "endless"
    path: str

    def describe(self) -> str:
        return "endless"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        return SequenceScorer(self.path, end_of_sequence=False)


def test_an_end_of_sequence_in_training_alone_drifts_by_as_much_as_it_moves_scores(folder, tmp_path):
    rows = drawn(32)
    found = audited(Endless(path=str(folder)), rows, tmp_path)["end_of_sequence"]
    prompts, texts = (
        [row["prompt"] for row in rows],
        [row["chosen"] for row in rows] + [row["rejected"] for row in rows],
    )
    without, ended = (SequenceScorer(folder, end_of_sequence=end)(prompts * 2, texts) for end in (False, True))
    assert found.verdict == "drift"
    assert found.amount == pytest.approx(np.abs(ended - without).max() / without.std(ddof=1), rel=1e-3)
    turned = int((np.diff(without.reshape(2, -1), axis=0) * np.diff(ended.reshape(2, -1), axis=0) < 0).sum())
    assert f"{turned} of 32 pairs turn round" in found.found


def test_an_end_of_sequence_in_training_alone_fails_where_it_is_right_more_often_with_one(folder, tmp_path):
    rows = [row for place, row in enumerate(labelled(SequenceScorer(folder), drawn(43))) if place % 4]
    found = audited(Endless(path=str(folder)), rows, tmp_path)
    assert found[""].failed == ["end_of_sequence"]
    assert "set end_of_sequence = true of its SequenceScorer" in found["end_of_sequence"].remedy
    assert "its accuracy is 1.00, and not" in found["end_of_sequence"].found
    made = audits.audit(Auditing(), lambda: SequenceScorer(folder, end_of_sequence=False), rows, constructed=True)
    assert [each.verdict for each in made if each.check == "end_of_sequence"] == ["drift"]


def test_the_form_that_it_was_not_trained_on_fails_and_the_other_is_named(folder, tmp_path):
    save_tokenizer(folder, template="{% for m in messages %}{{ m['content'] }} p o n {% endfor %}")
    rows = labelled(SequenceScorer(folder, form="conversation"), drawn(32))
    wrong = audited(pretrained(path=str(folder), form="continuation"), rows, tmp_path)
    assert wrong[""].failed == ["form"]
    assert 'set form = "conversation", by which' in wrong["form"].remedy
    assert audited(pretrained(path=str(folder)), rows, tmp_path)[""].failed == []


def test_the_policys_tokenizer_in_place_of_its_own_drifts_and_an_equal_one_is_not_told_of(folder, tmp_path):
    (tmp_path / "policy").mkdir()
    rows = drawn(32)
    kind, policy = pretrained(path=str(folder)), SimpleNamespace(model=tmp_path / "policy")
    save_tokenizer(policy.model, words=WORDS[::-1])
    assert audited(kind, rows, tmp_path, policy)["tokenizer"].amount > 1
    save_tokenizer(policy.model, words=WORDS + "qrstuv")  # has tokens that the model has no embedding of, unused here
    assert "tokenizer" not in audited(kind, rows, tmp_path, policy)
    save_tokenizer(policy.model, words="qrstuvw" + WORDS)
    assert "tokenizer" not in audited(kind, rows, tmp_path, policy)


class Made(Kind):
    """A model whose head is made anew at each loading, or whose dropout is left on."""

    kind: Literal["made"] = "made"
    path: str
    dropout: bool = False

    def describe(self) -> str:
        return "made"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        scorer = SequenceScorer(self.path)
        if self.dropout:
            scorer.model.train()
        else:
            torch.nn.init.normal_(scorer.model.score.weight)
        return scorer


def test_a_head_that_is_made_anew_at_each_loading_fails(folder, tmp_path):
    found = audited(Made(path=str(folder)), drawn(32), tmp_path)
    assert found["loading"].verdict == "fail"
    assert "save_pretrained" in found["loading"].remedy
    assert found["again"].verdict == "pass"


def test_dropout_that_is_left_on_fails(folder, tmp_path):
    found = audited(Made(path=str(folder), dropout=True), drawn(32), tmp_path)
    assert found["again"].verdict == "fail"
    assert "evaluation mode" in found["again"].remedy


def test_texts_that_are_cut_drift_by_their_share(folder, tmp_path):
    rows = drawn(32)
    texts = [row["prompt"] + row[side] for row in rows for side in ("chosen", "rejected")]
    long = np.mean([len(text.split()) + 2 > 12 for text in texts])
    found = audited(pretrained(path=str(folder), max_length=12, truncate=True), rows, tmp_path)["cut"]
    assert (found.verdict, found.amount) == ("drift", long)
    refused = audited(pretrained(path=str(folder), max_length=12), rows, tmp_path)
    assert refused[""].failed == ["finite"]
    assert "set truncate = true" in refused["finite"].remedy


def test_half_precision_that_turns_pairs_round_drifts_and_says_how_many(folder, tmp_path):
    scorer, prompt = SequenceScorer(folder), "a b"
    texts = sorted({row["chosen"] for row in drawn(300)}, key=lambda text: scorer([prompt], [text])[0])
    rows = [{"id": text, "prompt": prompt, "chosen": better, "rejected": text}
            for text, better in zip(texts[100:164:2], texts[101:165:2], strict=True)]  # fmt: skip
    found = audited(pretrained(path=str(folder)), rows, tmp_path)["dtype"]
    assert found.verdict == "drift"
    assert "of 32 pairs turn round" in found.found


def test_half_precision_that_moves_scores_little_and_turns_no_pair_round_passes(folder, tmp_path):
    scorer, prompt = SequenceScorer(folder), "a b"
    texts = sorted({row["chosen"] for row in drawn(64)}, key=lambda text: scorer([prompt], [text])[0])
    rows = [{"id": text, "prompt": prompt, "chosen": better, "rejected": text}
            for text, better in zip(texts[:16], texts[-16:], strict=True)]  # fmt: skip
    found = audited(pretrained(path=str(folder)), rows, tmp_path)["dtype"]
    assert 0.01 < found.amount < 0.1
    assert (found.verdict, found.remedy) == ("pass", "")


def save_deep(folder: Path) -> Path:
    """Eight layers and large rewards, which bfloat16 moves with the batch."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(6)
    config = configuration(num_labels=1)
    config.num_hidden_layers = 8
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        model.score.weight.mul_(20)
    folder.mkdir()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def test_a_sound_model_of_half_precision_does_not_fail(tmp_path):
    folder = save_deep(tmp_path / "model")
    scorer = SequenceScorer(folder, dtype="bfloat16")
    found = audited(pretrained(path=str(folder), dtype="bfloat16"), labelled(scorer, drawn(32)), tmp_path)
    assert found[""].failed == []
    assert (found["again"].amount, found["loading"].amount) == (0, 0)
    assert "padding" in found


class Crowded(Kind):
    """Half precision, and rewards that are higher where a text is asked about alone."""

    kind: Literal["crowded"] = "crowded"
    path: str
    move: float

    def describe(self) -> str:
        return "crowded"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        move = self.move

        class Scorer(SequenceScorer):
            def __call__(self, prompts, responses):
                return super().__call__(prompts, responses) + move * (len(responses) == 1)

        return Scorer(self.path, dtype="bfloat16")


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_half_precision_does_not_excuse_what_moves_scores_further_than_it(folder, tmp_path, share):
    rows = drawn(32)
    texts = [row[side] for side in ("chosen", "rejected") for row in rows]
    scores = SequenceScorer(folder)([row["prompt"] for row in rows] * 2, texts)
    found = audited(Crowded(path=str(folder), move=share * float(scores.std(ddof=1))), rows, tmp_path)
    assert found["dtype"].amount < 0.2
    assert found["alone"].verdict == "fail"
    assert found["alone"].amount == pytest.approx(share, abs=0.1)


class Mumbling(Kind):
    """A judge whose answers about texts of some letters cannot be read, which it then gives the middle."""

    kind: Literal["mumbling"] = "mumbling"
    letters: str

    def describe(self) -> str:
        return "mumbling"

    def scorer(self, folder, components=(), *, base=None, batch_tokens=8192):
        letters = self.letters

        class Scorer:
            unparsed = 0

            def __call__(self, prompts, responses):
                lost = [any(letter in text for letter in letters) for text in responses]
                self.unparsed += sum(lost)
                return np.where(lost, 5.0, [sum(map(ord, text)) % 9 for text in responses])

        return Scorer()


@pytest.mark.parametrize(("letters", "verdict"), [(WORDS[:8], "fail"), ("a", "drift"), ("z", "pass")])
def test_a_judge_that_answers_what_cannot_be_read_fails_once_that_is_most_of_it(tmp_path, letters, verdict):
    found = audited(Mumbling(letters=letters), drawn(32), tmp_path)["parsed"]
    assert found.verdict == verdict
