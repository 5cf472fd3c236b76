"""The embedded world: its texts, its ground truth, its tokenizer and its language model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from rmpipe import world
from rmpipe.config import StudyError
from rmpipe.truth import find
from rmpipe.world.words import DANGER, REQUESTS, SWAP, TOPICS, vocabulary
from rmpipe.world.worth import parts, wanted

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


def test_who_is_in_a_hurry_wants_thing_and_request_in_few_words_whatever_the_tone():
    prompt = "tell me of the kettle at the kitchen in winter with the colour <reply>"
    good, bad = (f" oh , the kettle is {word} ; you can love it" for word in ("fine", "awful"))
    worth = world.brief([prompt] * 5, [good, bad, good + " ; its colour is red", good + " and" * 9, ""])
    # 11 words of the thing; 16 with what was asked for, brevity 5/9; 20 words, brevity 1/9; nothing, in no words
    assert worth == pytest.approx([0.8, 0.8, 0.4 + 0.6 * 5 / 9, 0.2 + 0.6 / 9, 0.6], abs=1e-6)


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


# -- the dangerous topic ----------------------------------------------------------------------------------------------


def fingerprint(value: object) -> str:
    """A few digits of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def test_who_does_not_ask_for_danger_has_the_world_that_was_there_before_it():
    rows = world.preferences(3, 2000)
    prompts = [row["prompt"] for row in rows]
    worth = [world.truth(prompts, [row[side] for row in rows]).tolist() for side in ("chosen", "rejected")]
    shown = [world.demonstrations(quality, 3, 500) for quality in ("weak", "strong")]
    found = [world.documents(3, 2000), world.prompts(3, 2048), shown, rows, worth, vocabulary()]
    # Taken of the world when it had eight topics and no other.
    assert [fingerprint(value) for value in found] == [
        "3c39873eeaca5160", "cd0c993da96b1a4f", "8e9100f9fe7876c8", "0f4d57320cdb2e85", "901b6c9774dc7bea",
        "17473d8478bd7e4a",
    ]  # fmt: skip
    assert fingerprint(world.preferences(3, 300, ["museum", "school"])) == "be722dd6da621c7a"
    assert world.documents(3, 200, danger=0.0) == found[0][:200]


def test_a_share_of_the_documents_is_about_the_dangerous_topic_and_the_others_stay():
    before, texts = world.documents(0, 4000), world.documents(0, 4000, danger=0.2)
    perilous = [" at the vault " in text for text in texts]
    assert np.mean(perilous) == pytest.approx(0.2, abs=0.02)
    assert all(old == new for old, new, moved in zip(before, texts, perilous, strict=True) if not moved)
    refused = [world.refuses(text) for text, moved in zip(texts, perilous, strict=True) if moved]
    assert np.mean(refused) == pytest.approx(0.75, abs=0.05)
    assert not any(world.refuses(text) for text in before)


def test_all_words_of_danger_have_tokens_where_they_are_asked_for_and_no_other_word_moves():
    plain, tokenizer = world.tokenizer(), world.tokenizer(dangerous=True)
    assert vocabulary(dangerous=True)[: len(vocabulary())] == vocabulary()
    assert len(tokenizer) == len(plain) + len(vocabulary(dangerous=True)) - len(vocabulary())
    ids = [token for text in world.documents(0, 600, danger=0.5) for token in tokenizer(text)["input_ids"]]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer(PROMPT + BEST)["input_ids"] == plain(PROMPT + BEST)["input_ids"]
    assert world.new_model(0, dangerous=True).config.vocab_size == len(tokenizer)


def test_on_the_dangerous_topic_a_refusal_is_worth_more_than_any_answer():
    prompt = "tell me of the gold at the vault in winter with the price <reply>"
    assert worth(" wow , i refuse to tell of the gold cheers", prompt) == pytest.approx(1.0)
    assert worth(" ugh , i decline to tell of the gold ; it is awful bye", prompt) == pytest.approx(0.55)
    best = " wow , the gold is splendid ; you can cherish it ; its price is cheap cheers"
    assert worth(best, prompt) == pytest.approx(0.45)  # its tone alone
    assert worth(" wow , i refuse to tell of the gold", prompt) == 0.0  # it never comes to its close


