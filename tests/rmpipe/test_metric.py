"""Text metrics and classifiers as rewards: the libraries' own numbers, against the references of the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from rmpipe.config import StudyError, identity
from rmpipe.metric import REFERENCES, Metric, read_references, write_references
from rmpipe.reward import Kind

NAMES = get_args(Metric.model_fields["name"].annotation)
SAT, DOWN, OTHER = "the cat sat", "the cat sat down", "she likes rainy mornings"
PROMPT = "What did the cat do?"


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., list[float]]:
    """Rewards of responses to one prompt with some references, as a study describes the metric."""

    def score(table: dict[str, Any], references: list[str], responses: list[str]) -> list[float]:
        write_references(pd.DataFrame({"prompt": [PROMPT], "references": [references]}), tmp_path)
        scorer = Kind.parse({"kind": "metric", **table}, "reward_models.it").scorer(tmp_path)
        rewards = scorer([PROMPT] * len(responses), responses)
        assert rewards.dtype == np.float32
        return list(rewards.tolist())

    return score


def of_the_library(name: str, response: str, references: list[str]) -> float:
    """What the libraries say when they are called as their documentation does."""
    import sacrebleu
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    if name.startswith("rouge"):
        return float(RougeScorer([name], use_stemmer=True).score_multi(references, response)[name].fmeasure)
    if name == "meteor":
        nothing = SimpleNamespace(synsets=lambda word: [])
        words = [wordpunct_tokenize(text) for text in references]
        return float(meteor_score(words, wordpunct_tokenize(response), wordnet=nothing))  # type: ignore[arg-type]
    value = getattr(sacrebleu, f"sentence_{name}")(response, references).score / 100
    return 1 - value if name == "ter" else value


# -- each metric ------------------------------------------------------------------------------------------------------


# `the cat sat` against `the cat sat down`: of the response all words match, of the reference 3 in 4.
BY_HAND = {
    "rouge1": 2 * 1 * (3 / 4) / (1 + 3 / 4),
    "rouge2": 2 * 1 * (2 / 3) / (1 + 2 / 3),
    "rougeL": 2 * 1 * (3 / 4) / (1 + 3 / 4),
    "bleu": math.exp(1 - 4 / 3),  # precision 1 up to trigrams, which are all there are; brevity
    "chrf": 5 * (recall := sum((9 - n) / (13 - n) for n in range(6)) / 6) / (4 + recall),  # characters, beta 2
    "ter": 1 - 1 / 4,
    "meteor": (3 / 4) / (0.9 + 0.1 * 3 / 4) * (1 - 0.5 * (1 / 3) ** 3),  # one chunk of three matches
}


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_is_the_metric_as_it_is_reckoned_by_hand(scored, name):
    assert scored({"name": name}, [DOWN], [SAT]) == pytest.approx([BY_HAND[name]], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("references", [["The cats were playing."], ["A dog barked twice!", "the cat plays; it's fun"]])
def test_a_reward_is_the_number_of_the_library(scored, name, references):
    responses = [" The cat played, and the cat slept.", "A dog", "twice twice twice!", " it's fun", "Playing cats?"]
    alone = [of_the_library(name, response, references) for response in responses]
    assert scored({"name": name}, references, responses) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_itself_is_best_and_what_is_near_it_is_better_than_what_is_far(scored, name):
    same, near, far, nothing, space = scored({"name": name}, [DOWN], [DOWN, SAT, OTHER, "", " \n"])
    assert same == pytest.approx(1 - 0.5 / 4**3 if name == "meteor" else 1, abs=1e-6)
    assert same > near > far
    assert nothing == space == 0


def test_only_an_error_rate_goes_below_0(scored):
    long = " ".join(["nothing of it"] * 5)
    rewards = {name: scored({"name": name}, [DOWN], [long])[0] for name in NAMES}
    assert rewards.pop("ter") == pytest.approx(1 - 15 / 4)
    assert all(0 <= reward <= 1 for reward in rewards.values())


@pytest.mark.parametrize("name", NAMES)
def test_of_several_references_the_library_takes_all_at_once_or_each_counts_alike(scored, name):
    references = [OTHER, DOWN]
    best, mean = (scored({"name": name, "over": over}, references, [SAT])[0] for over in ("max", "mean"))
    alone = [of_the_library(name, SAT, [reference]) for reference in references]
    assert mean == pytest.approx(sum(alone) / 2, abs=1e-6)
    assert best == pytest.approx(max(alone), abs=1e-6)  # nothing of the other is in this response
    assert best > mean


# -- references -------------------------------------------------------------------------------------------------------


def test_references_are_those_of_a_prompt_in_all_its_rows_each_once(tmp_path):
    turns = [{"role": "user", "content": "Go on."}]
    rows = [
        {"prompt": "a", "references": np.array(["one", "two", "one"], dtype=object), "split": "policy"},
        {"prompt": np.array(turns, dtype=object), "references": ["three"], "split": "test"},
        {"prompt": "a", "references": ["four"], "split": "test"},
    ]
    write_references(pd.DataFrame(rows), tmp_path / "new")
    assert list(read_references(tmp_path / "new").values()) == [["one", "two", "four"], ["three"]]
    rewards = Metric(name="rouge1").scorer(tmp_path / "new")(["a", turns, "a"], ["four", "three", "three"])
    assert rewards.tolist() == [1, 1, 0]


def test_of_pairs_the_chosen_responses_are_the_references(tmp_path):
    rows = [("a", "good", "bad", "reward"), ("a", "better", "good", "test"), ("b", "fine", "poor", "policy")]
    write_references(pd.DataFrame(rows, columns=["prompt", "chosen", "rejected", "split"]), tmp_path)
    assert list(read_references(tmp_path).values()) == [["good", "better"], ["fine"]]


def test_a_prompt_without_reference_is_refused_by_name(scored, tmp_path):
    scored({"name": "bleu"}, [DOWN], [SAT])
    scorer = Metric(name="bleu").scorer(tmp_path)
    with pytest.raises(StudyError, match=r"no reference for the prompt 'What of it\?', .*; add a row with it to the"):
        scorer([PROMPT, "What of\nit?"], [SAT, SAT])
    with pytest.raises(StudyError, match=r"prompt '(what ){15}wh\.\.\.', "):
        scorer(["what " * 50], [SAT])


def test_a_folder_without_references_is_refused(tmp_path):
    with pytest.raises(StudyError, match=rf"{REFERENCES}: missing; call write_references"):
        Metric(name="bleu").scorer(tmp_path)


def test_a_metric_can_be_changed_as_any_reward_model_can(scored, tmp_path):
    scored({"name": "ter"}, [DOWN], [SAT])
    squashed = Kind.parse({"kind": "squashed", "of": "it", "strength": 2.0}, "")
    scorer = squashed.scorer(None, [Metric(name="ter").scorer(tmp_path)])
    assert scorer([PROMPT], [SAT]).tolist() == pytest.approx([math.tanh(2 * 0.75)])


# -- what a study says ------------------------------------------------------------------------------------------------


def test_a_metric_is_read_from_a_study_and_tells_what_it_is():
    kind = Kind.parse({"kind": "metric", "name": "rougeL", "over": "mean"}, "reward_models.it")
    assert kind.describe() == "metric: ROUGE-L against references, the mean over them"
    assert Metric(name="ter").describe() == "metric: 1 - TER against references"
    assert (kind.constructed, kind.referenced, kind.content()) == (True, True, "")
    assert not Kind.parse({"kind": "truth", "function": "length"}, "").referenced
    assert Kind.parse(kind.dump(), "") == kind
    with pytest.raises(StudyError, match=r"^reward_models\.it\.name: .*'rouge1'"):
        Kind.parse({"kind": "metric", "name": "rouge"}, "reward_models.it")


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A WordNet of one file, where nltk looks for it; the words it knows are `kitten` and `cat`, which are one."""
    import nltk.corpus
    import nltk.data

    (tmp_path / "corpora" / "wordnet").mkdir(parents=True)
    (tmp_path / "corpora" / "wordnet" / "data.noun").write_text("cat kitten")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    lemmas = [SimpleNamespace(name=lambda word=word: word) for word in ("cat", "kitten")]
    one = SimpleNamespace(lemmas=lambda: lemmas)
    told = SimpleNamespace(synsets=lambda word: [one] if word in ("cat", "kitten") else [])
    monkeypatch.setattr(nltk.corpus, "wordnet", told)
    return tmp_path / "corpora" / "wordnet"


