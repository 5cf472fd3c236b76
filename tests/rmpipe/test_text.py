"""Texts and tokens: one rule for training, sampling and scoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpipe import world
from rmpipe.text import encode, padding_id, render, response_text

SHARED = Path(__file__).parents[3] / "shared/data/models/stories260k"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
PROMPT = "tell me of the kettle at the kitchen in winter with the colour <reply>"
RESPONSE = " wow , the kettle is splendid ; you can cherish it ; its colour is red cheers"
CHAT = [{"role": "system", "content": "a"}, {"role": "user", "content": "b c"}]


def words(*, template: str | None = None, around: str = "<bos> $A", **names: str | None):
    """One token a word: 0 <pad>, 1 <bos>, 2 <eos>, 3 <unk>, 4 <system>, 5 <user>, 6 <assistant>, 7 <end>, 8 a, 9 b."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>", "<end>", *"abcdefg"]
    rules = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    specials = [("<bos>", 1), ("<eos>", 2)]
    rules.post_processor = processors.TemplateProcessing(single=around, special_tokens=specials)
    every = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"} | names
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, **every)
    tokenizer.chat_template = template
    return tokenizer


# -- what the model sees ----------------------------------------------------------------------------------------------


def test_a_string_is_itself_where_there_is_no_template():
    assert render(words(), "a b") == "a b"


def test_messages_are_turns_after_blank_lines_where_there_is_no_template():
    chat = [*CHAT, {"role": "assistant", "content": "d"}, {"role": "critic", "content": "e"}]
    assert render(words(), chat) == "\n\nSystem: a\n\nHuman: b c\n\nAssistant: d\n\ncritic: e\n\nAssistant:"


def test_the_template_is_used_where_there_is_one_and_asks_for_an_answer():
    tokenizer = words(template=TEMPLATE)
    assert render(tokenizer, CHAT) == "<system> a <end> <user> b c <end> <assistant> "
    assert render(tokenizer, "b c") == render(tokenizer, [CHAT[1]]) == "<user> b c <end> <assistant> "


def test_a_templates_beginning_of_sequence_is_kept_where_the_tokenizer_adds_none():
    assert render(words(template=TEMPLATE, around="$A"), "b").startswith("<bos><user>")


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "around", "prompt", "both"),
    [
        (None, "<bos> $A", [1, 9, 10], [1, 9, 10, 11, 2]),
        (None, "$A", [9, 10], [9, 10, 11, 2]),
        (None, "<bos> $A <eos>", [1, 9, 10], [1, 9, 10, 11, 2]),
        (TEMPLATE, "<bos> $A", [1, 5, 9, 10, 7, 6], [1, 5, 9, 10, 7, 6, 11, 2]),
    ],
)
def test_a_text_begins_once_ends_once_and_a_prompt_alone_never_ends(
    template: str | None, around: str, prompt: list[int], both: list[int]
):
    tokenizer = words(template=template, around=around)
    assert encode(tokenizer, "b c") == prompt
    assert encode(tokenizer, "b c", " d") == both
    assert encode(tokenizer, "b c", " d", end=False) == both[:-1]
    assert encode(tokenizer, "b c", " d <eos> <eos>") == both


def test_nothing_ends_where_the_tokenizer_has_no_end_of_sequence():
    assert encode(words(eos_token=None), "b", " c") == [1, 9, 10]


def test_an_empty_response_is_its_end():
    assert encode(words(), "b", "") == [1, 9, 2]


def test_ids_of_prompt_and_response_begin_with_those_of_the_prompt():
    tokenizer = world.tokenizer()
    prompt, both = encode(tokenizer, PROMPT), encode(tokenizer, PROMPT, RESPONSE)
    assert (len(prompt), len(both)) == (15, 15 + 17 + 1)
    assert both[:15] == prompt
    assert (both[0], both[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


# -- text again -------------------------------------------------------------------------------------------------------


def test_a_response_comes_back_with_its_leading_space_and_without_its_end():
    tokenizer = world.tokenizer()
    prompt, both = encode(tokenizer, PROMPT), encode(tokenizer, PROMPT, RESPONSE)
    assert response_text(tokenizer, prompt, both[len(prompt) :]) == RESPONSE


def test_what_follows_the_end_is_cut_and_special_tokens_are_not_shown():
    tokenizer = words()
    assert response_text(tokenizer, [1, 8], [9, 0, 10, 2, 11, 2]) == " b c"
    assert response_text(tokenizer, [1, 8], [2, 9]) == ""
    assert response_text(tokenizer, [1, 8], []) == ""


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
def test_a_subword_tokenizer_that_begins_texts_with_a_space_keeps_the_rule():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED)
    for prompt in ("Once upon a time", [{"role": "user", "content": "Tell me a story."}]):
        asked, both = encode(tokenizer, prompt), encode(tokenizer, prompt, " there was a cat.")
        assert both[: len(asked)] == asked
        assert (asked.count(1), both.count(1)) == (1, 2)  # beginning and end of sequence have one id here
        assert response_text(tokenizer, asked, both[len(asked) :]) == " there was a cat."


# -- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, 0),
        ({"pad_token": None}, 3),  # unknown
        ({"pad_token": "<eos>"}, 3),
        ({"pad_token": "<eos>", "unk_token": None}, 0),
        ({"pad_token": None, "unk_token": "<eos>"}, 0),
        ({"pad_token": "<pad>", "unk_token": None, "eos_token": "<pad>"}, 1),  # 0 is the end
        ({"pad_token": None, "unk_token": None, "eos_token": None}, 0),
    ],
)
def test_padding_is_never_the_end_of_sequence(names: dict[str, str | None], expected: int):
    tokenizer = words(**names)
    assert padding_id(tokenizer) == expected != tokenizer.eos_token_id
