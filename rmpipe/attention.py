"""Attention of many samples to one prompt: its keys and values are kept once, and read once for all of them.

The samples' own keys and values are written in place into one buffer a layer, allocated at the start. Scores of the
prompt and of what a sample wrote itself go through one softmax, so that nothing is approximated (the split is known
from Hydragen, 2402.05099). transformers calls `attend` through its `AttentionInterface`; a model that cannot be told so
reads an ordinary cache, which is slower, and as right.

Imported where it is used: it needs torch and transformers to define its classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

NAME = "rmpipe_shared_prompt"


class SharedPromptLayer(DynamicLayer):
    """One layer's keys and values: of prompts, (prompts, heads, width, size); of samples, (rows, heads, room, size)."""

    keys: Any  # (rows, heads, room, size), of the samples alone; values alike
    values: Any

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, samples: int, room: int):
        super().__init__()
        self.prompt_keys, self.prompt_values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.written = 0
        self.keys, self.values = _buffer(keys, samples, room), _buffer(values, samples, room)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Write a step's keys and values, and give those of the samples so far: (rows, heads, written, size)."""
        here = slice(self.written, self.written + key_states.shape[-2])
        self.keys[:, :, here], self.values[:, :, here] = key_states, value_states
        self.written = here.stop
        return self.keys[:, :, : self.written], self.values[:, :, : self.written]

    def get_seq_length(self) -> int:
        """Tokens of a prompt, padding included, and of a sample."""
        return int(self.prompt_keys.shape[-2]) + self.written

    def keep(self, rows: torch.Tensor, prompts: torch.Tensor) -> None:
        """Drop all other rows and prompts."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        if len(prompts) < len(self.prompt_keys):
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]


def _buffer(states: torch.Tensor, samples: int, room: int) -> torch.Tensor:
    prompts, heads, _, size = states.shape
    return states.new_empty(prompts * samples, heads, room, size)


class SharedPromptCache(Cache):
    """The cache of K samples of each of some prompts.

    Rows of one prompt are neighbours. Against the prompts, they are laid out as (prompts, most rows of a prompt), with
    gaps once rows of some prompts have been dropped.

    Args:
        read: the layers of an ordinary cache after the prompts were read.
        mask: (prompts, width), 1 where a prompt has a token; None when it has one everywhere.
        room: most tokens that a sample writes.
    """

    def __init__(self, read: list[Any], mask: torch.Tensor | None, samples: int, room: int):
        layers: list[Any] = [SharedPromptLayer(layer.keys, layer.values, samples, room) for layer in read]
        super().__init__(layers=layers)
        keys = layers[0].prompt_keys
        self.prompts, self.most = len(keys), samples
        self.prompt_of = torch.arange(self.prompts, device=keys.device).repeat_interleave(samples)
        self.slots: torch.Tensor | None = None  # where a row lies among (prompts, most); None: no gaps
        self.bias: torch.Tensor | None = None  # added to the prompts' scores, (prompts, 1, 1, width)
        if mask is not None:
            self.bias = keys.new_zeros(mask.shape).masked_fill_(mask == 0, -torch.inf)[:, None, None]

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep some rows, in their order; a prompt without rows goes too."""
        prompts, place, counts = self.prompt_of[beam_idx].unique(return_inverse=True, return_counts=True)
        layers: list[Any] = self.layers
        for layer in layers:
            layer.keep(beam_idx, prompts)
        if self.bias is not None:
            self.bias = self.bias[prompts]
        self.prompt_of, self.prompts, self.most = place, len(prompts), int(counts.max())
        first = counts.cumsum(0) - counts
        self.slots = place * self.most + torch.arange(len(place), device=place.device) - first[place]

    def by_prompt(self, rows: torch.Tensor) -> torch.Tensor:
        """From (rows, heads, n, size) to (prompts, heads, most * n, size)."""
        if self.slots is not None:
            rows = rows.new_zeros(self.prompts * self.most, *rows.shape[1:]).index_copy_(0, self.slots, rows)
        _, heads, n, size = rows.shape
        return rows.view(self.prompts, self.most, heads, n, size).transpose(1, 2).reshape(self.prompts, heads, -1, size)

    def by_row(self, prompts: torch.Tensor, n: int) -> torch.Tensor:
        """From (prompts, heads, most * n, size) back to (rows, heads, n, size)."""
        _, heads, _, size = prompts.shape
        rows = prompts.view(self.prompts, heads, self.most, n, size).transpose(1, 2).reshape(-1, heads, n, size)
        return rows if self.slots is None else rows[self.slots]


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    shared: SharedPromptCache, scaling: float | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of one new token a row to its prompt and to what the row wrote.

    Args:
        query: (rows, query heads, 1, size).
        key: (rows, heads, written, size), the row's own; value alike.
        shared: has the prompts' keys and values; reaches us as an argument of the model's `forward`.

    Returns:
        (rows, 1, query heads, size).
    """
    layer: Any = shared.layers[module.layer_idx]
    if key.data_ptr() != layer.keys.data_ptr():
        told = f"{type(module).__name__} does not attend to what its cache gives it"
        raise NotImplementedError(f"{told}; sample it with the ordinary cache: model.set_attn_implementation('eager')")
    rows, query_heads, size = query.shape[0], query.shape[1], query.shape[3]
    scale = size**-0.5 if scaling is None else scaling
    query = query.reshape(rows, key.shape[1], -1, size) * scale  # query heads that share a key head side by side
    each, width = query.shape[2], layer.prompt_keys.shape[2]
    told = shared.by_prompt(query) @ layer.prompt_keys.transpose(2, 3)
    if shared.bias is not None:
        told += shared.bias
    own = shared.by_prompt(query @ key.transpose(2, 3))
    weights = torch.cat([told, own], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
    out = shared.by_row(weights[..., :width] @ layer.prompt_values, each)
    out += shared.by_row(weights[..., width:], each) @ value
    return out.reshape(rows, 1, query_heads, -1), None


AttentionInterface.register(NAME, attend)


def can_share(model: Any, cache: Cache) -> bool:
    """Whether all of a model's layers look at all that came before, by plain attention that we can stand in for.

    Sliding windows, recurrent states and compressed keys cannot be shared, nor what `sdpa` does not compute.
    """
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    first: Any = cache.layers[0]
    plain = {type(layer) for layer in cache.layers} == {DynamicLayer} and first.keys.shape[1] == heads
    told = model._supports_attention_backend and config._attn_implementation == "sdpa"
    return plain and told and not config.sub_configs


@contextmanager
def shared_prompts(model: Any) -> Iterator[None]:
    """Within it, the model attends by `attend`."""
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
