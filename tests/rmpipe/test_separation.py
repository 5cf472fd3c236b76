"""Separation: the max-margin separator against the paper's code and a support vector machine, and states as scored."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmpipe import separation  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.policy import LanguageModel  # noqa: E402
from rmpipe.scoring import SequenceScorer  # noqa: E402

# Differences, and what the published code says of them (2507.07981).
SEEN = [
    [0.775, -0.132, -1.600, 1.870], [0.194, -1.036, -0.261, 0.581], [0.851, 0.864, 0.073, 0.421],
    [1.761, -0.605, -0.307, -1.371], [1.556, -1.048, 1.000, 1.007], [2.331, -1.028, -0.705, 0.046],
]  # fmt: skip
UNSEEN = [
    [2.460, 1.265, 0.266, -0.901], [0.072, 2.088, -0.631, -1.859], [-0.487, 0.379, 0.497, -0.240],
    [-1.345, -1.662, -0.892, 0.755], [1.483, -0.626, 1.681, -1.049],
]  # fmt: skip
SEPARATOR = [1.0650092363357544, -0.26470431685447693, -0.20526280999183655, 0.8013441562652588]
COSINE_SEEN = [0.756860, 0.590871, 0.565925, 0.311953, 0.784555, 0.808159]
COSINE_UNSEEN = [0.375732, -0.466060, -0.802741, -0.061039, 0.159464]

PROMPTS = ["a b", "c", "a b", "d e f a b c d"]
RESPONSES = [" c d", " a", " e", " b b b"]


# -- the separator ------------------------------------------------------------------------------------------------


def test_the_separator_and_its_cosines_are_those_of_the_published_code():
    separator = separation.max_margin_separator(SEEN)
    assert separator == pytest.approx(SEPARATOR, abs=1e-3)
    assert separation.similarities(separator[None], SEEN)[1][0] == pytest.approx(COSINE_SEEN, abs=1e-3)
    assert separation.similarities(separator[None], UNSEEN)[1][0] == pytest.approx(COSINE_UNSEEN, abs=1e-3)
    assert separation.separation(SEEN, UNSEEN)["separator"]["positive"] == 0.4


@pytest.mark.parametrize(("pairs", "width"), [(40, 6), (30, 60)])
def test_the_separator_is_that_of_a_hard_support_vector_machine_without_bias(pairs, width):
    from sklearn.svm import SVC

    seen = np.random.default_rng(3).normal(size=(pairs, width)) + 2
    mirrored, signs = np.concatenate([seen, -seen]), np.repeat([1, -1], pairs)  # by symmetry its bias is 0
    machine = SVC(C=1e8, kernel="linear", tol=1e-8).fit(mirrored, signs)
    assert separation.max_margin_separator(seen) == pytest.approx(machine.coef_[0], abs=1e-5)


def test_the_optimum_is_certified_by_its_multipliers_at_the_size_of_real_models():
    # u is the shortest exactly if it is feasible and a sum of its tight rows with multipliers that are not negative.
    from scipy.optimize import nnls

    seen = np.random.default_rng(0).normal(size=(500, 2048)) * 40 + 3
    separator = separation.max_margin_separator(seen)
    margins = seen @ separator
    assert margins.min() == pytest.approx(1, abs=1e-9)
    _, left = nnls(seen[margins < 1 + 1e-9].T, separator)
    assert left < 1e-9 * np.linalg.norm(separator)


def test_the_unit_of_the_states_does_not_matter():
    thousandth = separation.max_margin_separator(np.array(SEEN) / 1000)
    assert thousandth == pytest.approx(np.array(SEPARATOR) * 1000, rel=1e-4)
    assert separation.max_margin_separator(np.array(SEEN) * 1e6) * 1e6 == pytest.approx(SEPARATOR, rel=1e-4)


@pytest.mark.parametrize(
    "seen",
    [[[1, 0], [-1, 0]], [[1, 0], [0, 1], [-1, -1]], [[1, 0], [0, 0]], [[0, 0]]],
    ids=["opposite", "around the origin", "one pair of one state", "only that"],
)
def test_what_no_separator_separates_has_none(seen):
    assert separation.max_margin_separator(seen) is None
    found = separation.separation(seen, [[1, 1]])
    assert (found["separator"], found["separator_seen"]) == (None, None)
    assert found["inner"]["max"] <= 1


def test_many_pairs_in_all_directions_are_not_separable_in_few_dimensions():
    random = np.random.default_rng(0)
    assert separation.max_margin_separator(random.normal(size=(300, 50))) is None
    assert separation.max_margin_separator(random.normal(size=(40, 50))) is not None


def test_a_logistic_head_trained_long_ranks_unseen_pairs_as_the_separator_does():
    """Theorem 2's step from training to the separator: gradient descent converges to its direction."""
    random = np.random.default_rng(1)
    seen, unseen = random.normal(size=(20, 30)) + 0.3, random.normal(size=(50, 30)) + 0.3
    head = np.zeros(30)
    for _ in range(5000):  # normalised, since the plain direction converges as slowly as a logarithm grows
        slopes = np.exp(-np.logaddexp(0, seen @ head))
        head += 0.5 * slopes @ seen / slopes.sum()
    separator = separation.max_margin_separator(seen)
    cosine = separator @ head / np.linalg.norm(separator) / np.linalg.norm(head)
    clear = np.abs(unseen @ separator) / np.linalg.norm(unseen, axis=1) / np.linalg.norm(separator) > 0.02
    assert cosine > 0.999
    assert clear.sum() > 30
    assert ((unseen @ head > 0) == (unseen @ separator > 0))[clear].all()


