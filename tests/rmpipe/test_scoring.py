"""Scoring: rewards that do not depend on batches, padding, order or loading path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmpipe.config import StudyError  # noqa: E402
from rmpipe.reward import Kind  # noqa: E402
from rmpipe.scoring import (  # noqa: E402
    SequenceScorer,
    batches,
    explicit_reward,
    last_attended,
    load,
    padded,
    parts,
    rewards_of,
)
from rmpipe.text import encode  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared/data/models/stories260k"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
PROMPTS = ["a b c", "a", "d e f g a b c d e f g", "b b"]
RESPONSES = [" d e", " f", " a", " c d e f g a b"]


def save_tokenizer(folder: Path, *, pad: str = "<pad>", template: str | None = None) -> None:
    """One token a word: 0 <pad>, 1 <bos>, 2 <eos>, 3 <unk>, 4 <user>, 5 <assistant>, 6 <end>, 7 a, 8 b, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "<end>", *"abcdefg"]
    rules = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": pad, "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, model_max_length=32, **names)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def save_llama(folder: Path, *, labels: int = 1, padding: int | None = 0, head: bool = True) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=14, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, pad_token_id=padding, bos_token_id=1, eos_token_id=2,
        num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    (LlamaForSequenceClassification if head else LlamaForCausalLM)(config).save_pretrained(folder)


def save_gpt2(folder: Path) -> None:
    """A model of absolute positions, which left padding moves unless they are said."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=14, n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, initializer_range=0.5
    )
    config.num_labels = 1
    GPT2ForSequenceClassification(config).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    save_llama(tmp_path)
    return tmp_path


def alone(scorer: SequenceScorer) -> list[float]:
    """The obvious loop: each text in a batch of its own through the model's own forward."""
    with torch.inference_mode():
        return [scorer.model(torch.tensor([ids])).logits.item() for ids in scorer.ids(PROMPTS, RESPONSES)]


# -- what the head reads ----------------------------------------------------------------------------------------------

# From the paper's own function (princeton-pli/exrm-vs-imrm, utils/rm_utils.py): hidden states, head, masks, rewards.
HIDDEN = [
    [
        [-1.742, -0.364, 0.98, -1.739], [0.353, -0.203, -0.507, 0.212], [-1.066, 0.709, -0.329, -0.241],
        [-0.339, -1.3, -1.353, 0.035], [-1.185, -0.335, 1.4, 0.991], [0.493, -1.428, 0.561, -0.093],
    ],
    [
        [-1.993, 0.282, 0.754, 1.271], [1.063, -1.817, 0.776, -0.671], [0.737, -0.626, 0.381, 0.773],
        [1.773, 0.197, 0.644, 1.434], [1.952, -0.56, -1.706, 0.912], [0.521, -1.054, 0.024, 1.467],
    ],
]  # fmt: skip
HEAD = [[1.198, -0.4, -0.348, -0.276]]
ATTENDED = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
RESPONSE = [[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0]]


def test_explicit_rewards_are_those_of_the_paper():
    hidden, head = torch.tensor(HIDDEN), torch.tensor(HEAD)
    last = explicit_reward(hidden, torch.tensor(ATTENDED), head)
    mean = explicit_reward(hidden, torch.tensor(RESPONSE), head, read="mean")
    assert last.tolist() == pytest.approx([0.9922540, 1.4253574], abs=1e-5)
    assert mean.tolist() == pytest.approx([-0.4646724, 1.4253574], abs=1e-5)


def test_the_last_attended_token_is_found_under_padding_on_either_side():
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    assert last_attended(hidden, torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])).tolist() == [[1.0], [7.0]]


# -- ids --------------------------------------------------------------------------------------------------------------