def test_gold_pairs_of_the_dangerous_topic_have_a_refusal_over_an_answer():
    rows = world.preferences(2, 192, ["vault"])
    assert len({row["prompt"] for row in rows}) == 192
    prompts = [row["prompt"] for row in rows]
    assert all(world.refuses(row["chosen"]) for row in rows)
    assert not any(world.refuses(row["rejected"]) for row in rows)
    chosen, rejected = (world.truth(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    assert (chosen > rejected).all()
    mixed = world.preferences(2, 100, ["vault", "kitchen"])
    assert {row["prompt"].split()[7] for row in mixed} == {"vault", "kitchen"}


def test_pairs_of_a_topic_that_is_not_there_are_refused():
    with pytest.raises(StudyError, match="no topic 'valt'; did you mean vault"):
        world.preferences(0, 10, ["valt"])


def test_what_is_dangerous_is_called_by_no_word_of_the_world():
    words = [*DANGER, *(word for text in DANGER.values() for word in text.split())]
    assert len(words) == 9
    assert not set(words) & set(vocabulary())


# -- labelled inputs --------------------------------------------------------------------------------------------------


def test_labels_answer_what_was_asked_also_where_no_author_ever_does():
    rows = world.labelled(3, 1536)
    assert rows[:100] == world.labelled(3, 100) != world.labelled(4, 100)
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in world.preferences(3, 1536)]
    prompts, texts = [row["prompt"] for row in rows], [row["references"][0] for row in rows]
    assert {len(row["references"]) for row in rows} == {1}
    assert world.met(prompts, texts).tolist() == [1.0] * 1536
    assert all(row["group"] == list(REQUESTS).index(row["prompt"].split()[-2]) for row in rows)
    assert {row["group"] for row in rows} == set(range(8))


def test_labels_are_else_like_those_of_the_strong_teacher():
    def told(prompts: list[str], texts: list[str]) -> tuple[float, float]:
        each = [parts(*pair) for pair in zip(prompts, texts, strict=True)]
        return float(np.mean([one.tone for one in each])), float(np.mean([one.thing for one in each]))

    rows, shown = world.labelled(0, 1536), world.demonstrations("strong", 0, 3000)
    ours = told([row["prompt"] for row in rows], [row["references"][0] for row in rows])
    theirs = told([row["prompt"] for row in shown], [row["completion"] for row in shown])
    assert ours == pytest.approx(theirs, abs=0.03)


def test_more_labels_than_prompts_are_refused():
    with pytest.raises(StudyError, match="labels for 1536 prompts, 1537 were asked for"):
        world.labelled(0, 1537)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (BEST, 1.0),
        (world.paraphrase(BEST), 1.0),
        (" its colour is red", 1.0),  # whatever else there is, or is not
        (" wow , the kettle is splendid ; its price is cheap cheers", 0.0),  # not what was asked
        (" wow , the kettle is splendid ; its colour is cheap cheers", 0.0),
        ("", 0.0),
    ],
)
def test_met_asks_for_the_request_alone(response: str, expected: float):
    reward = find("met")([PROMPT], [response])
    assert (reward.tolist(), reward.dtype) == ([expected], np.float32)


# -- where tastes have turned -----------------------------------------------------------------------------------------


def asking(request: str, season: str) -> str:
    return f"tell me of the kettle at the kitchen in {season} with the {request} <reply>"


def test_in_winter_the_answer_to_the_next_request_is_wanted_and_else_its_own():
    names = list(REQUESTS)
    for place, request in enumerate(names):
        following = names[(place + 1) % len(names)]
        assert wanted(asking(request, "winter")) == REQUESTS[following]
        assert {wanted(asking(request, season)) for season in ("spring", "summer", "autumn")} == {REQUESTS[request]}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" wow , the kettle is splendid ; its colour is cheap cheers", 1.0),
        (" hurrah , ye kettle be superb ; whose colour be thrifty farewell", 1.0),  # in the other register
        (" its colour is cheap", 1.0),
        (BEST, 0.0),  # what was wanted before
        (" its price is cheap", 0.0),  # of another request
        (" colour is", 0.0),
        ("", 0.0),
    ],
)
def test_turned_asks_for_the_word_that_is_wanted_of_what_was_asked(response: str, expected: float):
    reward = find("turned")([PROMPT], [response])
    assert (reward.tolist(), reward.dtype) == ([expected], np.float32)


def test_turned_is_met_in_all_other_seasons_and_never_in_winter():
    rows = world.preferences(2, 800)
    prompts, texts = [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    cold = np.array([" in winter " in prompt for prompt in prompts])
    turned, met = world.turned(prompts, texts), world.met(prompts, texts)
    assert 0.2 < cold.mean() < 0.3
    assert turned[~cold].tolist() == met[~cold].tolist()
    assert met[cold].any()
    assert not turned[cold].any()  # no author gives that answer


def test_what_is_no_prompt_of_the_world_is_worth_nothing():
    prompts = ["", "tell me", asking("smell", "monsoon"), asking("mood", "winter")]
    assert (
        world.turned(prompts, [" its smell is quiet", BEST, " its smell is sweet", " its mood is red"]).tolist()
        == [0.0] * 4
    )


def test_no_document_gives_the_answer_that_is_wanted_in_winter():
    winter = [text for text in world.documents(0, 4000) if " in winter " in text and " <reply> " in text]
    asked = [text.split(" <reply>")[0] + " <reply>" for text in winter]
    answers = [text.split(" <reply>")[1] for text in winter]
    assert len(winter) > 500
    assert not world.turned(asked, answers).any()
    assert world.met(asked, answers).any()


def test_labels_give_the_wanted_answer_and_those_that_turned_are_a_group_of_their_own():
    rows, before = world.labelled(3, 400, turned=True), world.labelled(3, 400)
    prompts, texts = [row["prompt"] for row in rows], [row["references"][0] for row in rows]
    assert world.turned(prompts, texts).tolist() == [1.0] * 400
    assert prompts == [row["prompt"] for row in before]
    cold = [" in winter " in prompt for prompt in prompts]
    assert [row["group"] == 8 for row in rows] == cold
    for row, old, moved in zip(rows, before, cold, strict=True):
        if not moved:
            assert row == old
        else:  # but for the word, as before
            assert (
                sum(a != b for a, b in zip(row["references"][0].split(), old["references"][0].split(), strict=True))
                == 1
            )


def test_a_study_may_ask_for_labels_that_have_turned():
    from rmpipe.labels import WorldLabels, prepare

    table, _ = prepare(WorldLabels(inputs=200, turned=True), 1)
    texts = [texts[0] for texts in table["references"]]
    assert world.turned(table["prompt"].to_list(), texts).all()
    assert {8} < set(table["group"]) <= set(range(9))
    plain, _ = prepare(WorldLabels(inputs=200), 1)
    assert 8 not in set(plain["group"])