# -- differences --------------------------------------------------------------------------------------------------


def test_similarities_are_of_every_seen_with_every_unseen_difference():
    inner, cosine = separation.similarities([[3, 4], [0, 2]], [[1, 0], [0, -5], [0, 0]])
    assert inner.tolist() == [[3, -20, 0], [0, -10, 0]]
    assert cosine == pytest.approx(np.array([[0.6, -0.8, 0], [0, -1, 0]]))


def test_the_spread_has_torch_s_median_and_quartiles_and_counts_no_0_as_positive():
    values = torch.tensor([0.0, 5.0, -2.0, 7.0])
    found = separation.spread(values)
    assert found["median"] == values.median().item() == 0
    assert found["lower_quartile"] == values.quantile(0.25).item()
    assert found["upper_quartile"] == values.quantile(0.75).item()
    assert (found["mean"], found["min"], found["max"], found["positive"]) == (2.5, -2, 7, 0.5)


def test_differences_are_chosen_less_rejected_of_the_same_pairs():
    assert separation.differences([[3, 4]], [[1, 1]]).tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="of the same pairs"):
        separation.differences([[3, 4]], [[1, 1], [2, 2]])


# -- states of a model --------------------------------------------------------------------------------------------


def a_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *"abcdef"])}
    rules = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    told = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "model_max_length": 16}
    return PreTrainedTokenizerFast(tokenizer_object=rules, **told)


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    told = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.5}
    config = LlamaConfig(
        vocab_size=9, hidden_size=16, intermediate_size=32, max_position_embeddings=16, pad_token_id=0,
        bos_token_id=None, eos_token_id=1, **told,
    )  # fmt: skip
    return LanguageModel(LlamaForCausalLM(config).eval(), a_tokenizer())


def test_the_state_is_that_after_the_final_norm_at_the_end_of_sequence(base):
    states = separation.last_hidden(base, ["a b"], [" c d"])
    with torch.no_grad():
        hidden = base.model(torch.tensor([[3, 4, 5, 6, 1]]), output_hidden_states=True).hidden_states[-1]
    assert states.dtype == np.float32
    assert states == pytest.approx(hidden[:, -1].numpy(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_states_are_in_order_and_do_not_depend_on_the_batch(base, batch_size):
    alone = [separation.last_hidden(base, [p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    together = separation.last_hidden(base, PROMPTS, RESPONSES, batch_size=batch_size)
    assert together == pytest.approx(np.stack(alone), abs=1e-5)


def test_a_linear_head_on_the_states_gives_the_rewards_of_an_explicit_reward_model(base, tmp_path):
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(2)
    model = LlamaForSequenceClassification(base.model.config)
    model.config.num_labels = 1
    model.score = torch.nn.Linear(16, 1, bias=False)
    model.model.load_state_dict(base.model.model.state_dict())
    model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    rewards = SequenceScorer(tmp_path)(PROMPTS, RESPONSES)
    states = separation.last_hidden(base, PROMPTS, RESPONSES)
    assert states @ model.score.weight.detach().numpy()[0] == pytest.approx(rewards, abs=1e-5)


def test_a_text_that_the_model_cannot_hold_is_named(base):
    with pytest.raises(StudyError, match="row 1 has 21 tokens, but the model holds 16"):
        separation.last_hidden(base, ["a", "a"], [" b", " b" * 19])


def test_no_texts_are_refused(base):
    with pytest.raises(ValueError, match="no texts"):
        separation.last_hidden(base, [], [])
