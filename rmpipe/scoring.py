"""Scoring texts with a sequence-classification model, in good batches, with scores that do not depend on them.

Scores of public reward models are known to move with batch size, padding side, end of sequence and loading path. Here a
text becomes ids by one rule (`rmpipe.text`), rows are padded on the right under an attention mask, and the head reads
the token that the model's own `forward` would read were the row alone: transformers looks for it by the padding token's
id, which in a padded batch is another token as soon as padding is also a real token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmpipe.config import StudyError
from rmpipe.policy import check_folder
from rmpipe.source import reaching
from rmpipe.text import Text, encode, held, padding_id, parted, render

if TYPE_CHECKING:
    import numpy as np
    import torch

Form = Literal["continuation", "conversation"]
Read = Literal["last", "mean"]
Activation = Literal["none", "softmax", "sigmoid"]


class SequenceScorer:
    """A reward model with one output a text, called as `scorer(prompts, responses) -> (n,)` float32 rewards.

    Args:
        source: a folder or a hub id; weights as safetensors.
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
        batch_tokens: tokens in a batch, padding included; speed only.
    """

    def __init__(
        self, source: Path | str, *, revision: str | None = None, trust_remote_code: bool = False,
        form: Form = "continuation", end_of_sequence: bool = True, output: int | None = None, dtype: str = "float32",
        max_length: int | None = None, truncate: bool = False, read: Read = "last", activation: Activation = "none",
        batch_tokens: int = 8192,
    ):  # fmt: skip
        from transformers import AutoTokenizer

        told = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.source, self.form, self.end_of_sequence, self.truncate = str(source), form, end_of_sequence, truncate
        self.batch_tokens, self.output, self.reading, self.activation = batch_tokens, output or 0, read, activation
        self.model = load(source, output=output, dtype=dtype, **told)
        if activation == "softmax" and self.model.config.num_labels == 1:
            raise StudyError(f"{source}: softmax of its one output is 1 whatever it reads; set activation = sigmoid")
        self.tokenizer = AutoTokenizer.from_pretrained(source, **told)
        fits = held(self.model.config, self.tokenizer)
        self.max_length = min(max_length or fits, fits)
        self.read = parts(self.model)

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
        for batch in batches(distinct, self.batch_tokens, equal=self.read is None):
            rewards |= zip(batch, self._rewards(batch), strict=True)
        return self._known(np.array([rewards[row] for row in rows], dtype=np.float32))

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
            ids, mask = padded(batch, padding_id(self.tokenizer), self.model.device)
            begin = torch.tensor([begins[index] for index in part], device=ids.device)
            said = mask * (torch.arange(ids.shape[1], device=ids.device) >= begin[:, None])
            with torch.inference_mode():
                hidden = backbone(ids, attention_mask=mask, use_cache=False).last_hidden_state
                scores[part] = explicit_reward(hidden, said, head.weight[self.output], read="mean").float().cpu()
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

        ids, mask = padded(batch, padding_id(self.tokenizer), self.model.device)
        with torch.inference_mode():
            if self.read is None:  # a class of its own rules is asked as it is, in batches without padding
                out = self.model(ids, attention_mask=mask)
                rewards = out.score.reshape(len(batch), -1) if getattr(out, "score", None) is not None else out.logits
            else:
                rewards = rewards_of(*self.read, ids, mask, padding=self.model.config.get_text_config().pad_token_id)
        values: list[float] = activated(rewards.float(), self.activation)[:, self.output].tolist()
        return values


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


def load(source: Path | str, *, output: int | None = None, dtype: str = "float32", **told: Any) -> Any:
    """Load a sequence-classification model in evaluation mode, on the GPU when there is one.

    Args:
        told: revision, trust_remote_code.

    Raises:
        StudyError: it cannot be loaded, weights are missing (a causal language model would get a head of random
            numbers), or it has several outputs and none of them is named.
        UnreachableError: the hub did not answer.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    check_folder(source)
    told |= {"dtype": dtype if dtype == "auto" else getattr(torch, dtype), "use_safetensors": True}
    with reaching(str(source), "path", "give a sequence-classification model with its weights as safetensors"):
        # Loading info is the only way to learn that a head was made up.
        model, info = AutoModelForSequenceClassification.from_pretrained(source, output_loading_info=True, **told)
    if missing := sorted(info["missing_keys"]):
        raise StudyError(f"{source}: no weights for {', '.join(missing[:3])}: no reward model; train one on it")
    outputs = int(model.config.num_labels)
    if not 0 <= (output or 0) < outputs or (output is None and outputs > 1):
        raise StudyError(f"{source}: {outputs} outputs a text; say which is the reward, output = 0 to {outputs - 1}")
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


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


def padded(rows: Sequence[Sequence[int]], pad: int, device: Any = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the right, and the attention mask, both (rows, longest)."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(width, device=device) < lengths[:, None]).long()


def rewards_of(
    backbone: Any, head: Any, ids: torch.Tensor, mask: torch.Tensor, *, padding: int | None = None
) -> torch.Tensor:
    """Rewards of a padded batch, (n, outputs), whichever side the padding is on.

    Args:
        ids: (n, tokens).
        mask: (n, tokens), 1 where attended.
        padding: the model's `pad_token_id`. Its forward, and so its training, passes over such tokens at the end of a
            text: where the end of sequence doubles as padding, the token before it is what the head has learnt to read.
    """
    positions = {} if mask[:, 0].all() else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    hidden = backbone(ids, attention_mask=mask, use_cache=False, **positions).last_hidden_state
    if padding is not None:
        mask = mask * (ids != padding)
    rewards: torch.Tensor = head(last_attended(hidden, mask))
    return rewards


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
    """Explicit reward r = <u, h_T>, (n,) reward units (2507.07981, section 2).

    Args:
        hidden: (n, tokens, width), final states.
        mask: (n, tokens), the attended tokens; for `mean` the response's tokens.
        head: u, (1, width) or (width,), without bias.
        read: `last`: at the last token of the mask; `mean`: the mean of <u, h_t> over the mask.
    """
    values = hidden @ head.reshape(-1)
    if read == "last":
        return last_attended(values[..., None], mask)[:, 0]
    return (values * mask).sum(-1) / mask.sum(-1)