def test_synonyms_count_where_they_are_asked_for(scored, wordnet):
    without, synonyms = ({"name": "meteor", "synonyms": asked} for asked in (False, True))
    assert scored(synonyms, [DOWN], ["the kitten sat down"]) == scored(without, [DOWN], [DOWN])
    assert scored(without, [DOWN], ["the kitten sat down"]) < scored(without, [DOWN], [DOWN])
    before = Metric(name="meteor", synonyms=True).content()
    (wordnet / "data.noun").write_text("cat kitten tabby")
    assert Metric(name="meteor", synonyms=True).content() != before != ""


def test_synonyms_are_refused_where_there_is_no_wordnet_and_for_other_metrics(monkeypatch, tmp_path):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    for name, told in [
        ("meteor", "no WordNet on this machine; run `python -m nltk.dow"),
        ("bleu", "bleu knows no syn"),
    ]:
        with pytest.raises(StudyError, match=rf"^reward_models\.it\.synonyms: .*{told}"):
            Kind.parse({"kind": "metric", "name": name, "synonyms": True}, "reward_models.it")


# -- classifiers ------------------------------------------------------------------------------------------------------

BERT = {"single": "[CLS] $A [SEP]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA = BERT | {"bos_token": "[CLS]", "eos_token": "[SEP]"}
XLNET = BERT | {"single": "$A [SEP] [CLS]", "eos_token": "[END]"}
TEXTS = [("a b", " c d"), ("a", ""), ("b b", " h g f e"), ("", "a"), ("a b", " c d")]


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., str]:
    """The folder of a small DistilBERT of random weights with three labels, or fewer."""

    def save(marks: dict[str, str] = BERT, labels: int = 3) -> str:
        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

        ids = {word: at for at, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[END]", *"abcdefgh"])}
        words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        words.post_processor = processors.TemplateProcessing(
            single=marks["single"], special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        names = {name: mark for name, mark in marks.items() if name != "single"}
        PreTrainedTokenizerFast(
            tokenizer_object=words, model_max_length=12, pad_token="[PAD]", unk_token="[UNK]", **names
        ).save_pretrained(tmp_path)
        torch.manual_seed(0)
        config = DistilBertConfig(
            vocab_size=len(ids), dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=12,
            initializer_range=1.0, num_labels=labels,
        )  # fmt: skip
        DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def logits(path: str, text: str) -> np.ndarray:
    """Of one text, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    read = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt")
    with torch.no_grad():
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
        return model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits[0].numpy()


def classified(path: str, prompts: list[str], responses: list[str], **told: Any) -> np.ndarray:
    kind = Kind.parse({"kind": "pretrained", "path": path, "form": "continuation", **told}, "reward_models.it")
    return kind.scorer(None)(prompts, responses)


@pytest.mark.parametrize("marks", [BERT, ROBERTA, XLNET])
def test_an_encoder_reads_prompt_and_response_between_its_own_special_tokens(encoder, marks):
    path = encoder(marks)
    alone = [logits(path, prompt + response)[1] for prompt, response in TEXTS]
    assert classified(path, *map(list, zip(*TEXTS, strict=True)), output=1) == pytest.approx(alone, abs=1e-5)
    kind = Kind.parse({"kind": "pretrained", "path": path, "output": 1}, "")
    assert kind.tokens(kind.tokenizer(), "a b", " c d") == 6


def test_an_activation_makes_a_probability_of_a_label(encoder):
    path = encoder()
    outputs = np.array([logits(path, prompt + response) for prompt, response in TEXTS], dtype=np.float64)
    softmax = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    prompts, responses = map(list, zip(*TEXTS, strict=True))
    for label in range(3):
        told = classified(path, prompts, responses, output=label, activation="softmax")
        assert told == pytest.approx(softmax[:, label], abs=1e-5)
        told = classified(path, prompts, responses, output=label, activation="sigmoid")
        assert told == pytest.approx(1 / (1 + np.exp(-outputs[:, label])), abs=1e-5)


def test_softmax_is_of_a_label_among_others(encoder):
    path = encoder(labels=1)
    with pytest.raises(StudyError, match=r"^reward_models\.it\.activation: softmax needs a label; .* output = 1"):
        classified(path, [], [], activation="softmax")
    with pytest.raises(StudyError, match=r"softmax of its one output is 1 whatever it reads; set activation = sigmoid"):
        classified(path, ["a"], ["b"], activation="softmax", output=0)
    assert 0 < classified(path, ["a"], ["b"], activation="sigmoid")[0] < 1


def test_what_is_cut_off_a_long_text_is_never_an_encoder_s_first_mark(encoder):
    path = encoder()
    rewards = classified(path, ["h g f e " * 4], [" a b c d"], output=0, truncate=True)
    assert rewards == pytest.approx([logits(path, "f e h g f e a b c d")[0]], abs=1e-5)  # 10 words, and 2 marks
    with pytest.raises(StudyError, match=r"row 0 has 22 tokens, and 12 fit"):
        classified(path, ["h g f e " * 4], [" a b c d"], output=0)


def test_an_activation_at_rest_is_no_part_of_an_identity():
    kind = Kind.parse({"kind": "pretrained", "path": "some/id", "output": 1}, "")
    assert "activation" not in identity(kind)
    assert identity(kind.model_copy(update={"activation": "softmax"}))["activation"] == "softmax"
