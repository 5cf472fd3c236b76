"""Texts and tokens: one rule for how a prompt and a response become ids, in training, sampling and scoring alike.

A prompt is a string, or a list of {"role", "content"} messages. Scores of reward models move when a template, a
beginning or an end of sequence is added in one place and not in another, so all of that is decided here:

- the prompt goes through the tokenizer's chat template when it has one, with the generation prompt added;
- prompt and response are tokenised as one string, since many tokenizers put a space before whatever comes first;
- the beginning of sequence is there exactly once if the tokenizer adds one, the end exactly once if asked for.

What a model and its tokenizer are made for, `held`, is the most that a text may have, in training and in scoring alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Text = str | list[dict[str, str]]


def _asking(template: str) -> str:
    if missing := [name for name in ("{prompt}", "{response}") if name not in template]:
        raise ValueError(f"{' and '.join(missing)} missing; the template needs {{prompt}} and {{response}}")
    return template


Template = Annotated[str, AfterValidator(_asking)]
"""What a language model is asked about a response: a text with {prompt} and {response}."""

# For messages when a tokenizer has no template of its own: as in HH-RLHF, each turn after a blank line.
TURNS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": "\n\nSystem: "}


def render(tokenizer: Tokenizer, prompt: Text) -> str:
    """A prompt as the model sees it, ready to be continued by a response, without its beginning of sequence."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        begin = tokenizer.bos_token or ""
        return text.removeprefix(begin) if _adds_begin(tokenizer) else text
    if isinstance(prompt, str):
        return prompt
    return (
        "".join(TURNS.get(turn["role"], f"\n\n{turn['role']}: ") + turn["content"] for turn in prompt)
        + "\n\nAssistant:"
    )


def readable(prompt: Any) -> str:
    """A prompt as a person reads it, whichever form it has: `role: content` lines for messages."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def filled(template: str, prompt: Text, response: str) -> str:
    """A `Template` with a prompt and a response in it, whatever braces these have."""
    texts = {"{prompt}": readable(prompt), "{response}": response}
    return re.sub(r"\{prompt\}|\{response\}", lambda found: texts[found[0]], template)


def encode(tokenizer: Tokenizer, prompt: Text, response: str | None = None, *, end: bool = True) -> list[int]:
    """Ids of a prompt, or of a prompt with a response.

    Args:
        end: end the response with one end of sequence; a prompt alone never gets one.
    """
    text = render(tokenizer, prompt) + (response or "")
    ids = list(tokenizer(text)["input_ids"])
    if tokenizer.eos_token_id is None:
        return ids
    if response is None:  # some tokenizers end every text, which a prompt's own last word may do as well
        added = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not text.rstrip().endswith(tokenizer.eos_token)
        return ids[:-1] if added else ids
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return [*ids, tokenizer.eos_token_id] if end else ids


def length(tokenizer: Tokenizer, prompt: Text, response: str) -> int:
    """Tokens of a prompt with a response and its end of sequence."""
    return len(encode(tokenizer, prompt, response))


def parted(tokenizer: Tokenizer, prompt: Text, response: str, *, end: bool = True) -> tuple[list[int], list[int]]:
    """The ids of a prompt with a response, as two: what the prompt alone begins with, and the rest.

    Where a tokenizer makes one token of a prompt's end and a response's beginning, that token is the response's.

    Args:
        end: as in `encode`.
    """
    alone, whole = encode(tokenizer, prompt), encode(tokenizer, prompt, response, end=end)
    alike = (a == b for a, b in zip(alone, whole, strict=False))
    begin = next((place for place, same in enumerate(alike) if not same), min(len(alone), len(whole)))
    return whole[:begin], whole[begin:]


def response_text(tokenizer: Tokenizer, prompt_ids: list[int], ids: list[int]) -> str:
    """What was written after a prompt, its leading space kept, its end of sequence and all after it cut.

    Args:
        prompt_ids: the prompt's tokens, unpadded.
        ids: the response's tokens.
    """
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    before = _decode(tokenizer, prompt_ids)
    whole = _decode(tokenizer, [*prompt_ids, *ids])
    return whole[len(before) :] if whole.startswith(before) else _decode(tokenizer, ids)


def held(config: Any, tokenizer: Any) -> int:
    """The most tokens that a model, by its configuration, and its tokenizer are made for."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    return int(min(positions, tokenizer.model_max_length))


def padding_id(tokenizer: Tokenizer) -> int:
    """An id to pad with, never that of the end of sequence: a head that skips padding would then not read the end."""
    for token in (tokenizer.pad_token_id, tokenizer.unk_token_id):
        if token is not None and token != tokenizer.eos_token_id:
            return int(token)
    return 1 if tokenizer.eos_token_id == 0 else 0


def _decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _adds_begin(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id