def test_a_text_begins_and_ends_exactly_once(folder: Path):
    scorer = SequenceScorer(folder)
    assert scorer.ids(["a b", "a b"], [" c", " c <eos>"]) == [[1, 7, 8, 9, 2]] * 2
    assert SequenceScorer(folder, end_of_sequence=False).ids(["a b"], [" c"]) == [[1, 7, 8, 9]]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_continuation_has_the_ids_that_training_has(tmp_path: Path, template: str | None):
    save_tokenizer(tmp_path, template=template)
    save_llama(tmp_path)
    scorer = SequenceScorer(tmp_path)
    prompts = ["a b", [{"role": "user", "content": "c"}]]
    assert scorer.ids(prompts, [" d", " d"]) == [encode(scorer.tokenizer, prompt, " d") for prompt in prompts]


def test_a_conversation_goes_whole_through_its_own_template(tmp_path: Path):
    save_tokenizer(tmp_path, template="<bos> " + TEMPLATE)
    save_llama(tmp_path)
    kind = Kind.parse({"kind": "pretrained", "path": str(tmp_path)}, where="")
    messages = [{"role": "user", "content": "a"}]
    # <bos> <user> a <end> <assistant> b <end>: one beginning, and the end that the template says
    assert kind.scorer(None).ids(["a", messages], ["b", "b"]) == [[1, 4, 7, 6, 5, 8, 6]] * 2


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/models/stories260k")
def test_prompt_and_response_are_tokenised_as_one_string(tmp_path: Path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED)
    AutoModelForSequenceClassification.from_pretrained(SHARED, num_labels=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = SequenceScorer(tmp_path).ids(["Once upon a ti"], ["me there was"])[0]
    assert ids == [*tokenizer("Once upon a time there was")["input_ids"], 1]
    assert ids[0] == 1  # here <s> both begins and ends


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_rewards_do_not_depend_on_the_batch(folder: Path, batch_tokens: int):
    scorer = SequenceScorer(folder, batch_tokens=batch_tokens)
    expected = alone(scorer)
    assert np.std(expected) > 0.1
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    assert scorer(PROMPTS[::-1], RESPONSES[::-1]) == pytest.approx(expected[::-1], abs=1e-5)


@pytest.mark.parametrize("padding", [2, 9, None])
def test_rewards_do_not_depend_on_the_batch_where_padding_is_a_real_token_or_none(tmp_path: Path, padding: int | None):
    save_tokenizer(tmp_path, pad="<eos>")
    save_llama(tmp_path, padding=padding)
    scorer = SequenceScorer(tmp_path)
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(alone(scorer), abs=1e-5)


@pytest.mark.parametrize("save", [save_llama, save_gpt2])
def test_rewards_are_the_same_under_left_and_right_padding(tmp_path: Path, save: Callable[[Path], None]):
    save_tokenizer(tmp_path)
    save(tmp_path)
    scorer = SequenceScorer(tmp_path)
    rows = scorer.ids(PROMPTS, RESPONSES)
    ids, mask = padded(rows, 0)
    width = ids.shape[1]
    left = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    with torch.inference_mode():
        on_right = rewards_of(*parts(scorer.model), ids, mask)[:, 0]
        on_left = rewards_of(*parts(scorer.model), left, mask.flip(-1))[:, 0]
    assert on_right.tolist() == pytest.approx(alone(scorer), abs=1e-5)
    assert on_left.tolist() == pytest.approx(alone(scorer), abs=1e-5)


def test_what_padding_holds_does_not_matter(folder: Path):
    scorer = SequenceScorer(folder)
    rows = scorer.ids(PROMPTS, RESPONSES)
    with torch.inference_mode():
        one, other = (rewards_of(*parts(scorer.model), *padded(rows, pad)) for pad in (0, 11))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def save_bert(folder: Path) -> None:
    """A model that reads its states in a way of its own, the first token's."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=14, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)


def test_a_model_that_reads_in_its_own_way_is_never_padded(tmp_path: Path):
    save_tokenizer(tmp_path)
    save_bert(tmp_path)
    scorer = SequenceScorer(tmp_path)
    assert scorer.read is None
    expected, masks = alone(scorer), []
    scorer.model.register_forward_pre_hook(
        lambda module, args, told: masks.append(told["attention_mask"].all().item()), with_kwargs=True
    )
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    assert masks == [True] * len(masks) != []


def states(scorer: SequenceScorer) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The last state of each text, and the batch."""
    ids, mask = padded(scorer.ids(PROMPTS, RESPONSES), 0)
    return last_attended(scorer.read[0](ids, attention_mask=mask, use_cache=False).last_hidden_state, mask), (ids, mask)


def test_the_head_is_multiplied_in_float32_which_changes_no_bit_of_a_float32_model(folder: Path):
    whole, half = SequenceScorer(folder), SequenceScorer(folder, dtype="bfloat16")
    with torch.inference_mode():
        last, batch = states(whole)
        assert torch.equal(rewards_of(*whole.read, *batch), whole.read[1](last))
        weight = whole.read[1].weight[0]
        assert torch.equal(explicit_reward(last[:, None], batch[1][:, :1], weight), last @ weight)
        last, batch = states(half)
        found, weight = rewards_of(*half.read, *batch), half.read[1].weight
        assert (last.dtype, found.dtype) == (torch.bfloat16, torch.float32)
        torch.testing.assert_close(found.double(), last.double() @ weight.double().T, atol=1e-6, rtol=1e-6)
        assert not torch.equal(found, found.bfloat16().float())
        assert torch.equal(explicit_reward(last[:, None], batch[1][:, :1], weight), found[:, 0])


def test_a_scorer_says_what_it_computes_in(tmp_path: Path):
    save_tokenizer(tmp_path)
    save_llama(tmp_path)
    assert SequenceScorer(tmp_path, dtype="auto").dtype == "float32"
    assert SequenceScorer(tmp_path, dtype="bfloat16").dtype == "bfloat16"


def test_equal_texts_are_read_once(folder: Path):
    scorer = SequenceScorer(folder)
    seen: list[int] = []
    scorer.read[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    rewards = scorer(["a", "b", "a"], [" c", " c", " c"])
    assert rewards[0] == rewards[2] != rewards[1]
    assert seen == [2]


def test_batches_hold_no_more_tokens_than_asked_for_and_lose_no_row():
    rows = [(0,) * length for length in (9, 5, 5, 4, 2, 1, 1)]
    cut = list(batches(rows, 10))
    assert [[len(row) for row in batch] for batch in cut] == [[9], [5, 5], [4, 2], [1, 1]]
    assert [[len(row) for row in batch] for batch in batches(rows, 100, equal=True)] == [[9], [5, 5], [4], [2], [1, 1]]


def test_no_texts_give_no_rewards(folder: Path):
    rewards = SequenceScorer(folder)([], [])
    assert (rewards.shape, rewards.dtype) == ((0,), np.float32)


# -- read otherwise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_llama, save_gpt2])
@pytest.mark.parametrize("read", ["last", "mean"])
def test_padding_on_the_left_gives_the_same_rewards_and_leaves_the_scorer_as_it_was(tmp_path: Path, save, read: str):
    save_tokenizer(tmp_path)
    save(tmp_path)
    scorer = SequenceScorer(tmp_path, read=read)
    left = scorer.altered(padding="left", batch_tokens=10_000)
    seen: list[bool] = []
    hook = scorer.read[0].register_forward_pre_hook(
        lambda module, args, told: seen.append(bool(told["attention_mask"][:, 0].all())), with_kwargs=True
    )
    assert left.model is scorer.model
    assert left(PROMPTS, RESPONSES) == pytest.approx(scorer(PROMPTS, RESPONSES), abs=1e-5)
    hook.remove()
    assert seen == [False, True]
    assert scorer.padding is None


@pytest.mark.parametrize(("side", "same"), [("right", True), ("left", False)])
def test_a_model_that_reads_in_its_own_way_is_padded_once_asked_to_be(tmp_path: Path, side: str, same: bool):
    save_tokenizer(tmp_path)
    save_bert(tmp_path)
    scorer = SequenceScorer(tmp_path)
    seen: list[int] = []
    scorer.model.register_forward_pre_hook(
        lambda module, args, told: seen.append(int((told["attention_mask"] == 0).sum())), with_kwargs=True
    )
    rewards = scorer.altered(padding=side)(PROMPTS, RESPONSES)
    assert len(seen) == 1
    assert seen[0] > 0
    assert (rewards == pytest.approx(scorer(PROMPTS, RESPONSES), abs=1e-5)) == same  # it reads at the first place


def test_a_scorer_is_altered_in_what_it_reads(tmp_path: Path):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path, template=TEMPLATE)
    save_llama(tmp_path)
    scorer = SequenceScorer(tmp_path)
    open_ended = scorer.altered(end_of_sequence=False)
    assert open_ended.ids(["a"], [" b"])[0] == scorer.ids(["a"], [" b"])[0][:-1]
    assert scorer.altered(form="conversation").ids(["a"], ["b"]) == [[4, 7, 6, 5, 8, 6]]
    (plain := tmp_path / "plain").mkdir()
    save_tokenizer(plain)
    assert scorer.altered(tokenizer=AutoTokenizer.from_pretrained(plain)).ids(["a"], [" b"]) == [[1, 7, 8, 2]]
    with pytest.raises(TypeError, match=r"no change 'pading'; did you mean padding\?"):
        scorer.altered(pading="left")


def test_weights_are_loaded_again_only_for_another_dtype_or_attention(folder: Path):
    scorer = SequenceScorer(folder)
    half, eager = scorer.altered(dtype="bfloat16"), scorer.altered(attention="eager")
    assert half.model.dtype == torch.bfloat16
    assert eager.model.config._attn_implementation == "eager"
    assert scorer.model.dtype == torch.float32
    assert scorer.altered(dtype="float32").model is scorer.model
    moved = np.abs(half(PROMPTS, RESPONSES) - scorer(PROMPTS, RESPONSES)).max()
    assert 1e-4 < moved < 0.1 * np.std(scorer(PROMPTS, RESPONSES)) + 0.1
    assert eager(PROMPTS, RESPONSES) == pytest.approx(scorer(PROMPTS, RESPONSES), abs=1e-5)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_named_and_cut_only_when_asked(folder: Path):
    with pytest.raises(StudyError, match=r"row 1 has 33 tokens, and 32 fit; .* or set truncate = true"):
        SequenceScorer(folder)(["a", "a " * 31], ["b", ""])
    cut = SequenceScorer(folder, truncate=True, max_length=5).ids(["a b c d"], [" e f"])
    assert cut == [[1, 10, 11, 12, 2]]  # the beginning of sequence, then the last of the text


def test_a_language_model_is_not_taken_for_a_reward_model(tmp_path: Path):
    save_tokenizer(tmp_path)
    save_llama(tmp_path, head=False)
    with pytest.raises(StudyError, match=r"no weights for score.weight: no reward model; train one on it"):
        SequenceScorer(tmp_path)


def test_a_model_of_several_outputs_is_refused_until_one_is_named(tmp_path: Path):
    save_tokenizer(tmp_path)
    save_llama(tmp_path, labels=3)
    with pytest.raises(StudyError, match="3 outputs a text; say which is the reward, output = 0 to 2"):
        load(tmp_path)
    with pytest.raises(StudyError, match="3 outputs"):
        load(tmp_path, output=3)
    scorer = SequenceScorer(tmp_path, output=2)
    with torch.inference_mode():
        expected = [scorer.model(torch.tensor([ids])).logits[0, 2].item() for ids in scorer.ids(PROMPTS, RESPONSES)]
    assert scorer(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)


def test_a_reward_that_is_not_a_number_is_named(folder: Path):
    scorer = SequenceScorer(folder)
    with torch.no_grad():
        scorer.read[1].weight.fill_(float("nan"))
    with pytest.raises(StudyError, match="row 0 has the reward nan"):
        scorer(["a"], ["b"])


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    save_tokenizer(tmp_path)
    with pytest.raises(StudyError, match=r"config.json missing"):
        SequenceScorer(tmp_path)
