"""Generative reward models: the paper's numbers, single tokens, and that pairs are learnt side by side."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pydantic import ValidationError  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rmpipe import world  # noqa: E402
from rmpipe.algorithm import Optimiser, PairTraining  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.generative import VERIFICATION, Generative, generative_reward  # noqa: E402
from tasks.execution import Log  # noqa: E402

PAIRS = world.preferences(0, 16)
WORDS = {"template": "{prompt}{response} <react>", "yes": " liked", "no": " disliked"}
TRAINING = PairTraining(steps=1, batch_size=16, optimiser=Optimiser(name="sgd", learning_rate=0.5, clip=0))


def test_the_reward_is_the_probability_of_yes_among_all_tokens():
    logits = torch.tensor([[0.819, 0.719, -0.189, 1.747, 0.476, -1.191, 0.719]])
    assert generative_reward(logits, 3).item() == pytest.approx(logits.exp()[0, 3].item() / logits.exp().sum().item())


def test_a_step_is_the_mean_of_both_sides_answers(base, tmp_path):
    """-mean(log p(Yes | chosen), log p(No | rejected)), its gradient by hand, gives TRL's weights."""
    kind = Generative(training=TRAINING, **WORDS)
    (tmp_path / "scratch").mkdir()
    kind.train(base, PAIRS, tmp_path / "model", seed=1, log=Log("train/0", tmp_path / "scratch"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    losses = []
    for row in PAIRS:
        for side, answer in zip(("chosen", "rejected"), kind.answers(tokenizer), strict=True):
            ids = torch.tensor([kind.ids(tokenizer, row["prompt"], row[side])])
            losses.append(-model(ids).logits[0, -1].log_softmax(-1)[answer])
    torch.stack(losses).mean().backward()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for (name, weight), other in zip(model.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(weight - 0.5 * weight.grad, other, atol=2e-6), name
    scored = kind.scorer(tmp_path)([PAIRS[0]["prompt"]], [PAIRS[0]["chosen"]])
    ids = torch.tensor([kind.ids(tokenizer, PAIRS[0]["prompt"], PAIRS[0]["chosen"])])
    told = after(ids).logits[0, -1].softmax(-1)[kind.answers(tokenizer)[0]].item()
    assert scored[0] == pytest.approx(told, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"yes": " indubitably"}, "yes: ' indubitably' is not a single known token here but ['<unk>']"),
        ({"no": " not liked"}, "no: ' not liked' is not a single known token here"),
        ({"no": " liked"}, "yes: the same token as no"),
    ],
)
def test_an_answer_that_is_no_single_known_token_is_refused_with_its_pieces(words, told):
    kind = Generative(training=TRAINING, **{**WORDS, **words})
    with pytest.raises(StudyError) as caught:
        kind.answers(world.tokenizer())
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"yes": " Liked"}, "yes: ' Liked' is not a single known token here but ['<unk>']; set yes to ' liked'"),
        ({"yes": "liked"}, "yes: 'liked' is not a single known token here but runs into the end of the template; set "),
        (
            {"no": " indubitably"},
            "no: ' indubitably' is not a single known token here but ['<unk>']; no usual form of the word is; set no to"
            " a word that is, or leave this model out",
        ),
    ],
)
def test_the_forms_of_an_answer_that_the_tokenizer_has_are_proposed_and_no_others(words, told):
    kind = Generative(training=TRAINING, **{**WORDS, **words})
    with pytest.raises(StudyError) as caught:
        kind.answers(world.tokenizer())
    assert str(caught.value).startswith(told)
    if "set yes" in told:
        Generative(training=TRAINING, **{**WORDS, "yes": " liked"}).answers(world.tokenizer())


def test_a_template_without_the_response_is_refused():
    with pytest.raises(ValidationError, match="response} missing"):
        Generative(training=TRAINING, template="{prompt} right?")


def test_the_paper_s_words_are_the_default():
    assert Generative(training=TRAINING).template == VERIFICATION
    told = VERIFICATION.replace("{prompt}", "q").replace("{response}", "a")
    assert told == "Question: q\nAnswer: a\nVerification: Is the answer correct (Yes/No)?"
