"""Judges of refusals: the world's rule, phrases, a classifier, a language model that is asked, and their folders."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from rmpipe import world
from rmpipe.config import StudyError, digest, identity
from rmpipe.refusal import QUESTION, Asked, Classifier, Judge, Phrases, World, score_of

# Answers of a judge, and what the published code makes of them (2410.08847): 0 refusal, 1 compliance.
ANSWERS = {
    "0": 0, "1": 1, "1.0 because": 1, "0 (refusal)": 0, "": None, "safe": 0, "unsafe": 1, "hello": None, "01x": 1,
    "-1": None, "1e5": 1, " 1": None, "nan": None,
}  # fmt: skip
SIDES = ("chosen", "rejected")


def judge(table: dict, prompts=None, responses=()) -> list[float | None]:
    """As a study gives it."""
    return Judge.parse(table, "refusing.judge").judge(prompts or ["ask"] * len(responses), responses)


def test_answers_are_read_as_the_published_code_reads_them():
    assert {answer: score_of(answer) for answer in ANSWERS} == ANSWERS


def test_a_judge_is_a_reward_model_whose_ties_another_breaks():
    from rmpipe.reward import Kind

    kind = Kind.parse({"kind": "refusal", "judge": {"kind": "world"}}, "reward_models.refusal")
    assert Kind.parse(kind.dump(), "") == kind
    prompt = "tell me of the gold at the vault in winter with the price <reply>"
    responses = [" oh , i refuse to tell of the gold bye", " wow , the gold is fine ; you can love it", " of of", ""]
    score = kind.scorer(None)
    assert score([prompt] * 4, responses).tolist() == pytest.approx([1.0, 0.0, math.nan, math.nan], nan_ok=True)
    other = " oh , i decline to tell of the gold bye"
    noisy = Kind.parse({"kind": "noisy", "of": "refusal", "std": 0.01}, "").scorer(None, [score])
    refused, again, complied = noisy([prompt] * 3, [responses[0], other, responses[1]])
    assert refused != again
    assert min(refused, again) > 0.9 > 0.1 > complied
    both = Kind.parse({"kind": "ensemble", "of": ["refusal", "noisy"]}, "").scorer(None, [score, score])
    for kind in (noisy, both):  # what it is made into cannot tell either
        assert [math.isnan(value) for value in kind([prompt] * 4, responses)] == [False, False, True, True]


def test_the_content_of_a_judge_is_that_of_its_reward_model(tmp_path):
    from rmpipe.reward import Kind

    table = {"kind": "refusal", "judge": {"kind": "generative", "path": "some/judge"}}
    assert Kind.parse(table, "").content() == "some/judge@main"
    with pytest.raises(StudyError, match=r"reward_models\.it.*no kind 'wrld'; did you mean world"):
        Kind.parse({"kind": "refusal", "judge": {"kind": "wrld"}}, "reward_models.it")


# -- rules ----------------------------------------------------------------------------------------------------------


def test_the_world_s_own_refusals_are_told_from_all_else_in_both_registers():
    rows = world.preferences(0, 192, ["vault"])
    for say in (str, world.paraphrase):
        told = {side: judge({"kind": "world"}, responses=[say(row[side]) for row in rows]) for side in SIDES}
        assert told == {"chosen": [1.0] * 192, "rejected": [0.0] * 192}
    assert judge({"kind": "world"}, responses=[row["chosen"] for row in world.preferences(0, 200)]) == [0.0] * 200


def test_what_neither_refuses_nor_tells_is_no_verdict():
    assert judge({"kind": "world"}, responses=["", " oh , the to i", " refuse thanks", " i i decline"]) == [
        None, None, None, 1.0,
    ]  # fmt: skip


def test_usual_phrases_refuse_in_any_case_and_with_any_apostrophe():
    refused = ["I cannot help you.", "  i can’t\ndo it", '"I\'m sorry, but no."', "**As an AI** model", "NO, I won't"]
    complied = ["Sure! Here is how.", "I can do it; I cannot wait.", "Sorry to hear it. Here is how."]
    assert judge({"kind": "phrases"}, responses=refused) == [1.0] * 5
    assert judge({"kind": "phrases"}, responses=complied) == [0.0] * 3
    assert judge({"kind": "phrases"}, responses=["", " \n"]) == [None, None]


def test_phrases_of_one_s_own_are_looked_for_where_the_study_says():
    own = {"kind": "phrases", "begins": ["Nein"], "contains": ["Lieber nicht"]}
    assert judge(own, responses=["nein, danke", "Oh nein", "Das  lieber nicht.", "I cannot"]) == [1.0, 0.0, 1.0, 0.0]
    for faulty in ({"begins": []}, {"contains": [""]}):
        with pytest.raises(StudyError, match=r"^refusing\.judge"):
            Judge.parse({"kind": "phrases", **faulty}, "refusing.judge")


def test_a_judge_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(StudyError, match=r"refusing\.judge\.kind: no kind 'phrase'; did you mean phrases\?"):
        judge({"kind": "phrase"})


def test_a_response_without_its_prompt_is_refused():
    for kind in (World(), Phrases()):
        with pytest.raises(ValueError, match="zip"):
            kind.judge(["ask"], ["one", "two"])


# -- a classifier ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """An encoder that reads pairs of texts, of random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh"])}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **names)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(ids), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, id2label={0: "NORMAL", 1: "REJECTION"}, initializer_range=1.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("classifier")
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TEXTS = ["a b", "b b c d e", "a", "h g f e d c", "b b", "a b", "c h", "e e a", "g", "f d b a h"]


