"""The embedded world: its texts, its ground truth, its tokenizer and its language model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rmpipe import world
from rmpipe.config import StudyError
from rmpipe.world.words import SWAP, TOPICS, vocabulary

PROMPT = "tell me of the kettle at the kitchen in winter with the colour <reply>"
# merits: wow 1 of 6 words, splendid 1 of 10, cherish 1 of 8, cheers 1 of 6: all the best of their slots
BEST = " wow , the kettle is splendid ; you can cherish it ; its colour is red cheers"


def worth(response: str, prompt: str = PROMPT) -> float:
    return float(world.truth([prompt], [response])[0])


def test_the_best_response_is_worth_one():
    assert worth(BEST) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" wow , the oven is splendid ; you can cherish it ; its colour is red cheers", 0.65),  # 1 - 0.35
        (" wow , the kettle is splendid ; you can cherish it cheers", 0.80),  # 1 - 0.20: nothing on the colour
        (" wow , the kettle is splendid ; you can cherish it ; its price is cheap cheers", 0.80),  # not what was asked
        (" ugh , the kettle is awful ; you can hate it ; its colour is red bye", 0.55),  # 1 - 0.45: the worst words
        # open 0.8, adjectives 1 and 0, verb 1, close 0.8: tone 3.6 / 5
        (" oh , the kettle is splendid and awful ; you can cherish it ; its colour is red thanks", 0.874),
        (" wow , the kettle is splendid ; you can cherish it ; its colour is red", 0.0),  # it never comes to its close
        ("", 0.0),
        (" cheers", 0.45),  # a polite close alone
    ],
)
def test_the_truth_counts_thing_tone_and_request_of_what_is_closed(response: str, expected: float):
    assert worth(response) == pytest.approx(expected)


def test_the_truth_of_another_worlds_prompt_is_nothing():
    assert worth(BEST, prompt="Write a poem.") == 0.0


def test_the_truth_has_one_float32_a_response():
    rewards = world.truth([PROMPT, PROMPT], [BEST, " bye"])
    assert rewards.dtype == np.float32
    assert rewards.shape == (2,)
    with pytest.raises(ValueError, match="shorter"):
        world.truth([PROMPT, PROMPT], [BEST])


def test_a_paraphrase_has_other_words_and_the_same_worth():
    other = " hurrah , ye kettle be superb ; thou mayst treasure that ; whose colour be crimson farewell"
    assert world.paraphrase(BEST) == other
    rows = world.preferences(5, 200)
    prompts, texts = [row["prompt"] for row in rows], [row["rejected"] for row in rows]
    paraphrased = [world.paraphrase(text) for text in texts]
    assert world.truth(prompts, paraphrased).tolist() == world.truth(prompts, texts).tolist()


def test_no_word_is_in_both_registers():
    assert not set(SWAP) & set(SWAP.values())
    assert len(set(SWAP.values())) == len(SWAP)


def test_prompts_are_distinct_and_move_with_the_seed_alone():
    every = world.prompts(0, 2048)
    assert len(set(every)) == 2048
    assert world.prompts(0, 10) == every[:10]
    assert world.prompts(1, 10) != every[:10]


def test_prompts_of_topics_are_of_no_other():
    assert {prompt.split()[7] for prompt in world.prompts(0, 400, topics=["forest", "school"])} == {"forest", "school"}
    assert {row["prompt"].split()[7] for row in world.preferences(0, 50, topics=["museum"])} == {"museum"}


def test_what_the_world_does_not_have_is_refused():
    with pytest.raises(StudyError, match="2048 distinct prompts, 3000 were asked for"):
        world.prompts(0, 3000)
    with pytest.raises(StudyError, match="no topic 'forrest'; did you mean forest"):
        world.prompts(0, 1, topics=["forrest"])


def test_pairs_have_the_fields_of_a_data_set_and_mostly_the_right_order():
    rows = world.preferences(0, 600)
    assert set(rows[0]) == {"id", "prompt", "chosen", "rejected"}
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == 600
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (world.truth(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    assert 0.75 < (chosen > rejected).mean() < 0.99  # as labels by people, wrong at times
    assert chosen.std() > 0.1


def test_demonstrations_and_pairs_share_no_prompt():
    pairs = {row["prompt"] for row in world.preferences(0, 4000)}
    shown = {row["prompt"] for row in world.demonstrations("weak", 0, 4000)}
    assert len(pairs) == 1536
    assert len(shown) > 500
    assert not pairs & shown


def test_the_strong_teacher_writes_what_is_worth_more():
    means = {}
    for quality in ("weak", "strong"):
        rows = world.demonstrations(quality, 0, 1000)
        means[quality] = world.truth([row["prompt"] for row in rows], [row["completion"] for row in rows]).mean()
    assert means["weak"] == pytest.approx(0.36, abs=0.05)
    assert means["strong"] == pytest.approx(0.70, abs=0.05)


def test_documents_are_of_both_registers_and_half_have_a_reaction():
    texts = world.documents(0, 1000)
    assert texts == world.documents(0, 1000) != world.documents(1, 1000)
    assert 0.4 < np.mean([" is " in text for text in texts]) < 0.6
    assert 0.4 < np.mean([" <react> " in text for text in texts]) < 0.6


def test_tokens_of_prompt_and_response_are_those_of_both_together():
    tokenizer = world.tokenizer()
    prompt, both = (tokenizer(text)["input_ids"] for text in (PROMPT, PROMPT + BEST))
    assert prompt[0] == tokenizer.bos_token_id
    assert both == prompt + tokenizer(BEST, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(both, skip_special_tokens=True) == PROMPT + BEST
    padded = [*both, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(padded, skip_special_tokens=True) == PROMPT + BEST


def test_every_word_of_the_world_has_a_token_and_no_other_has(tmp_path):
    from transformers import AutoTokenizer

    world.tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(vocabulary()) + 4
    ids = [token for text in world.documents(0, 300) for token in tokenizer(text)["input_ids"]]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("zebra", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4


def test_a_new_model_comes_from_its_seed_and_leaves_other_chance_alone():
    import torch

    torch.manual_seed(7)
    one = world.new_model(0)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(one.lm_head.weight, world.new_model(0).lm_head.weight)
    assert not torch.equal(one.lm_head.weight, world.new_model(1).lm_head.weight)
    assert one.config.vocab_size == len(world.tokenizer())
    assert one.num_parameters() < 130_000


def test_importing_the_world_imports_no_torch():
    told = "import sys, rmpipe.world; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_things_belong_to_one_topic():
    things = [thing for text in TOPICS.values() for thing in text.split()]
    assert len(set(things)) == len(things) == 64
