"""Scoring texts with a sequence-classification model, in good batches, with scores that do not depend on them.

Scores of public reward models are known to move with batch size, padding side, end of sequence and loading path. Here a
text becomes ids by one rule (`rmpipe.text`), rows are padded on the right under an attention mask, and the head reads
the token that the model's own `forward` would read were the row alone: transformers looks for it by the padding token's
id, which in a padded batch is another token as soon as padding is also a real token. The head is multiplied in float32
whatever the model's dtype: bfloat16 has 8 bits, and a reward of 20 would be one of multiples of an eighth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmpipe.classifier import check_output, load, load_tokenizer
from rmpipe.config import StudyError, nearest
from rmpipe.text import Text, encode, held, padding_id, parted, render

if TYPE_CHECKING:
    import numpy as np
    import torch

Form = Literal["continuation", "conversation"]
Read = Literal["last", "mean"]
Activation = Literal["none", "softmax", "sigmoid"]
Side = Literal["right", "left"]

ALTERABLE = {"batch_tokens", "padding", "end_of_sequence", "form", "tokenizer", "dtype", "attention"}
"""How a model is read and computed, which `SequenceScorer.altered` changes."""


class SequenceScorer:
    """A reward model with one output a text, called as `scorer(prompts, responses) -> (n,)` float32 rewards.

    Args:
        source: a folder or a hub id; weights as safetensors. Of an adapter: what comes of merging it into its base.
        form: `continuation`: the prompt, ready to be continued, and the response, as our reward models are trained;
            `conversation`: the whole conversation in the tokenizer's chat template, as public reward models are.
            Without a template both are a continuation. An encoder reads it between its tokenizer's own special tokens.
        end_of_sequence: end a continuation with exactly one end of sequence. A conversation ends as its template says.
        output: which output to read of a model that has several.
        max_length: most tokens a text may have; by default what the model holds.
        truncate: cut the beginning off texts that are longer, rather than refuse them.
        read: `last`: the head is read at the last token; `mean`: the mean of what it says at each token of the response
            of a continuation.
        activation: what the outputs at the last token go through, so that a classifier's reward is a probability:
            `softmax` over all labels, `sigmoid` of each.
        chat_template: a file with a template that is used instead of the tokenizer's own.
        base: the base of an adapter, where it is not what the adapter names.
        batch_tokens: tokens in a batch, padding included; speed only.

    Attributes:
        dtype: what the model computes in; the head is multiplied in float32.
        padding: the side that shorter texts are padded on. None, as scorers are made: on the right where the head is
            read here, and not at all where a model reads in its own way.
        attention: how transformers computes it, `eager` or `sdpa`; None for its own choice.
    """

    padding: Side | None = None
    attention: str | None = None

    def __init__(
        self, source: Path | str, *, revision: str | None = None, trust_remote_code: bool = False,
        form: Form = "continuation", end_of_sequence: bool = True, output: int | None = None, dtype: str = "float32",
        max_length: int | None = None, truncate: bool = False, read: Read = "last", activation: Activation = "none",
        chat_template: Path | str | None = None, base: str | None = None, batch_tokens: int = 8192,
    ):  # fmt: skip
        told: dict[str, Any] = {"base": base, "revision": revision, "trust_remote_code": trust_remote_code}
        self.told = {"output": output, **told}
        self.source, self.form, self.end_of_sequence, self.truncate = str(source), form, end_of_sequence, truncate
        self.batch_tokens, self.output, self.reading, self.activation = batch_tokens, output, read, activation
        self.model = load(source, dtype=dtype, **self.told)
        self.dtype = str(self.model.dtype).removeprefix("torch.")  # what "auto" has become
        self._check_activation(self.model.config.num_labels)
        self.tokenizer = load_tokenizer(source, **told)
        if chat_template is not None:
            self.tokenizer.chat_template = Path(chat_template).read_text()
        fits = held(self.model.config, self.tokenizer)
        self.max_length = min(max_length or fits, fits)
        self.read = parts(self.model)

    def altered(self, **changes: Any) -> SequenceScorer:
        """The same model read otherwise, to see whether its rewards move; what is not named stays.

        The weights are shared, and loaded again only where `dtype` or `attention` changes. A model that reads in its
        own way, which is never padded here, is asked in padded batches once `padding` says so, as other programs ask.

        Args:
            changes: `batch_tokens`, `padding` (`right` or `left`), `end_of_sequence`, `form`, `tokenizer`, `dtype`,
                `attention` (`eager` or `sdpa`).

        Raises:
            TypeError: another change.
        """
        if unknown := sorted(changes.keys() - ALTERABLE):
            raise TypeError(f"altered: no change {unknown[0]!r}; {nearest(unknown[0], list(ALTERABLE))}")
        other = copy(self)
        vars(other).update(changes)
        if (other.dtype, other.attention) != (self.dtype, self.attention):
            other.model = load(self.source, dtype=other.dtype, attention=other.attention, **self.told)
            other.read = parts(other.model)
        return other

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
        """Rewards, (n,) float32, in the order given; equal texts are read once.

        Raises:
            StudyError: a text is too long, or a reward is not a number; names the row.
        """
        import numpy as np

        if self.reading == "mean":
            return self._means(prompts, responses)
        rows = [tuple(ids) for ids in self.ids(prompts, responses)]
        distinct = sorted(dict.fromkeys(rows), key=len, reverse=True)  # longest first: what does not fit fails at once
        rewards: dict[tuple[int, ...], float] = {}
        for batch in batches(distinct, self.batch_tokens, equal=self.read is None and self.padding is None):
            rewards |= zip(batch, self._rewards(batch), strict=True)
        return self._known(np.array([rewards[row] for row in rows], dtype=np.float32))

    def _check_activation(self, outputs: int) -> None:
        if self.activation == "softmax" and outputs == 1:
            told = "softmax of its one output is 1 whatever it reads; set activation = sigmoid"
            raise StudyError(f"{self.source}: {told}")

    def _known(self, scores: np.ndarray) -> np.ndarray:
        import numpy as np

        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise StudyError(f"{self.source}: row {row} has the reward {scores[row]}; the model's weights are broken")
        return scores

    def _means(self, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
        """What the head says at the response's tokens, on average."""
        import numpy as np
        import torch

        if self.read is None or self.form != "continuation":
            raise StudyError(f"{self.source}: read = mean needs a decoder with a linear head, and a continuation")
        backbone, head = self.read
        told = [
            parted(self.tokenizer, *pair, end=self.end_of_sequence) for pair in zip(prompts, responses, strict=True)
        ]
        rows = [self._fitted(row, [*asked, *ids]) for row, (asked, ids) in enumerate(told)]
        begins = [max(0, len(row) - len(ids)) for row, (_, ids) in zip(rows, told, strict=True)]
        scores = np.zeros(len(rows), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        for batch in batches([tuple(rows[index]) for index in order], self.batch_tokens):
            part, order = order[: len(batch)], order[len(batch) :]
            ids, mask = self._padded(batch)
            begin = torch.tensor([begins[index] for index in part], device=ids.device)
            said = mask * (mask.cumsum(-1) > begin[:, None])
            with torch.inference_mode():
                hidden = states_of(backbone, ids, mask)
                scores[part] = explicit_reward(hidden, said, head.weight[self.output or 0], read="mean").cpu()
        return self._known(scores)

    def ids(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[list[int]]:
        """Each text as the model reads it."""
        pairs = enumerate(zip(prompts, responses, strict=True))
        return [self._fitted(row, self._encoded(prompt, response)) for row, (prompt, response) in pairs]

    def _encoded(self, prompt: Text, response: str) -> list[int]:
        return encoded(self.tokenizer, self.form, prompt, response, end=self.end_of_sequence)

    def _fitted(self, row: int, ids: list[int]) -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        if not self.truncate:
            remedy = "filter long texts out of the data set, shorten the responses, or set truncate = true"
            raise StudyError(f"{self.source}: row {row} has {len(ids)} tokens, and {self.max_length} fit; {remedy}")
        begin = ids[:1] if ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id) else []
        return begin + ids[len(ids) - self.max_length + len(begin) :]

    def _rewards(self, batch: list[tuple[int, ...]]) -> list[float]:
        import torch

        ids, mask = self._padded(batch)
        with torch.inference_mode():
            if self.read is None:  # a class of its own rules is asked as it is
                out = self.model(ids, attention_mask=mask)
                said = out.logits if getattr(out, "score", None) is None else out.score
                rewards = said.reshape(len(batch), -1)
                check_output(self.source, rewards.shape[1], self.output)
                self._check_activation(rewards.shape[1])
            else:
                rewards = rewards_of(*self.read, ids, mask, padding=self.model.config.get_text_config().pad_token_id)
        values: list[float] = activated(rewards.float(), self.activation)[:, self.output or 0].tolist()
        return values

    def _padded(self, batch: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        pad = padding_id(self.tokenizer)
        if self.read is None and self.tokenizer.pad_token_id is not None:  # the token that it looks for itself
            pad = self.tokenizer.pad_token_id
        return padded(batch, pad, self.model.device, self.padding or "right")


def encoded(tokenizer: Any, form: Form, prompt: Text, response: str, *, end: bool = True) -> list[int]:
    """Ids of a prompt with a response, in a form of `SequenceScorer`."""
    if form == "continuation" or not tokenizer.chat_template:
        if closes(tokenizer):
            return list(tokenizer(render(tokenizer, prompt) + response)["input_ids"])
        return encode(tokenizer, prompt, response, end=end)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    conversation = [*asked, {"role": "assistant", "content": response}]
    return list(tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False))


def closes(tokenizer: Any) -> bool:
    """Whether a tokenizer ends a text with a mark of its own that is no end of sequence, as many encoders' do."""
    marks = {tokenizer.cls_token_id, tokenizer.sep_token_id} - {tokenizer.eos_token_id, None}
    return bool(marks) and tokenizer("a")["input_ids"][-1] in marks


def activated(outputs: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Outputs (n, labels) as they are, or as probabilities."""
    if activation == "none":
        return outputs
    return outputs.softmax(-1) if activation == "softmax" else outputs.sigmoid()


def parts(model: Any) -> tuple[Any, Any] | None:
    """Backbone and linear head of a decoder; None for a class that reads its states in a way of its own."""
    import torch

    backbone, head = getattr(model, model.base_model_prefix, None), getattr(model, "score", None)
    known = type(model).__module__.startswith("transformers.") and backbone is not None
    return (backbone, head) if known and isinstance(head, torch.nn.Linear) else None


def batches(rows: list[tuple[int, ...]], tokens: int, *, equal: bool = False) -> Iterator[list[tuple[int, ...]]]:
    """Cut rows, sorted by falling length, into batches of at most `tokens` tokens, padding included.

    Args:
        equal: only rows of one length together, so that there is no padding.
    """
    batch: list[tuple[int, ...]] = []
    for row in rows:
        if batch and ((len(batch) + 1) * len(batch[0]) > tokens or (equal and len(row) != len(batch[0]))):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(
    rows: Sequence[Sequence[int]], pad: int, device: Any = "cpu", side: Side = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on one side, and the attention mask, both (rows, longest)."""
    import torch

    whole = [torch.tensor(row) for row in rows]
    ids, mask = (
        torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=value, padding_side=side).to(device)
        for each, value in ((whole, pad), ([torch.ones_like(row) for row in whole], 0))
    )
    return ids, mask


def rewards_of(
    backbone: Any, head: Any, ids: torch.Tensor, mask: torch.Tensor, *, padding: int | None = None
) -> torch.Tensor:
    """Rewards of a padded batch, (n, outputs) float32, whichever side the padding is on.

    Args:
        head: of any dtype; computed in float32.
        ids: (n, tokens).
        mask: (n, tokens), 1 where attended.
        padding: the model's `pad_token_id`. Its forward, and so its training, passes over such tokens at the end of a
            text: where the end of sequence doubles as padding, the token before it is what the head has learnt to read.
    """
    import torch

    hidden = states_of(backbone, ids, mask)
    if padding is not None:
        mask = mask * (ids != padding)
    weights = {name: weight.float() for name, weight in head.named_parameters()}
    rewards: torch.Tensor = torch.func.functional_call(head, weights, (last_attended(hidden, mask).float(),))
    return rewards


def states_of(backbone: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The final states of a padded batch, (n, tokens, width), whichever side the padding is on."""
    positions = {} if mask[:, 0].all() else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    states: torch.Tensor = backbone(ids, attention_mask=mask, use_cache=False, **positions).last_hidden_state
    return states


def last_attended(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state at each row's last attended token, (n, width).

    Args:
        hidden: (n, tokens, width), final states after the last norm.
        mask: (n, tokens), 1 where attended.
    """
    import torch

    last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(-1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def explicit_reward(
    hidden: torch.Tensor, mask: torch.Tensor, head: torch.Tensor, *, read: Read = "last"
) -> torch.Tensor:
    """Explicit reward r = <u, h_T>, (n,) float32 reward units (2507.07981, section 2).

    Args:
        hidden: (n, tokens, width), final states.
        mask: (n, tokens), the attended tokens; for `mean` the response's tokens.
        head: u, (1, width) or (width,), without bias.
        read: `last`: at the last token of the mask; `mean`: the mean of <u, h_t> over the mask.
    """
    values = hidden.float() @ head.float().reshape(-1)
    if read == "last":
        return last_attended(values[..., None], mask)[:, 0]
    return (values * mask).sum(-1) / mask.sum(-1)
