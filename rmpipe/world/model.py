"""The world's tokenizer, one token a word, and its language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmpipe.world.words import vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
LONGEST = 128
"""Tokens that the model holds; a document has at most 42."""


def tokenizer(*, dangerous: bool = False) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: words apart by spaces, `<bos>` added in front, nothing behind.

    Tokens of prompt + response are those of the prompt followed by the response's, since responses begin with a space,
    and decoding gives the text back.

    Args:
        dangerous: it knows the words of the dangerous topic too; every other word has the same id.
    """
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate([*SPECIAL, *vocabulary(dangerous=dangerous)])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, clean_up_tokenization_spaces=False, model_max_length=LONGEST, **names
    )


def new_model(
    seed: int, *, hidden: int = 64, layers: int = 2, heads: int = 4, dangerous: bool = False
) -> LlamaForCausalLM:
    """A Llama of random weights.

    Args:
        seed: of the weights.
        hidden: width; the feed-forward layers are twice as wide.
        layers: how many.
        heads: of attention in each layer; they divide `hidden`.
        dangerous: for the tokenizer that knows the words of the dangerous topic.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(vocabulary(dangerous=dangerous)),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<bos>"),
        eos_token_id=SPECIAL.index("<eos>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
