"""A policy: what is drawn, how likely it says it found it, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from rmpipe import policy as lm
from rmpipe.attention import can_share
from rmpipe.config import StudyError
from rmpipe.drawing import draw_tokens
from rmpipe.text import encode, render

VOCABULARY = 97
END = 2
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 8}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
    "sliding": MistralConfig(**SHAPE, sliding_window=6),
    "latent": DeepseekV3Config(**SHAPE | {"num_key_value_heads": 4}, **LATENT, first_k_dense_replace=3),
}
SHARED = {"llama": True, "qwen3": True, "gpt2": True, "sliding": False, "latent": False}
PROMPTS = ["w3 w4", "w5 w6 w7 w8 w9 w10 w11 w12 w13", "w14", "w20 w21 w22 w23 w24", "w30 w31 w32"]
MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, and a beginning of sequence."""
    special = ["<pad>", "<bos>", "<eos>"]
    vocabulary = {word: index for index, word in enumerate([*special, *(f"w{n}" for n in range(3, VOCABULARY))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def random_policy(kind: str = "llama", *, seed: int = 0, end: float = 0.0) -> lm.LanguageModel:
    """A random model of clear opinions; `end` makes the end of sequence likelier, in nats."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind])).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.data.mul_(6)
    if end:
        model.lm_head = torch.nn.Linear(32, VOCABULARY)
        model.lm_head.bias.data.zero_()[END] = end
    return lm.LanguageModel(model, tokenizer())


def plainly(policy: lm.LanguageModel, prompt: str, ids: list[int]) -> torch.Tensor:
    """Log-probabilities wherever a response has a token, by one whole forward pass: (tokens, vocabulary)."""
    head = encode(policy.tokenizer, prompt)
    with torch.inference_mode():
        logits = policy.model(torch.tensor([head + ids])).logits[0]
    return logits[len(head) - 1 : -1].double().log_softmax(-1)


def plain_sum(policy: lm.LanguageModel, prompt: str, ids: list[int]) -> float:
    return plainly(policy, prompt, ids).gather(1, torch.tensor(ids)[:, None]).sum().item()


def draw(policy: lm.LanguageModel, prompts: list[str] = PROMPTS, **changes: object) -> list[lm.Sampled]:
    told = {"samples": 6, "max_new_tokens": 20, "seed": 4, "batch_size": 8}
    return lm.sample(policy, prompts, **told | changes)


# -- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_samples_are_as_likely_as_a_plain_forward_pass_says_for_prompts_of_unlike_lengths(kind):
    policy = random_policy(kind, end=3.0)  # rows end, and are dropped, at unlike times
    drawn = draw(policy)
    for prompt, item in zip(PROMPTS, drawn, strict=True):
        expected = [plain_sum(policy, prompt, ids) for ids in item.ids]
        assert item.logprobs == pytest.approx(expected, abs=1e-4)
    lengths = {count for item in drawn for count in item.tokens}
    assert len(lengths) > 5
    assert max(lengths) > 10


@pytest.mark.parametrize("kind", CONFIGS)
def test_prompts_are_shared_by_models_that_attend_plainly_and_by_no_others(kind):
    model, cache = random_policy(kind).model, DynamicCache(config=CONFIGS[kind])
    with torch.inference_mode():
        model(torch.tensor([[1, 3, 4]]), past_key_values=cache, use_cache=True)
    assert can_share(model, cache) == SHARED[kind]


@pytest.mark.parametrize("kind", ["llama", "sliding"])
def test_a_prompt_is_read_once_for_all_its_samples_and_rows_that_ended_are_dropped(kind):
    policy, shapes = random_policy(kind, end=4.0), []
    hook = policy.model.register_forward_pre_hook(lambda _, told: shapes.append(tuple(told[0].shape)))
    drawn = draw(policy)
    hook.remove()
    assert shapes[0] == (5, 10)  # five prompts, the longest of nine words and a beginning
    assert all(width == 1 for _, width in shapes[1:])
    assert shapes[1][0] == 30
    assert shapes[-1][0] < 10
    assert len(shapes) == max(count for item in drawn for count in item.tokens)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_neither_batch_size_nor_the_other_prompts_change_what_is_drawn(kind):
    policy = random_policy(kind, end=3.0)
    whole = draw(policy)
    assert [item.ids for item in draw(policy, batch_size=2)] == [item.ids for item in whole]
    assert [item.ids for item in draw(policy, PROMPTS[::-1])] == [item.ids for item in whole[::-1]]
    assert draw(policy, PROMPTS[3:4])[0].ids == whole[3].ids


def test_another_seed_draws_other_responses_and_samples_of_a_prompt_differ():
    policy = random_policy()
    first, second = draw(policy), draw(policy, seed=5)
    assert all(a.ids != b.ids for a, b in zip(first, second, strict=True))
    assert all(len({tuple(ids) for ids in item.ids}) == 6 for item in first)


def test_tokens_are_drawn_as_often_as_the_model_says():
    policy = random_policy(end=2.0)
    item = draw(policy, PROMPTS[:1], samples=20_000, max_new_tokens=1)[0]
    expected = plainly(policy, PROMPTS[0], [3]).exp()[0]
    counts = torch.bincount(torch.tensor(item.ids)[:, 0], minlength=VOCABULARY) / 20_000
    spread = (expected * (1 - expected) / 20_000).sqrt()
    assert ((counts - expected).abs() / spread.clamp(min=1e-4)).max() < 4.5


def test_a_response_ends_with_the_end_of_sequence_and_its_text_does_not_have_it():
    policy = random_policy(end=4.0)
    for item in draw(policy):
        for text, count, finished, ids in zip(item.responses, item.tokens, item.finished, item.ids, strict=True):
            assert count == len(ids)
            assert finished == (ids[-1] == END)
            assert END not in ids[:-1]
            assert finished or count == 20
            assert text.split() == policy.tokenizer.convert_ids_to_tokens([token for token in ids if token > END])


def test_without_an_end_of_sequence_all_responses_use_their_room():
    policy = random_policy(end=4.0)
    policy.tokenizer.eos_token = None
    assert all(item.tokens == [20] * 6 and item.finished == [False] * 6 for item in draw(policy))


@pytest.mark.parametrize("told", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_likeliest_token_is_taken_when_no_other_is_left(told):
    policy = random_policy(end=2.0)
    ids = draw(policy, PROMPTS[:1], samples=1, **told)[0].ids[0]
    assert ids == plainly(policy, PROMPTS[0], ids).argmax(-1).tolist()


def test_top_k_and_top_p_leave_out_what_transformers_leaves_out_and_likelihoods_stay_those_at_temperature_1():
    policy = random_policy()
    (item,) = draw(policy, PROMPTS[:1], samples=40, top_k=5, temperature=1.5)
    seen = set()
    for ids, logprob in zip(item.ids, item.logprobs, strict=True):
        spread = plainly(policy, PROMPTS[0], ids)
        ranks = (spread > spread.gather(1, torch.tensor(ids)[:, None])).sum(-1)
        seen |= set(ranks.tolist())
        assert logprob == pytest.approx(spread.gather(1, torch.tensor(ids)[:, None]).sum().item(), abs=1e-4)
    assert seen == {0, 1, 2, 3, 4}
    (item,) = draw(policy, PROMPTS[:1], samples=40, max_new_tokens=1, top_p=0.5)
    chances = plainly(policy, PROMPTS[0], [3]).exp()[0].sort(descending=True)
    nucleus = chances.indices[: int((chances.values.cumsum(0) < 0.5).sum()) + 1].tolist()
    assert {ids[0] for ids in item.ids} <= set(nucleus)


def test_a_model_in_training_is_sampled_without_dropout_and_goes_on_training():
    policy = random_policy("gpt2", end=3.0)
    calm = draw(policy)
    policy.model.train()
    assert draw(policy) == calm
    assert policy.model.training
    assert policy.model.config._attn_implementation == "sdpa"
    assert torch.is_grad_enabled()


def test_progress_is_told_in_prompts():
    told = []
    draw(random_policy(), batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_many_samples_at_temperature_0_are_refused():
    with pytest.raises(StudyError, match="temperature: at 0 all 6 samples"):
        draw(random_policy(), temperature=0.0)


def test_a_prompt_that_leaves_no_room_is_refused_by_number():
    with pytest.raises(StudyError, match="prompt 1 has 10 tokens and 55 are to be drawn, but the model holds 64"):
        draw(random_policy(), max_new_tokens=55)
    assert len(draw(random_policy(), PROMPTS[1:2], max_new_tokens=54, samples=2)[0].ids) == 2


def test_broken_weights_are_said_to_be_broken():
    policy = random_policy()
    policy.model.lm_head.weight.data[5] = torch.nan
    with pytest.raises(StudyError, match="weights are broken"):
        draw(policy)


def test_no_prompts_give_no_samples():
    assert draw(random_policy(), []) == []


# -- drawing a token ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [1, 5, 64, 65, 300])
def test_uniform_numbers_on_a_grid_draw_each_token_in_proportion(vocabulary):
    torch.manual_seed(0)
    chances = torch.rand(vocabulary).softmax(-1)
    grid = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = torch.bincount(draw_tokens(chances.expand(10_000, -1), grid), minlength=vocabulary)
    assert (counts - 10_000 * chances).abs().max() <= 1.01


def test_tokens_of_probability_zero_are_never_drawn_even_at_the_ends():
    chances = torch.zeros(1, 200)
    chances[0, [70, 130]] = torch.tensor([0.25, 0.75])
    almost = torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    numbers = torch.tensor([0.0, 0.2499, 0.2501, almost, 1.0], dtype=torch.float64)
    assert draw_tokens(chances.expand(5, -1), numbers).tolist() == [70, 70, 130, 130, 130]


# -- how likely -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_log_probabilities_are_those_of_a_plain_forward_pass_with_or_without_the_end(kind):
    policy = random_policy(kind)
    responses, finished = [" w9 w8 w7", " w6", "", " w50 w51 w52 w53", " w4 w4"], [True, False, True, True, False]
    ids = [[9, 8, 7, END], [6], [END], [50, 51, 52, 53, END], [4, 4]]
    expected = [plain_sum(policy, prompt, tokens) for prompt, tokens in zip(PROMPTS, ids, strict=True)]
    for batch_size in (1, 2, 8):
        sums = lm.log_probabilities(policy, PROMPTS, responses, finished=finished, batch_size=batch_size)
        assert sums.tolist() == pytest.approx(expected, abs=1e-4)
    whole = lm.log_probabilities(policy, PROMPTS[1:2], responses[1:2])
    assert whole.item() == pytest.approx(plain_sum(policy, PROMPTS[1], [6, END]), abs=1e-4)


def test_an_empty_response_without_its_end_has_probability_one():
    assert lm.log_probabilities(random_policy(), ["w3"], [""], finished=[False]).tolist() == [0.0]


@pytest.mark.parametrize("rows", [0, 1, 5, 14, 24])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_large_vocabulary_is_unembedded_some_tokens_at_a_time_and_the_batch_stays_whole(kind, rows, monkeypatch):
    policy, made, passes = random_policy(kind), [], []
    responses = [" w9 w8 w7", " w6", "", " w9 w8", " w4 w4"]
    whole = lm.log_probabilities(policy, PROMPTS, responses)
    monkeypatch.setattr(lm, "LOGITS", VOCABULARY * rows)  # of 13; padded to 25
    head = policy.model.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: made.append(logits.numel() // VOCABULARY))
    policy.model.register_forward_hook(lambda _, __, out: passes.append(len(out.logits)))
    assert torch.allclose(lm.log_probabilities(policy, PROMPTS, responses), whole, atol=1e-4)
    assert passes == [5]
    assert made[:2] == [5, 5]  # of the last places, by the model and to compare
    assert sum(made[2:]) == 4 + 2 + 1 + 3 + 3
    assert max(made[2:]) <= max(1, rows)


def test_a_model_that_caps_its_logits_is_asked_for_them_itself(monkeypatch):
    torch.manual_seed(0)
    config = Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0)
    policy = lm.LanguageModel(AutoModelForCausalLM.from_config(config).eval(), tokenizer())
    policy.model.lm_head.weight.data.mul_(50)
    whole = lm.log_probabilities(policy, PROMPTS, [" w9 w8 w7"] * 5)
    monkeypatch.setattr(lm, "LOGITS", 1)
    assert torch.allclose(lm.log_probabilities(policy, PROMPTS, [" w9 w8 w7"] * 5), whole, atol=1e-4)


def test_no_more_tokens_are_read_together_than_allowed(monkeypatch):
    policy, shapes = random_policy(), []
    monkeypatch.setattr(lm, "TOKENS", 40)
    policy.model.register_forward_hook(lambda _, __, out: shapes.append(len(out.logits)))
    lm.log_probabilities(policy, PROMPTS, [" w9 w8 w7"] * 5)  # the longest has 14 tokens
    assert shapes == [2, 2, 1]


def test_a_pair_that_is_too_long_is_refused_by_number():
    with pytest.raises(StudyError, match="prompt and response 1 have 81 tokens, but the model holds 64"):
        lm.log_probabilities(random_policy(), ["w3", "w3"], [" w4", " w5" * 78])


def test_divergence_is_the_mean_over_responses_of_summed_log_ratios_and_entropy_the_mean_over_tokens():
    policy, reference = random_policy(end=3.0), random_policy(seed=1, end=2.0)
    drawn = draw(policy)
    ratios, entropies = [], []
    for prompt, item in zip(PROMPTS, drawn, strict=True):
        for ids in item.ids:
            ratios.append(plain_sum(policy, prompt, ids) - plain_sum(reference, prompt, ids))
            spread = plainly(policy, prompt, ids)
            entropies += (-(spread.exp() * spread).sum(-1)).tolist()
    numbers = lm.divergence(policy, reference, PROMPTS, drawn, batch_size=7)
    assert numbers["kl"] == pytest.approx(sum(ratios) / 30, abs=1e-4)
    assert numbers["entropy"] == pytest.approx(sum(entropies) / len(entropies), abs=1e-5)
    assert lm.divergence(policy, policy, PROMPTS, drawn)["kl"] == 0


# -- loading --------------------------------------------------------------------------------------------------------


def test_a_saved_policy_loads_in_float32_and_evaluation_mode_and_draws_the_same(tmp_path):
    policy = random_policy()
    for weights in policy.model.parameters():
        weights.data = weights.data.half().float()
    expected = draw(policy)
    policy.model.half().save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    loaded = lm.load(tmp_path, device="cpu")
    assert {weights.dtype for weights in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.context == 64
    assert [item.ids for item in draw(loaded)] == [item.ids for item in expected]


def test_a_policy_that_computes_in_bfloat16_is_asked_and_drawn_from_in_whole_numbers_of_float32(tmp_path, monkeypatch):
    policy = random_policy()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    exact, half = (lm.load(tmp_path, dtype, device="cpu") for dtype in ("float32", "bfloat16"))
    assert half.model.dtype == torch.bfloat16
    whole, found = (lm.log_probabilities(each, PROMPTS, [" w9 w8 w7"] * 5) for each in (exact, half))
    assert 0 < (whole - found).abs().max() < 0.2
    with lm.evaluating(half.model):  # by hand, the logits turned into float32 before anything else
        prompt_ids, ids = lm.parted(half.tokenizer, PROMPTS[0], " w9 w8 w7")
        spread = half.model(torch.tensor([[*prompt_ids, *ids]])).logits[0].float().log_softmax(-1)
    told = sum(spread[len(prompt_ids) + place - 1, token].item() for place, token in enumerate(ids))
    assert lm.log_probabilities(half, PROMPTS[:1], [" w9 w8 w7"]).item() == pytest.approx(told, abs=1e-5)
    monkeypatch.setattr(lm, "LOGITS", VOCABULARY)  # one token at a time
    assert torch.allclose(lm.log_probabilities(half, PROMPTS, [" w9 w8 w7"] * 5), found, atol=0.05)
    drawn = draw(half)[0]
    assert lm.likelihoods(half, [(lm.encode(half.tokenizer, PROMPTS[0]), drawn.ids[0])]).item() == pytest.approx(
        drawn.logprobs[0], abs=0.1
    )


def test_what_weights_were_saved_in_is_read_from_their_folder(tmp_path):
    assert lm.dtype_of(tmp_path) == "float32"
    for dtype in (torch.bfloat16, torch.float32):
        random_policy().model.to(dtype).save_pretrained(tmp_path)
        assert lm.dtype_of(tmp_path) == str(dtype).removeprefix("torch.")


def test_a_gpu_holds_as_many_logits_as_its_free_memory_takes_and_a_cpu_as_ever(monkeypatch):
    assert lm.most_logits(torch.device("cpu")) == lm.LOGITS
    gigabyte = 2**30
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * gigabyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * gigabyte)
    for free, expected in ((62, 2 * gigabyte), (0, 2**26), (-2, lm.LOGITS)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * gigabyte, 80 * gigabyte))
        assert lm.most_logits(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("config.json", "config.json missing"),
        ("tokenizer.json", "a tokenizer missing"),
        ("model.safetensors", "weights as safetensors missing"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(tmp_path, gone, told):
    policy = random_policy()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(StudyError, match=f"{tmp_path}: {told}; save a model there"):
        lm.load(tmp_path)


def test_a_folder_that_is_not_there_is_refused_before_the_hub_is_asked(tmp_path):
    for path in (tmp_path / "none", str(tmp_path / "none"), "./none", "some/where/else"):
        with pytest.raises(StudyError, match="no such folder"):
            lm.load(path)


# -- texts ----------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "<bos>{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_chat_template_is_used_when_there_is_one_and_the_beginning_comes_once():
    words = tokenizer()
    assert encode(words, "w3 w4") == [1, 3, 4]
    words.chat_template = TEMPLATE
    assert render(words, "w3") == render(words, [{"role": "user", "content": "w3"}]) == "[user] w3 [assistant]"
    assert encode(words, "w3").count(1) == 1


def test_messages_without_a_template_become_turns():
    turns = [("user", "w3"), ("assistant", "w4"), ("user", "w5")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert render(tokenizer(), messages) == "\n\nHuman: w3\n\nAssistant: w4\n\nHuman: w5\n\nAssistant:"


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("stories260k", "Once upon a time, there was"), ("tinystories656k", "Once upon a time, there was ")],
)
def test_a_response_keeps_the_space_between_prompt_and_itself(name, prompt):
    if not (MODELS / name).is_dir():
        pytest.skip(f"{name} is not on this machine")
    policy = lm.load(MODELS / name, device="cpu")
    (item,) = lm.sample(policy, [prompt], samples=4, max_new_tokens=12, seed=0)
    head = encode(policy.tokenizer, prompt)
    for text, ids in zip(item.responses, item.ids, strict=True):
        assert policy.tokenizer.decode(head + ids, skip_special_tokens=True) == prompt + text
        assert "  " not in prompt + text
        assert prompt[-1] == " " or text[0] == " "
    assert item.logprobs == pytest.approx([plain_sum(policy, prompt, ids) for ids in item.ids], abs=1e-4)


@pytest.mark.parametrize("logits", [1, 1 << 40])
def test_next_tokens_hold_what_token_log_probabilities_pick_out_of_a_batch_however_small(logits, monkeypatch):
    monkeypatch.setattr(lm, "LOGITS", logits)
    language_model = random_policy()
    pairs = [([1, 3], [4, 5, 6]), ([1, 7, 8, 9], [10]), ([1], [11, 12]), ([1, 3], [])]
    picked = {index: chosen for index, chosen, _ in lm.token_log_probabilities(language_model, pairs)}
    found = dict(lm.next_tokens(language_model, pairs))
    assert set(found) == set(picked) == {0, 1, 2}  # an empty response has no place
    for index, spread in found.items():
        ids = torch.tensor(pairs[index][1])
        assert spread.shape == (len(ids), VOCABULARY)
        assert spread.exp().sum(-1).tolist() == pytest.approx([1.0] * len(ids), abs=1e-5)
        assert torch.allclose(spread[torch.arange(len(ids)), ids], picked[index], atol=1e-5)


def test_no_more_logits_are_held_than_a_batch_may_have(monkeypatch):
    language_model, sizes = random_policy(), []
    monkeypatch.setattr(lm, "LOGITS", 2 * VOCABULARY * 4)  # two responses of three tokens, and what comes after
    spread = lm._spread
    monkeypatch.setattr(lm, "_spread", lambda model, pairs: (sizes.append(len(pairs)), spread(model, pairs))[1])
    assert len(list(lm.next_tokens(language_model, [([1, 3], [4, 5, 6])] * 5))) == 5
    assert sizes == [2, 2, 1]
