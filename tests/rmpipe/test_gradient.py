"""The gradient of a prompt's expected reward, against plain autograd and against all responses there can be."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rmpipe import gradient, policy, world
from rmpipe.config import StudyError
from rmpipe.text import encode, parted

WORDS = 4
SHAPE = {
    "vocab_size": WORDS, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 8, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
PROMPTS = world.prompts(0, 4)
RESPONSES = [
    [" oh , the kettle is fine", " yes", " oh , the kettle is fine", " the colour is red thanks", "", " oh"],
    [" the gold is lovely", " thanks", " you can love it", " no", " oh", " the price is red"],
    [" oh", " oh", " yes", " yes", " yes", " yes"],
    [" fine"] * 6,
]
REWARDS = np.array([
    [0.3, -1.0, 0.3, 2.0, 0.1, 0.0], [1.0, 0.0, 0.0, 3.0, 1.0, 1.0], [1.0, 0.0, 2.0, 0.1, 0.1, 0.1], [0.1] * 6,
])  # fmt: skip
FINISHED = [[True, True, True, False, False, True], [True, False] * 3, [True] * 6, [False] * 6]


@pytest.fixture(scope="module")
def world_model() -> policy.LanguageModel:
    """The embedded world's, small, of random weights; no test changes it."""
    return policy.LanguageModel(world.new_model(3, hidden=16, layers=2, heads=2).eval(), world.tokenizer())


def four_words(seed: int = 0, kind: str = "llama") -> policy.LanguageModel:
    """A model of clear opinions on four words, and no other token, so that its responses can be listed."""
    torch.manual_seed(seed)
    small = GPT2Config(vocab_size=WORDS, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)) if kind == "llama" else GPT2LMHeadModel(small)
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.data.mul_(10)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return policy.LanguageModel(model.eval(), PreTrainedTokenizerFast(tokenizer_object=words))


@pytest.fixture(scope="module")
def small() -> policy.LanguageModel:
    """No test changes it."""
    return four_words()


def listed(length: int) -> list[str]:
    """All responses of so many words."""
    return ["".join(f" w{n}" for n in words) for words in itertools.product(range(WORDS), repeat=length)]


def plainly(language_model: policy.LanguageModel, prompt: str, response: str, ended: bool = True) -> torch.Tensor:
    """log pi(y | x) of one text alone, to be differentiated."""
    prompt_ids, ids = parted(language_model.tokenizer, prompt, response, end=ended)
    logits = language_model.model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids, dtype=torch.long)[:, None]).sum()


def slope(language_model: policy.LanguageModel, value: torch.Tensor) -> np.ndarray:
    """The gradient of a value by all weights, one long vector."""
    weights = [weight for weight in language_model.model.parameters() if weight.requires_grad]
    parts = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    whole = [torch.zeros_like(w) if part is None else part for w, part in zip(weights, parts, strict=True)]
    return torch.cat([part.flatten() for part in whole]).double().numpy()


def halves(language_model: policy.LanguageModel, index: int) -> list[np.ndarray]:
    """Both estimates at a prompt, sample by sample."""
    found = []
    for half in (range(3), range(3, 6)):
        total = 0.0
        for sample in half:
            others = np.mean([REWARDS[index, other] for other in half if other != sample])
            if RESPONSES[index][sample] or FINISHED[index][sample]:
                value = plainly(language_model, PROMPTS[index], RESPONSES[index][sample], FINISHED[index][sample])
                total = total + (REWARDS[index, sample] - others) * slope(language_model, value) / 3
        found.append(total)
    return found


def estimated(language_model: policy.LanguageModel, **changes: object) -> gradient.Gradients:
    return gradient.policy_gradients(language_model, PROMPTS, RESPONSES, REWARDS, finished=FINISHED, **changes)


# -- estimates from samples -----------------------------------------------------------------------------------------


def test_estimates_are_those_of_plain_autograd_sample_by_sample(world_model):
    found = estimated(world_model)
    for index in range(4):
        left, right = halves(world_model, index)
        assert found.norm[index] == pytest.approx(np.linalg.norm(left + right) / 2, rel=1e-4)
        assert found.squared[index] == pytest.approx(np.dot(left, right), rel=1e-3, abs=1e-6)
    whole = torch.cat([weight.flatten() for weight in world_model.model.parameters()])
    assert found.parameters == pytest.approx(whole.norm().item(), rel=1e-5)


