"""How long texts may be: most pairs are kept, and none is that some model does not hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rmpipe.config import StudyError
from rmpipe.corpus import Pairs
from rmpipe.fitting import SAMPLE, fitted, guessed
from rmpipe.preference import records
from rmpipe.prospect import Model, language_model
from rmpipe.text import encode, length


@pytest.fixture
def model(base: Path) -> Model:
    """It holds 128 tokens, one a word and one in front."""
    return language_model(str(base), "--policy")


class Twice:
    """A tokenizer that makes two tokens where another makes one."""

    def __init__(self, other):
        self.other, self.model_max_length = other, other.model_max_length
        self.chat_template, self.eos_token_id, self.eos_token = None, other.eos_token_id, other.eos_token

    def __call__(self, text, **more):
        ids = self.other(text, **more)["input_ids"]
        return {"input_ids": [i for i in ids for _ in (1, 2)] if isinstance(text, str) else [each * 2 for each in ids]}


def words(count: int) -> str:
    return " ".join(["kitchen"] * count)


def pairs(*shapes: tuple[int, int]) -> Pairs:
    """Pairs of so many words in prompt and response, each with a prompt of its own."""
    rows = [
        {"prompt": f"{n} {words(asked - 1)}", "chosen": f" {words(said)}", "rejected": f" {words(said - 1)}"}
        for n, (asked, said) in enumerate(shapes)
    ]  # fmt: skip
    splits = ["reward", "reward", "policy", "test"]
    return Pairs("pairs", {}, frame=pd.DataFrame(rows).assign(split=[splits[n % 4] for n in range(len(rows))]))


def held(model: Model, pairs: Pairs, limits) -> list[int]:
    """Tokens of each pair within the limits, prompt and longer response together."""
    rows = records(pairs.frame)
    return [
        length(model.tokenizer, row["prompt"], row["chosen"])
        for row in rows
        if len(row["prompt"].split()) <= limits.prompt and len(row["chosen"].split()) <= limits.response
    ]


def test_pairs_that_every_model_holds_are_all_kept(model: Model):
    short = pairs(*[(10, 12)] * 40)
    limits = fitted([model], short, new=16)
    assert (limits.kept, limits.why, limits.tight) == ("keep 100% of the pairs", "", False)
    assert limits.new == 16
    assert (limits.pairs, limits.prompts) == (20, {"policy": 10, "reward": 20, "test": 10})
    assert len(held(model, short, limits)) == 40


def test_pairs_that_are_too_long_are_left_out_and_others_are_not(model: Model):
    mixed = pairs(*[(20, 20)] * 30, *[(100, 20), (20, 100), (90, 90)] * 3)
    limits = fitted([model], mixed, new=16)
    left = held(model, mixed, limits)
    assert len(left) >= 30
    assert max(left) <= 128
    assert limits.why.endswith(", so that every model holds the others: 23% of the pairs")
    assert all(len(encode(model.tokenizer, row["prompt"])) + 16 <= 128 for row in records(mixed.frame)
               if len(row["prompt"].split()) <= limits.prompt)  # fmt: skip


def test_another_model_s_tokens_count_as_well(model: Model):
    longer = replace(model, place="other", tokenizer=Twice(model.tokenizer))
    mixed = pairs(*[(n, n) for n in range(10, 60)])
    alone, both = fitted([model], mixed, new=16), fitted([model, longer], mixed, new=16)
    assert max(held(longer, mixed, both)) <= 128 < max(held(longer, mixed, alone))
    assert fitted([model, longer], mixed, new=40).tight  # a response may be longer than planned in the other's tokens
    assert both.lengths.keys() == {model.place, "other"}


def test_no_pair_that_fits_is_told_with_the_model(model: Model):
    with pytest.raises(
        StudyError, match=rf"no pair is left that {model.place} holds, which is 128 tokens; give shorter"
    ):
        fitted([model], pairs(*[(200, 5)] * 8), new=16)


def test_of_many_pairs_some_are_counted_and_some_room_is_left(model: Model):
    limits = fitted([model], pairs(*[(60, 60)] * (SAMPLE + 100), *[(1, 1)] * 100), new=16)
    assert limits.prompt + limits.response <= 0.95 * 128
    assert limits.tight


def test_what_was_not_counted_is_guessed_from_what_is_held(model: Model):
    limits = guessed([model, Model("somebody/model")], new=256)
    assert (limits.prompt, limits.response, limits.new) == (64, 32, 32)
    assert limits.why == "lengths were not counted: limits are for models that hold 128 tokens"
