"""Readings: no text is longer than the model that reads it holds, and what is too long is named."""

from __future__ import annotations

import pytest

from rmpipe import world
from rmpipe.config import StudyError
from rmpipe.reading import SHORTER, Reading, called
from rmpipe.text import length


def pair(key: str, words: int, prompt: object = "tell me") -> dict[str, object]:
    """A pair whose rejected side has so many words."""
    return {"id": key, "prompt": prompt, "chosen": " a", "rejected": " a" * words}


def reading(*rows: dict[str, object], most: int | None = None) -> Reading:
    return Reading("reward_models.x", "bases.mine", "dataset (pairs.jsonl)", rows, length, most=most)


def test_the_longest_row_is_named_with_its_tokens_the_context_and_the_remedy():
    rows = [pair("short", 4), pair("seventh", 7), pair("ninth", 9)]  # <bos> tell me ... <eos>
    with pytest.raises(StudyError) as caught:
        reading(*rows).check(world.tokenizer(), 10)
    assert str(caught.value) == (
        "reward_models.x: dataset (pairs.jsonl): row ninth has 13 tokens, but bases.mine holds 10; 2 rows are too"
        f" long; {SHORTER}"
    )


def test_what_fits_to_the_token_is_read():
    reading(pair("a", 6)).check(world.tokenizer(), 10)
    with pytest.raises(StudyError, match=r"row a has 11 tokens, but bases\.mine holds 10; leave longer"):
        reading(pair("a", 7)).check(world.tokenizer(), 10)


def test_what_its_reader_leaves_out_may_be_longer():
    reading(pair("a", 9), most=10).check(world.tokenizer(), 10)
    with pytest.raises(StudyError, match="row a has 13 tokens"):
        reading(pair("a", 9), most=13).check(world.tokenizer(), 10)


def test_messages_are_measured_with_what_their_form_adds():
    turns = [{"role": "user", "content": "tell me"}]
    count = length(world.tokenizer(), turns, " a")
    reading(pair("a", 1, turns)).check(world.tokenizer(), count)
    with pytest.raises(StudyError, match=f"row a has {count} tokens"):
        reading(pair("a", 1, turns)).check(world.tokenizer(), count - 1)


def test_texts_of_fewer_bytes_than_fit_are_not_tokenised():
    asked = []

    def tokens(tokenizer: object, prompt: object, response: str) -> int:
        asked.append(response)
        return 3

    Reading("x", "bases.b", "dataset", [pair("a", 2), pair("b", 60)], tokens).check(None, 40)
    assert asked == ["a", " a" * 60]  # what stands around a text, and the one that may be too long


def test_a_source_is_called_by_its_file_where_it_has_one():
    from rmpipe.dataset import LocalSource, WorldSource

    assert called("dataset", LocalSource(path="pairs.jsonl")) == "dataset (pairs.jsonl)"
    assert called("dataset", WorldSource()) == "dataset"