def test_what_is_differentiated_are_the_policy_s_likelihoods_however_texts_are_parted(world_model):
    pairs = [([1, 5, 6], [7, 8, 9, 2]), ([1, 5], [6, 7]), ([1, 5, 6, 7, 8], [9]), ([1], [5, 6, 7, 8, 9, 2])]
    found = gradient.likelihoods(world_model, pairs)
    assert found.requires_grad
    assert found.tolist() == pytest.approx(policy.likelihoods(world_model, pairs).tolist(), abs=1e-4)


@pytest.mark.parametrize("limits", [{"batch_size": 1}, {"batch_size": 2}, {"TOKENS": 50}, {"LOGITS": 1}])
def test_how_many_texts_are_read_at_a_time_does_not_change_the_numbers(world_model, limits, monkeypatch):
    whole, passes = estimated(world_model), []
    if "TOKENS" in limits:
        monkeypatch.setattr(gradient, "TOKENS", limits.pop("TOKENS"))
    if "LOGITS" in limits:
        monkeypatch.setattr(policy, "LOGITS", limits.pop("LOGITS"))
    hook = world_model.model.register_forward_pre_hook(lambda _, told: passes.append(told[0].shape))
    found = estimated(world_model, **limits)
    hook.remove()
    assert len(passes) > 5
    np.testing.assert_allclose(found.norm, whole.norm, rtol=1e-4)
    np.testing.assert_allclose(found.squared, whole.squared, rtol=1e-4)


def test_equal_responses_are_read_once_and_those_that_count_for_nothing_not_at_all(world_model):
    read = []
    hook = world_model.model.register_forward_pre_hook(lambda _, told: read.append(len(told[0])))
    estimated(world_model)
    # Of the first prompt two halves: a response that comes twice, and one that is empty. In the second half of the
    # second prompt two have equal weight; in the third the rewards of the second half are equal; in the fourth all.
    assert read == [2, 2, 3, 3, 2]
    hook.remove()


def test_a_prompt_whose_rewards_are_all_equal_has_exactly_no_gradient_and_costs_no_pass(world_model):
    passes = []
    hook = world_model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = gradient.policy_gradients(world_model, PROMPTS[:1], [[" a", " b", " c", " d", " e"]], [[0.1] * 5])
    hook.remove()
    assert (found.norm.tolist(), found.squared.tolist(), passes) == ([0.0], [0.0], [])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_inner_product_of_the_halves_is_unbiased_and_the_norm_of_their_mean_is_not(kind):
    model, rewards = four_words(kind=kind), np.array([1.0, -0.5, 0.0, 3.0])
    answers = listed(1)
    chances = np.exp(policy.log_probabilities(model, ["w1 w2"] * WORDS, answers, finished=[False] * WORDS).numpy())
    drawn = list(itertools.product(range(WORDS), repeat=4))  # all that four samples can be
    said, worth = [[answers[word] for word in words] for words in drawn], rewards[np.array(drawn)]
    told = gradient.policy_gradients(
        model, ["w1 w2"] * len(drawn), said, worth, finished=np.zeros(worth.shape), batch_size=8
    )
    often = chances[np.array(drawn)].prod(axis=1)
    (exact,) = gradient.exact_gradients(model, ["w1 w2"], answers, [rewards], finished=False).norm
    assert often.sum() == pytest.approx(1, abs=1e-5)
    assert often @ told.squared == pytest.approx(exact**2, rel=1e-4)
    assert told.squared.min() < 0
    assert often @ told.norm**2 > 1.2 * exact**2


def test_the_mean_over_ever_more_samples_comes_to_the_exact_gradient(small):
    answers, rewards = listed(2), np.linspace(-1, 1, WORDS**2) ** 3
    chances = np.exp(policy.log_probabilities(small, ["w3"] * 16, answers, finished=[False] * 16).double().numpy())
    drawn = np.random.default_rng(0).choice(16, size=(1, 20_000), p=chances / chances.sum())
    said = [[answers[index] for index in drawn[0]]]
    found = gradient.policy_gradients(small, ["w3"], said, rewards[drawn], finished=np.zeros(drawn.shape))
    (exact,) = gradient.exact_gradients(small, ["w3"], answers, [rewards], finished=False).norm
    assert found.norm[0] == pytest.approx(exact, rel=0.05)
    assert found.squared[0] == pytest.approx(exact**2, rel=0.1)