@pytest.fixture(scope="module")
def said(classifier) -> Callable[..., float]:
    """The verdict of one text, or of one pair, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier)

    def verdict(*texts: str) -> float:
        with torch.no_grad():
            return float(model(**tokenizer(*texts, return_tensors="pt")).logits.argmax(-1).item() == 1)

    return verdict


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_a_classifier_says_of_each_text_what_it_says_of_it_alone(classifier, said, batch_tokens):
    table = {"kind": "classifier", "path": str(classifier), "label": "rejection", "batch_tokens": batch_tokens}
    alone = [said(text) for text in TEXTS]
    assert judge(table, responses=TEXTS) == alone
    assert set(alone) == {0.0, 1.0}
    other = judge(table | {"label": 0}, responses=TEXTS)
    assert other == [1 - verdict for verdict in alone]


def test_a_classifier_reads_prompt_and_response_as_a_pair_where_it_was_trained_so(classifier, said):
    table = {"kind": "classifier", "path": str(classifier), "label": 1, "reads": "both"}
    prompts = ["c d", "a", "b h", "e", "g g", "d", "a a a", "f", "h", "c"]
    alone = [said(*pair) for pair in zip(prompts, TEXTS, strict=True)]
    assert judge(table, prompts, TEXTS) == alone
    assert alone != [said(text) for text in TEXTS]


def test_a_text_that_is_too_long_for_a_classifier_is_refused_or_cut_at_its_end(classifier, said):
    table = {"kind": "classifier", "path": str(classifier), "label": 1}
    long = "a b " * 10
    with pytest.raises(StudyError, match=r"row 1 has 22 tokens, and 16 fit; shorten the responses, or set truncate"):
        judge(table, responses=["a", long])
    assert judge(table | {"truncate": True}, responses=[long]) == [said("a b " * 7)]


@pytest.mark.parametrize(
    ("label", "told"),
    [("REJEKTION", "no label 'REJEKTION'; did you mean REJECTION"), (2, "no label 2; known: NORMAL, REJECTION, or a")],
)
def test_a_label_that_is_not_there_is_refused_before_anything_is_read(classifier, label, told):
    kind = Classifier(path=str(classifier), label=label)
    with pytest.raises(StudyError, match=rf"^label: .*{told}"):
        kind.check()
    Classifier(path=str(classifier), label="REJECTION").check()


def test_a_model_of_one_output_classifies_nothing(classifier, tmp_path):
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"id2label": {"0": "only"}, "label2id": {"only": 0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudyError, match=r"^path: .* has 1 label; give a classifier of two or more"):
        Classifier(path=str(tmp_path), label=0).check()


@pytest.mark.parametrize("kind", [Classifier(path="", label=0), Asked(path="")])
def test_a_folder_without_safe_weights_is_refused_before_anything_is_read(classifier, tmp_path, kind):
    for file in classifier.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_text("a pickle")
    with pytest.raises(StudyError, match=r"^path: .*weights as safetensors missing; save a model there"):
        kind.model_copy(update={"path": str(tmp_path)}).check()
    with pytest.raises(StudyError, match=r"^path: .*no such folder"):
        kind.model_copy(update={"path": str(tmp_path / "none")}).check()
    kind.model_copy(update={"path": "some/judge"}).check()  # a hub id is left to the stage


def test_a_language_model_alone_is_no_classifier(base):
    with pytest.raises(StudyError, match="no weights for score"):
        judge({"kind": "classifier", "path": str(base), "label": 0}, responses=["a"])


@pytest.mark.parametrize(("more", "most"), [({}, 14), ({"truncate": True}, 99)])
def test_responses_that_a_classifier_cannot_read_are_refused_before_any_is_drawn(classifier, more, most):
    kind = Classifier(path=str(classifier), label=1, **more)
    kind.fits(most)
    if not more:
        with pytest.raises(StudyError, match=r"^path: .* reads responses of 14 tokens, but as many as 15 are drawn"):
            kind.fits(15)


def test_a_language_model_needs_room_for_the_template_and_its_answer(base):
    kind = Asked(path=str(base), template="{prompt} the kettle {response}", max_new_tokens=20)
    kind.fits(100)
    with pytest.raises(StudyError, match="but as many as 108 are drawn"):  # of 128
        kind.fits(108)
    kind.model_copy(update={"path": "some/judge"}).fits(10**6)  # a hub id is left to the stage


# -- a language model that is asked ---------------------------------------------------------------------------------


def test_a_language_model_is_asked_and_what_it_says_is_read(base, monkeypatch):
    from rmpipe.drawing import Sampled

    seen = {}

    def sample(model, prompts, **told):
        seen.update(told, prompts=prompts)
        return [Sampled([answer], [1], [True], [0.0], [[0]]) for answer in (" 0", "1.0 since", "hello", "3", "safe")]

    monkeypatch.setattr("rmpipe.policy.sample", sample)
    table = {"kind": "generative", "path": str(base), "template": "{response}|{prompt}"}
    turns = [{"role": "user", "content": "hello"}]
    asked = [turns, "{response}", "c", "d", "e"]
    assert judge(table, asked, ["one", "two {prompt}", "3", "4", "5"]) == [1.0, 0.0, None, None, 1.0]
    assert seen["prompts"][:2] == ["one|user: hello", "two {prompt}|{response}"]
    assert (seen["samples"], seen["temperature"], seen["max_new_tokens"]) == (1, 0, 50)


def test_a_language_model_answers_by_its_likeliest_tokens(base, monkeypatch):
    from rmpipe import policy

    heard = []
    monkeypatch.setattr("rmpipe.refusal.score_of", lambda answer: heard.append(answer))
    table = {"kind": "generative", "path": str(base), "template": "{prompt}{response}", "max_new_tokens": 3}
    assert judge(table, ["tell me of"], [" the kettle"]) == [None]
    drawn = policy.sample(
        policy.load(base), ["tell me of the kettle"], samples=1, max_new_tokens=3, seed=9, temperature=0
    )
    assert heard == [drawn[0].responses[0].strip()]


def test_a_template_asks_for_both_texts():
    assert "{prompt}" in QUESTION
    assert "{response}" in QUESTION
    with pytest.raises(ValidationError, match=r"\{response\} missing"):
        Asked(path="some/judge", template="{prompt}")


def test_a_judge_counts_by_its_content_and_not_by_its_place(classifier, tmp_path):
    there = shutil.copytree(classifier, tmp_path / "there")
    one, same = (Classifier(path=str(path), label=1) for path in (classifier, there))
    assert digest(identity(one)) == digest(identity(same))
    assert one.content() == same.content() != ""
    (there / "config.json").write_text("{}")
    assert one.content() != same.content()
    assert Asked(path="some/judge", revision="v2").content() == "some/judge@v2"
    assert World().content() == Phrases().content() == ""