def test_progress_is_told_in_prompts(world_model):
    told = []
    estimated(world_model, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# -- what is left of a model ----------------------------------------------------------------------------------------


def test_a_model_is_left_as_it_was_and_its_dropout_does_not_count():
    language_model = four_words(kind="gpt2")
    model, frozen = language_model.model, language_model.model.transformer.wpe.weight
    frozen.requires_grad_(False)
    kept = torch.ones_like(model.transformer.wte.weight)
    before = copy.deepcopy(model.state_dict())
    calm = gradient.policy_gradients(language_model, ["w1"], [listed(1)], [[1.0, 0, 2, 3]])
    model.train()
    model.transformer.wte.weight.grad = kept
    with torch.inference_mode():
        again = gradient.policy_gradients(language_model, ["w1"], [listed(1)], [[1.0, 0, 2, 3]])
        gradient.exact_gradients(language_model, ["w1"], listed(1), [[1.0, 0, 2, 3]])
        gradient.jacobian_norm(language_model, "w1", " w2", places=1)
    assert again.norm == pytest.approx(calm.norm, rel=1e-5)
    assert model.training
    assert model.transformer.wte.weight.grad is kept
    assert bool((kept == 1).all())
    assert all(weight.grad is None for weight in model.parameters() if weight.grad is not kept)
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["transformer.wpe.weight"]
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_frozen_weights_are_no_part_of_the_gradient(world_model):
    language_model = policy.LanguageModel(copy.deepcopy(world_model.model), world_model.tokenizer)
    language_model.model.model.requires_grad_(False)
    found = estimated(language_model)
    left, right = halves(language_model, 0)
    assert found.norm[0] == pytest.approx(np.linalg.norm(left + right) / 2, rel=1e-4)
    assert found.norm[0] < estimated(world_model).norm[0]
    assert found.parameters == pytest.approx(language_model.model.lm_head.weight.norm().item(), rel=1e-5)


# -- refusals -------------------------------------------------------------------------------------------------------


def test_three_samples_and_unlike_shapes_are_refused(world_model):
    for rewards in (REWARDS[:, :3], REWARDS[:3], REWARDS[:, :5]):
        with pytest.raises(ValueError, match="expected"):
            gradient.policy_gradients(world_model, PROMPTS, RESPONSES, rewards)
    for answers in ([" a", " b", " a"], [" a", " b"]):
        with pytest.raises(ValueError, match="unlike answers"):
            gradient.exact_gradients(world_model, PROMPTS[:1], answers, [[0.0, 1.0, 2.0]])


def test_a_text_that_is_too_long_a_prompt_without_tokens_and_frozen_models_are_refused_before_any_pass(small):
    told = []
    hook = small.model.register_forward_pre_hook(lambda *_: told.append(1))
    said, rewards = [listed(1)] * 2, [[1.0, 2, 3, 4]] * 2
    with pytest.raises(StudyError, match="prompt 1 and a response have 9 tokens, but the model holds 8"):
        gradient.policy_gradients(small, ["w1", " w1" * 8], said, rewards)
    with pytest.raises(StudyError, match="prompt 1 is empty"):
        gradient.policy_gradients(small, ["w1", ""], said, rewards)
    hook.remove()
    assert told == []
    frozen = four_words()
    frozen.model.requires_grad_(False)
    with pytest.raises(StudyError, match="no trainable weight"):
        gradient.policy_gradients(frozen, ["w1", "w2"], said, rewards)


def test_broken_weights_are_said_to_be_broken():
    language_model = four_words()
    language_model.model.lm_head.weight.data[0] = torch.nan
    with pytest.raises(StudyError, match="prompt 0 is no number: the model's weights are broken"):
        gradient.policy_gradients(language_model, ["w1"], [listed(1)], [[1.0, 2, 3, 4]])


# -- all answers known ----------------------------------------------------------------------------------------------


def test_all_answers_together_give_the_moments_and_the_gradient_of_the_policy_restricted_to_them(small):
    answers, rewards = [" w1", " w2 w3", " w0"], [[1.0, -2.0, 0.5], [0.0, 0.0, 1.0], [0.3, 0.3, 0.3]]
    prompts = ["w1", "w2 w3 w3", "w0"]
    found = gradient.exact_gradients(small, prompts, answers, rewards, batch_size=2)
    for index, (prompt, told) in enumerate(zip(prompts, rewards, strict=True)):
        worth = torch.tensor(told)
        chances = torch.stack([plainly(small, prompt, answer) for answer in answers]).softmax(0)
        value = (chances * worth).sum()
        assert found.mean[index] == pytest.approx(value.item(), abs=1e-6)
        spread = (chances * (worth - value) ** 2).sum().sqrt()
        assert found.std[index] == pytest.approx(spread.item(), abs=1e-6)
        assert found.norm[index] == pytest.approx(np.linalg.norm(slope(small, value)), rel=1e-4, abs=1e-7)
    assert (found.std[2], found.norm[2]) == (0.0, 0.0)


# -- the Jacobian, and what bounds a gradient -----------------------------------------------------------------------


def jacobian(language_model: policy.LanguageModel, ids: list[int]) -> np.ndarray:
    """Of the logits after some tokens by all weights, (vocabulary, weights)."""
    return np.stack([slope(language_model, logit) for logit in language_model.model(torch.tensor([ids])).logits[0, -1]])


def largest(language_model: policy.LanguageModel, prompt: str, length: int) -> float:
    """gamma(x): the largest norm of the Jacobian after any tokens that a response may begin with."""
    prefixes = ["", *(text for count in range(1, length) for text in listed(count))]
    norms = [np.linalg.norm(jacobian(language_model, encode(language_model.tokenizer, prompt + text)), 2)
             for text in prefixes]  # fmt: skip
    return max(norms)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_norm_is_that_of_the_whole_jacobian_at_each_place(kind):
    language_model = four_words(kind=kind)
    found = gradient.jacobian_norm(language_model, "w1", " w2 w3 w0", places=3)
    expected = [np.linalg.norm(jacobian(language_model, [1, *before]), 2) for before in ([], [2], [2, 3])]
    assert found == pytest.approx(expected, rel=1e-4)


def test_places_are_spread_over_the_response_and_no_more_than_it_has(world_model):
    response = " oh , the kettle is fine and lovely"
    every = gradient.jacobian_norm(world_model, PROMPTS[0], response, places=99)
    assert len(every) == len(parted(world_model.tokenizer, PROMPTS[0], response)[1])
    few = gradient.jacobian_norm(world_model, PROMPTS[0], response, places=3)
    assert few == pytest.approx(every[[0, (len(every) - 1) // 2, -1]], rel=1e-3)


def test_a_few_products_come_close_from_below_and_more_come_closer(world_model):
    told = [
        gradient.jacobian_norm(world_model, PROMPTS[0], " oh", places=1, iterations=count)[0] for count in (1, 3, 8)
    ]
    exact = np.linalg.norm(jacobian(world_model, encode(world_model.tokenizer, PROMPTS[0])), 2)
    assert told[0] < told[1] < told[2] <= exact * (1 + 1e-5)
    assert told[2] == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_are_within_both_bounds_whatever_the_scale_of_the_rewards(seed, length):
    language_model, answers = four_words(seed), listed(length)
    random, prompts = np.random.default_rng(seed), ["w1", "w2", "w3 w0"]
    rewards = random.uniform(-1, 1, (3, len(answers))) ** 5
    gamma = [largest(language_model, prompt, length) for prompt in prompts]
    for scale, shift in ((1.0, 0.0), (0.01, 0.0), (50.0, 7.0)):
        found = gradient.exact_gradients(language_model, prompts, answers, scale * rewards + shift, finished=False)
        tight = gradient.cauchy_schwarz(found.std, gamma, length)
        loose = gradient.bound(found.std, gamma, length, half_range=scale)
        assert (found.norm > 0.02 * tight).all()
        assert (found.norm < tight).all()
        assert (tight <= loose / 6).all()


def test_the_score_s_mean_square_is_at_most_that_of_the_jacobians_norms_summed_over_places(small):
    answers, prompt = listed(2), "w1"
    chances = np.exp(policy.log_probabilities(small, [prompt] * 16, answers, finished=[False] * 16).numpy())
    scores = np.array([slope(small, plainly(small, prompt, answer)) for answer in answers])
    norms = [gradient.jacobian_norm(small, prompt, answer, places=2) for answer in answers]
    square = chances @ (scores**2).sum(axis=1)
    assert square <= chances @ (np.array(norms) ** 2).sum(axis=1)
    assert square > 0.05 * chances @ (np.array(norms) ** 2).sum(axis=1)


def test_the_paper_s_bound_of_rewards_on_another_scale_is_that_of_the_scaled_ones():
    # 6 L gamma std^(2/3): 6 * 10 * 2 * 0.125^(2/3) = 30
    assert gradient.bound([0.125, 0.0], 2.0, 10) == pytest.approx([30, 0])
    assert gradient.bound(0.5, 2.0, 10, half_range=4) == pytest.approx(4 * 30)
    assert gradient.cauchy_schwarz([0.125, 0.0], 2.0, 9) == pytest.approx([0.75, 0])


# -- the exponent ---------------------------------------------------------------------------------------------------


def test_the_exponent_is_that_of_a_power_law_and_lies_within_its_interval():
    random = np.random.default_rng(0)
    std = np.exp(random.normal(size=80))
    found = gradient.exponent(std, 3 * std ** (2 / 3) * np.exp(random.normal(scale=0.2, size=80)))
    assert found.low < 2 / 3 < found.high
    assert found.high - found.low < 0.2
    assert gradient.exponent(std, 3 * std).value == pytest.approx(1)


def test_prompts_without_std_or_gradient_have_no_logarithm_and_are_left_out():
    found = gradient.exponent([0.0, 1.0, 2.0, 4.0, 5.0], [9.0, 1.0, 4.0, 16.0, 0.0])
    assert found.value == pytest.approx(2)
    assert not np.isfinite(gradient.exponent([1.0, 2.0, 0.0], [1.0, 2.0, 3.0]).value)
    assert not np.isfinite(gradient.exponent([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]).value)
    with pytest.raises(ValueError, match="no number"):
        gradient.exponent([1.0, 2.0, 3.0], [1.0, np.nan, 3.0])


@pytest.mark.parametrize("power", [2 / 3, 1.0, 1.5])
def test_noise_that_goes_with_the_std_draws_the_exponent_of_norms_to_1_and_not_that_of_squares(power):
    random, exponents = np.random.default_rng(0), []
    for _ in range(3):
        std = np.exp(random.normal(scale=0.7, size=200))
        noise = 2 * std[:, None] * random.normal(size=(2, 200, 50)) / np.sqrt(50)
        left, right = std[:, None] ** power / np.sqrt(50) + noise
        norm, squared = np.linalg.norm(left + right, axis=1) / 2, (left * right).sum(axis=1)
        exponents.append([gradient.exponent(std, norm).value, gradient.exponent_of_squares(std, squared).value])
    norms, squares = np.mean(exponents, axis=0)
    assert abs(norms - 1) <= 0.6 * abs(power - 1) + 0.02
    assert squares == pytest.approx(power, abs=0.08)


def test_the_exponent_of_squares_lies_within_its_interval_and_is_exact_of_exact_squares():
    random = np.random.default_rng(0)
    std = np.exp(random.normal(size=80))
    assert gradient.exponent_of_squares(std, 9 * std**3).value == pytest.approx(1.5)
    found = gradient.exponent_of_squares(std, std ** (4 / 3) + std**2 * random.normal(scale=0.3, size=80))
    assert found.low < 2 / 3 < found.high
    assert found.high - found.low < 0.5
    assert not np.isfinite(gradient.exponent_of_squares(std, -(std**2)).value)
    assert not np.isfinite(gradient.exponent_of_squares([0.0, 0.0, 1.0, 2.0], [1.0, 1.0, 1.0, 4.0]).value)


@pytest.mark.parametrize("power", [-0.9, 3.5, 7.5])
def test_a_steep_power_of_squares_is_found(power):
    std = np.linspace(0.5, 1.5, 40)
    assert gradient.exponent_of_squares(std, std ** (2 * power)).value == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize("power", [-3, 12])
def test_a_power_of_squares_beyond_those_that_are_tried_is_not_told(power):
    std = np.linspace(0.5, 1.5, 40)
    found = gradient.exponent_of_squares(std, std ** (2.0 * power))
    assert not np.isfinite([found.value, found.low, found.high]).any()
